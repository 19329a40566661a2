//! kill -9 in the middle of a load: everything acknowledged is handled, in order, and committed.

use crate::PARTITIONS;
use partita_tests::{
    checkers::{self, Bounds},
    load::Load,
    observe::{self, Observer},
    pace,
    random::Random,
    server::Setup,
    size,
};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_reordered_when_the_process_is_killed_mid_load() {
    let _busy = pace::busy().await;
    let mut random = Random::from_env();
    let setup = Setup::embedded();
    let short = Load { tasks: 800, keys: 60, clients: 12, sizes: 1_000..=300_000, ..Load::default() };
    let (load, kills) = size::of_the_main_run(short, 4);
    let mut server = setup.start().await.unwrap();
    let mut running = load.start(setup.front(), Random::new(random.bits()));
    for kill in 1..=kills {
        let spread = load.tasks / (kills + 1);
        running.accepted_at_least(kill * spread + random.below(spread / 2)).await.unwrap();
        server.is_sound().await.unwrap();
        server = server.kill().start().await.unwrap();
    }
    let ledger = running.finish().await.unwrap();
    server.committed_is_end(PARTITIONS, &ledger.acknowledged(), Duration::from_secs(60)).await.unwrap();

    let client = server.client();
    let mut observer = Observer::default();
    observer.look(&client, &[]).await.unwrap();
    let history = observer.history(&ledger);
    let counts = ledger.counts();
    eprintln!("{counts:?}, {} ends", history.ends.len());
    assert_eq!(counts.ok, load.tasks);
    assert_eq!(checkers::violations(&history, Bounds::default()), Vec::<String>::new());
    let read = observe::spot_check(&client, &history.ends, 20).await.unwrap();
    assert!(read > 20, "{read} chunks were read back");
    server.is_sound().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_begins_at_the_committed_offset_and_handles_nothing_before_it_again() {
    let server = Setup::embedded().start().await.unwrap();
    let client = server.client();
    let mut acknowledged = Vec::new();
    for task in 0..50 {
        let receipt = client.accept(&format!("key-{}", task % 9), format!("task {task}")).await.unwrap();
        acknowledged.push(receipt.position());
    }
    server.committed_is_end(PARTITIONS, &acknowledged, Duration::from_secs(30)).await.unwrap();
    let server = server.kill().start().await.unwrap();
    acknowledged.push(client.accept("key-0", "one more").await.unwrap().position());
    server.committed_is_end(PARTITIONS, &acknowledged, Duration::from_secs(30)).await.unwrap();
    let metrics = server.metrics().await.unwrap();
    assert_eq!(metrics.sum("partita_tasks_processed_total"), Some(1.0), "all before it was committed");
}
