//! The one memory number holds when many largest tasks come at once.

use partita_tests::{
    pace,
    random::Random,
    scenario,
    server::Setup,
    stall::{self, SIZES},
};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_clients_with_100_mb_each_stay_within_the_budget_while_small_tasks_flow() {
    let _busy = pace::busy().await;
    let server = Setup::embedded().set("memory.budget", "\"512MiB\"").start().await.unwrap();
    let crowd = scenario::crowd(&server, 16, 4).await.unwrap();
    eprintln!("{crowd:?}");
    assert!(crowd.peak_resident <= (512 + 64) << 20, "{} MiB became resident", crowd.peak_resident >> 20);
    assert!(crowd.refused > 0, "16 × 100 MB do not fit, and yet none was refused");
    assert!(crowd.slowest_refusal < Duration::from_secs(5), "refused after {:?}", crowd.slowest_refusal);
    assert!(crowd.small >= 20, "only {} small tasks got through", crowd.small);
    server.is_sound().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_stand_still_on_768_partitions_leave_every_budget_kept() {
    let _busy = pace::busy().await;
    for size in SIZES {
        let setup = Setup::embedded().set("log.embedded.partitions", "768");
        let stall = stall::through(&setup, 768, size, &mut Random::from_env()).await.unwrap();
        eprintln!("{size:?}: {stall:?}");
    }
}
