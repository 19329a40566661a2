//! The main run: a mixed load while the process is killed again and again.

use crate::{created, judge, look};
use partita_tests::{checkers::Bounds, kafka::Kafka, load::Load, observe::Observer, random::Random, size};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_reordered_when_the_worker_is_killed_mid_load() {
    let mut random = Random::from_env();
    let (load, kills) = size::of_the_main_run(Load { tasks: 1000, ..size::users() }, 3);
    let tasks = load.tasks;
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, crate::PARTITIONS).await;
    let mut server = setup.start().await.unwrap();
    let mut running = load.start(setup.front(), Random::new(random.bits()));
    let mut observer = Observer::default();
    for kill in 1..=kills {
        let spread = tasks / (kills + 1);
        running.accepted_at_least(kill * spread + random.below(spread / 2)).await.unwrap();
        server = server.kill().start().await.unwrap();
        look(&mut observer, &kafka, &server).await;
    }
    let ledger = running.finish().await.unwrap();
    assert_eq!(ledger.counts().ok, tasks);
    judge(observer, &kafka, &server, &ledger, Bounds::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_nothing_and_leaves_everything_handled_committed() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, crate::PARTITIONS).await;
    let load = Load { tasks: 300, keys: 40, sizes: 1_000..=500_000, ..Load::default() };
    let server = setup.start().await.unwrap();
    let mut running = load.start(setup.front(), Random::from_env());
    running.accepted_at_least(150).await.unwrap();
    let status = server.stop(std::time::Duration::from_secs(12)).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let committed = kafka.committed(crate::TOPIC, crate::PARTITIONS).unwrap();
    let server = setup.start().await.unwrap();
    // In order at the end: the next life begins where the last one had got to, and handles nothing twice.
    let ledger = running.finish().await.unwrap();
    judge(Observer::default(), &kafka, &server, &ledger, Bounds::default()).await;
    let before: u64 = committed.iter().map(|position| position.offset.0).sum();
    let all: u64 = kafka.ends(crate::TOPIC, crate::PARTITIONS).unwrap().values().map(|end| end.0).sum();
    let handled = server.metrics().await.unwrap().sum("partita_tasks_processed_total");
    assert_eq!(handled, Some((all - before) as f64), "{before} of {all} were committed before");
}
