//! What is refused at the start: with which exit code, and whether the message helps.

use partita_tests::server::Setup;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_log_is_refused_with_a_message_that_names_the_directory() {
    let first = Setup::embedded().start().await.unwrap();
    let mut second = first.setup().beside().spawn().unwrap();
    let status = second.ended(Duration::from_secs(30)).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let said = second.log();
    assert!(said.contains("partita-data/log"), "{said}");
    assert!(said.contains("another process") || said.contains("in use") || said.contains("locked"), "{said}");
    // The first one is none the worse for it.
    first.client().accept("key", "task").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_made_with_another_partition_count_is_refused() {
    let server = Setup::embedded().set("log.embedded.partitions", "4").start().await.unwrap();
    server.client().accept("key", "task").await.unwrap();
    let setup = server.kill();
    let mut wrong = setup.clone().set("log.embedded.partitions", "5").spawn().unwrap();
    let status = wrong.ended(Duration::from_secs(30)).await.unwrap();
    assert!(matches!(status.code(), Some(1 | 2)), "{status}");
    let said = wrong.log();
    assert!(said.contains('4') && said.contains('5') && said.contains("partitions"), "{said}");
    setup.start().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_ends_with_2_and_names_what_is_wrong() {
    for (path, value, named) in [
        ("log.embeded.dir", "\"x\"", "embedded"),
        ("memory.bugdet", "\"1GiB\"", "budget"),
        ("memory.budget", "\"many\"", "memory.budget"),
        ("log.kind", "\"paper\"", "paper"),
        ("memory.budget", "\"1MiB\"", "memory.budget"),
    ] {
        let finished = Setup::embedded().set(path, value).command(&["serve"]).await.unwrap();
        assert_eq!(finished.code, Some(2), "{path} = {value}: {}", finished.said());
        assert!(
            finished.stderr.contains(named),
            "{path} = {value} does not name {named}: {}",
            finished.said()
        );
    }
    let missing = Setup::embedded().command(&["serve", "--role", "conductor"]).await.unwrap();
    assert_eq!(missing.code, Some(2), "{}", missing.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_half_of_an_embedded_log_is_refused() {
    for role in ["front-door", "worker"] {
        let finished = Setup::embedded().command(&["serve", "--role", role]).await.unwrap();
        assert_eq!(finished.code, Some(2), "{role}: {}", finished.said());
        assert!(finished.stderr.contains("kafka"), "{role}: {}", finished.said());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_passes_on_a_fresh_embedded_log() {
    let finished = Setup::embedded().command(&["check"]).await.unwrap();
    assert_eq!(finished.code, Some(0), "{}", finished.said());
    assert!(finished.stdout.contains("ok"), "{}", finished.said());
}
