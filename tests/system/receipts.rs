//! `GET /v1/tasks/{partition}-{offset}` over the embedded log.

use partita_tests::{receipts, server::Setup};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_task_hears_of_its_end() {
    let server = Setup::embedded().set("commit.interval", "\"20s\"").start().await.unwrap();
    receipts::whoever_waits_hears_of_the_end(&server.client()).await.unwrap();
    let id = server.client().accept("k", "task").await.unwrap().id;
    let server = server.kill().start().await.unwrap();
    assert_eq!(receipts::state(&server.client(), &id, "wait=done&timeout=60s").await.unwrap(), "done");
    server.is_sound().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_of_a_task_is_told() {
    let manners = [&["--serve"][..], &receipts::MANNERS].concat();
    let setup = Setup::embedded().set("commit.interval", "\"20s\"").journal_worker("worker", &manners);
    let server = setup.start().await.unwrap();
    receipts::every_state_is_told(&server, &server).await.unwrap();
    server.is_sound().await.unwrap();
}
