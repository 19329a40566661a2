//! A fatal error of the client: everything stops, and the process ends, non-zero and in time.

use crate::{PARTITIONS, created, judge};
use partita_tests::{checkers::Bounds, kafka::Kafka, load::Load, observe::Observer, random::Random};
use std::time::Duration;

/// `shutdown.deadline`, and a little for a busy machine.
const DEADLINE: Duration = Duration::from_secs(12);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_static_membership_is_taken_over_ends_with_an_error_and_the_other_goes_on() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    let workers =
        setup.clone().role("worker").set("log.kafka.properties.\"group.instance.id\"", "\"the-same\"");
    let door = setup.clone().role("front-door").start().await.unwrap();
    let mut first = workers.beside().start().await.unwrap();
    let load = Load { tasks: 600, keys: 80, sizes: 1_000..=100_000, ..Load::default() };
    let mut running = load.start(setup.front(), Random::from_env());
    running.accepted_at_least(200).await.unwrap();
    // The brokers fence the first one off (FENCED_INSTANCE_ID), which its client calls fatal.
    let second = workers.beside().start().await.unwrap();
    let status = first.ended(DEADLINE).await.unwrap();
    assert!(status.code().is_some_and(|code| code != 0), "{status}");
    assert!(
        first.log().contains("error: serve ended: the log's client failed for good: FencedInstanceId"),
        "it does not say why"
    );
    let ledger = running.finish().await.unwrap();
    assert_eq!(ledger.counts().ok, load.tasks);
    // What the first one had handled and could not commit any more.
    judge(Observer::default(), &kafka, &door, &ledger, Bounds::default()).await;
    first.never_panicked().unwrap();
    second.is_sound().await.unwrap();
}
