//! `POST /v1/tasks` over Kafka.

use crate::{PARTITIONS, committed_is_end, created};
use partita_tests::{kafka::Kafka, ways_in};

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_keeps_the_order_of_each_key() {
    let kafka = Kafka::up(1).unwrap();
    let server = created(&kafka, PARTITIONS).await.start().await.unwrap();
    ways_in::every_way_in_keeps_the_order(&server).await.unwrap();
    committed_is_end(&kafka, PARTITIONS).await;
    server.is_sound().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_overtakes_one_of_its_key_that_was_refused_in_the_same_request() {
    let kafka = Kafka::up(1).unwrap();
    let server = created(&kafka, PARTITIONS).await.start().await.unwrap();
    ways_in::no_task_overtakes_one_of_its_key_that_was_refused(&server).await.unwrap();
    committed_is_end(&kafka, PARTITIONS).await;
    server.is_sound().await.unwrap();
}
