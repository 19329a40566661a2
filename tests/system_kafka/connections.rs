//! Idle connections and a slow upload cost the others neither time nor memory.

use crate::{PARTITIONS, TOPIC, created};
use partita_tests::{connections, kafka::Kafka};

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_idle_connections_and_a_slow_upload_leave_the_others_their_pace() {
    let kafka = Kafka::up(1).unwrap();
    let crowded = created(&kafka, PARTITIONS).await.set("memory.budget", "\"256MiB\"").start().await.unwrap();
    let other = kafka.setup("others", PARTITIONS);
    let finished = other.command(&["topics", "create"]).await.unwrap();
    assert_eq!(finished.code, Some(0), "{}", finished.said());
    let alone = other.set("memory.budget", "\"256MiB\"").start().await.unwrap();
    let seen = connections::crowded_and_not(&crowded, &alone).await.unwrap();
    eprintln!("{TOPIC}: {seen:?}");
    assert!(seen.p99_beside <= 2 * seen.p99_without, "{seen:?}");
    assert!(seen.peak_resident <= (256 + 64) << 20, "{} MiB became resident", seen.peak_resident >> 20);
    crowded.is_sound().await.unwrap();
    alone.is_sound().await.unwrap();
}
