//! `GET /v1/tasks/{partition}-{offset}` over Kafka: the worker is another process.

use crate::{PARTITIONS, created, created_as};
use partita_tests::{kafka::Kafka, receipts};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_task_hears_of_its_end_from_a_worker_of_another_process() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    let door = setup.clone().role("front-door").start().await.unwrap();
    let client = door.client();
    let id = client.accept("k", "task").await.unwrap().id;
    assert_eq!(receipts::state(&client, &id, "").await.unwrap(), "queued");
    assert_eq!(receipts::state(&client, &id, "wait=done&timeout=500ms").await.unwrap(), "queued");
    let worker = setup.beside().role("worker").start().await.unwrap();
    assert_eq!(receipts::state(&client, &id, "wait=done&timeout=60s").await.unwrap(), "done");
    receipts::whoever_waits_hears_of_the_end(&client).await.unwrap();
    for server in [door, worker] {
        server.is_sound().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_refused_is_told_with_its_reason() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    let door = setup.clone().role("front-door").start().await.unwrap();
    let client = door.client();
    // It keeps tasks of the tests' own form, and rejects any other.
    let worker = setup.journal_worker("receipts", &[]).start().await.unwrap();
    let id = client.accept("k", "of another form").await.unwrap().id;
    assert_eq!(receipts::state(&client, &id, "wait=done&timeout=60s").await.unwrap(), "rejected");
    let body: serde_json::Value = receipts::ask(&client, &id, "").await.unwrap().json().unwrap();
    assert_eq!((&body["cause"], &body["attempts"]), (&"rejected".into(), &1.into()), "{body}");
    assert!(body["reason"].as_str().unwrap().contains("no first line"), "{body}");
    worker.is_sound().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_of_a_task_is_told_by_its_workers_process_and_by_another() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created_as(&kafka, "apart", PARTITIONS).await;
    let door = setup.clone().role("front-door").start().await.unwrap();
    let worker = setup.journal_worker("worker", &receipts::MANNERS).start().await.unwrap();
    receipts::every_state_is_told(&door, &worker).await.unwrap();
    let setup = created_as(&kafka, "together", PARTITIONS).await.set("commit.interval", "\"20s\"");
    let manners = [&["--serve"][..], &receipts::MANNERS].concat();
    let both = setup.journal_worker("both", &manners).start().await.unwrap();
    receipts::every_state_is_told(&both, &both).await.unwrap();
    for server in [door, worker, both] {
        server.is_sound().await.unwrap();
    }
}
