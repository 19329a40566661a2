//! The one memory number holds when many largest tasks come at once.

use crate::{PARTITIONS, committed_is_end, created, created_as};
use partita_tests::{
    kafka::Kafka,
    random::Random,
    scenario,
    stall::{self, SIZES},
};
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

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_stand_still_on_768_partitions_leave_every_budget_kept() {
    let kafka = Kafka::up(1).unwrap();
    for (size, topic) in SIZES.into_iter().zip(["tasks-64", "tasks-256", "tasks-512", "tasks-1024"]) {
        let setup = created_as(&kafka, topic, 768).await;
        let stall = stall::through(&setup, 768, size, &mut Random::from_env()).await.unwrap();
        eprintln!("{size:?}: {stall:?}");
        kafka.delete(topic).await.unwrap();
    }
}
