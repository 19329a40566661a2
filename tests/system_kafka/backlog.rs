//! Partitions that are too far behind: their tasks are refused, and no others.

use crate::{PARTITIONS, committed_is_end, created};
use partita_core::partition_of;
use partita_tests::{client::Client, kafka::Kafka, wait};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(30);

/// A key of this partition.
fn key_of(partition: u32) -> String {
    let of = |key: &String| partition_of(key.as_bytes(), PARTITIONS).0 == partition;
    (0..).map(|number| format!("key {number}")).find(of).unwrap()
}

/// Posts until it is refused, and returns how many were taken.
async fn fill(client: &Client, key: &str) -> u64 {
    let mut taken = 0;
    wait::until("the partition is refused", WITHIN, async || {
        let answer = client.post(key, "task").await?;
        match answer.status {
            202 => taken += 1,
            503 => {
                assert!(answer.text().contains("partition_behind"), "{}", answer.text());
                let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
                assert!((1..=60).contains(&seconds), "{seconds}");
                return Ok(Some(()));
            }
            other => panic!("{other}: {}", answer.text()),
        }
        Ok(None)
    })
    .await
    .unwrap();
    taken
}

async fn is_taken_again(client: &Client, key: &str) {
    wait::until("it is taken again", WITHIN, async || {
        Ok((client.post(key, "task").await?.status == 202).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_partition_that_is_behind_is_refused_until_a_worker_has_caught_up() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    let door = setup.clone().role("front-door").set("front_door.backlog_tasks", "100").start().await.unwrap();
    let client = door.client();
    assert!(fill(&client, &key_of(3)).await > 100);
    client.accept(&key_of(4), "task").await.unwrap();
    let worker = setup.beside().role("worker").start().await.unwrap();
    is_taken_again(&client, &key_of(3)).await;
    committed_is_end(&kafka, PARTITIONS).await;
    for server in [&door, &worker] {
        server.is_sound().await.unwrap();
    }
    // By age: one task that nobody handles is enough.
    drop(worker);
    let door = door.kill().set("front_door.backlog_age", "\"3s\"").start().await.unwrap();
    client.accept(&key_of(5), "task").await.unwrap();
    assert!(fill(&client, &key_of(5)).await < 100_000);
    client.accept(&key_of(6), "task").await.unwrap();
    let _worker = setup.beside().role("worker").start().await.unwrap();
    is_taken_again(&client, &key_of(5)).await;
    door.is_sound().await.unwrap();
}
