//! One front door, two workers: each half on its own.

use crate::{PARTITIONS, created, judge};
use partita_tests::{
    checkers::Bounds, kafka::Kafka, load::Load, observe::Observer, random::Random, server::Server, wait,
};
use std::time::Duration;

async fn assigned(worker: &Server) -> f64 {
    worker.metrics().await.unwrap().sum("partita_partition_assigned").unwrap_or(0.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_door_and_two_workers_share_the_work_and_survive_the_loss_of_a_worker() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    // A dead worker's partitions are stuck for as long as the group waits for it.
    let workers = setup.clone().role("worker").set("log.kafka.properties.\"session.timeout.ms\"", "\"6000\"");
    let door = setup.clone().role("front-door").start().await.unwrap();
    let first = workers.beside().start().await.unwrap();
    let second = workers.beside().start().await.unwrap();
    wait::until("both have partitions", Duration::from_secs(60), async || {
        let (one, other) = (assigned(&first).await, assigned(&second).await);
        Ok((one > 0.0 && other > 0.0 && one + other == f64::from(PARTITIONS)).then_some(()))
    })
    .await
    .unwrap();

    let load = Load { tasks: 600, keys: 80, sizes: 1_000..=300_000, ..Load::default() };
    let mut running = load.start(setup.front(), Random::from_env());
    running.accepted_at_least(150).await.unwrap();
    let first = first.kill().start().await.unwrap();
    running.accepted_at_least(400).await.unwrap();
    let status = second.stop(Duration::from_secs(12)).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let ledger = running.finish().await.unwrap();
    assert_eq!(ledger.counts().ok, load.tasks);
    judge(Observer::default(), &kafka, &door, &ledger, Bounds::default()).await;
    // The last member hears of the rebalance with its next heartbeat, perhaps after the last task was handled.
    wait::until("the one that is left has them all", Duration::from_secs(30), async || {
        Ok((assigned(&first).await == f64::from(PARTITIONS)).then_some(()))
    })
    .await
    .unwrap();
    first.is_sound().await.unwrap();
}
