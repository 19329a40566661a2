//! What the README promises to a newcomer.

use partita_tests::{observe, server::Setup, wait};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_posted_task_is_in_its_recording_within_a_second_and_survives_kill_9() {
    let server = Setup::embedded().start().await.unwrap();
    let client = server.client();
    let first = client.accept("my recording/1", "hello").await.unwrap();
    let start = Instant::now();
    observe::chunks(&client, "my recording/1", 1, SOON).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "visible after {:?}", start.elapsed());

    let server = server.kill().start().await.unwrap();
    let recording = client.recording("my recording/1").await.unwrap().unwrap();
    assert_eq!(recording.key, "my recording/1");
    assert_eq!(recording.chunks.len(), 1, "still there, once");
    assert_eq!((recording.chunks[0].partition, recording.chunks[0].offset), (first.partition, first.offset));

    let second = client.accept("my recording/1", " world").await.unwrap();
    assert_eq!((second.partition, second.offset), (first.partition, first.offset + 1));
    let chunks = observe::chunks(&client, "my recording/1", 2, SOON).await.unwrap();
    assert_eq!((chunks[1].partition, chunks[1].offset), (second.partition, second.offset));
    assert_eq!(client.content("my recording/1").await.unwrap(), "hello world");
    server.never_panicked().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_counted_and_committed_to_the_end() {
    let server = Setup::embedded().set("log.embedded.partitions", "4").start().await.unwrap();
    let client = server.client();
    let mut acknowledged = Vec::new();
    for task in 0..40 {
        let receipt = client.accept(&format!("key-{}", task % 7), format!("task {task}")).await.unwrap();
        acknowledged.push(receipt.position());
    }
    server.committed_is_end(4, &acknowledged, SOON).await.unwrap();
    let metrics = server.metrics().await.unwrap();
    assert_eq!(metrics.sum("partita_tasks_accepted_total"), Some(40.0));
    assert_eq!(metrics.sum("partita_tasks_processed_total"), Some(40.0));
    assert_eq!(metrics.sum("partita_partition_assigned"), Some(4.0));
    assert_eq!(metrics.sum("partita_invariant_violations_total").unwrap_or(0.0), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exposed_sample_is_in_the_catalogue() {
    let server = Setup::embedded().start().await.unwrap();
    server.client().accept("key", "task").await.unwrap();
    observe::chunks(&server.client(), "key", 1, SOON).await.unwrap();
    let metrics = server.metrics().await.unwrap();
    let known = |name: &str| {
        let bare =
            ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        let ours =
            partita::metrics::CATALOGUE.iter().any(|metric| metric.name == name || metric.name == bare);
        ours || name.starts_with("process_")
    };
    let strangers: Vec<&str> = metrics.names().filter(|name| !known(name)).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    assert!(metrics.names().any(|name| name == "partita_tasks_accepted_total"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gets_ready_and_says_so_on_every_probe() {
    let server = Setup::embedded().start().await.unwrap();
    let readiness = server.readiness().await.unwrap();
    assert_eq!(readiness.status, 200, "{}", readiness.body);
    wait::until("the gauge agrees", SOON, async || {
        Ok((server.metrics().await?.sum("partita_ready") == Some(1.0)).then_some(()))
    })
    .await
    .unwrap();
}
