//! The one memory number holds when many largest tasks come at once.

use crate::{PARTITIONS, committed_is_end, created};
use partita_tests::{kafka::Kafka, scenario};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_clients_with_100_mb_each_stay_within_the_budget_while_small_tasks_flow() {
    let kafka = Kafka::up(1).unwrap();
    let server = created(&kafka, PARTITIONS).await.set("memory.budget", "\"512MiB\"").start().await.unwrap();
    let crowd = scenario::crowd(&server, 16, 16).await.unwrap();
    eprintln!("{crowd:?}");
    assert_eq!(crowd.accepted, 16);
    assert!(crowd.peak_resident <= (512 + 64) << 20, "{} MiB became resident", crowd.peak_resident >> 20);
    assert!(crowd.refused > 0, "16 × 100 MB do not fit, and yet none was refused");
    assert!(crowd.slowest_refusal < Duration::from_secs(5), "refused after {:?}", crowd.slowest_refusal);
    assert!(crowd.small >= 20, "only {} small tasks got through", crowd.small);
    committed_is_end(&kafka, PARTITIONS).await;
    server.is_sound().await.unwrap();
}
