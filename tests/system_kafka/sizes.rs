//! Payloads of every size over a stock broker, on a topic as `topics create` makes it.

use crate::{PARTITIONS, created};
use partita_tests::{
    kafka::Kafka,
    random::Random,
    scenario::{self, MAX_TASK},
};

#[tokio::test(flavor = "multi_thread")]
async fn payloads_from_nothing_to_100_mb_come_back_byte_for_byte() {
    let kafka = Kafka::up(1).unwrap();
    let server = created(&kafka, PARTITIONS).await.start().await.unwrap();
    let sizes = [0, 1, 10_000, 1_000_000, 30_000_000, MAX_TASK];
    scenario::sizes_come_back(&server.client(), &sizes, &mut Random::from_env()).await.unwrap();
    let answer = server.client().post("large", vec![7; MAX_TASK + 1]).await.unwrap();
    assert_eq!(answer.status, 413, "{}", answer.text());
    server.is_sound().await.unwrap();
}
