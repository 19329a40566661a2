//! `GET /v1/tasks/{partition}-{offset}` over Kafka: the worker is another process.

use crate::{PARTITIONS, created};
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
