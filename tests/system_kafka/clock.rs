//! The time of day steps back by hours: nothing waits for it to come again.

use crate::{PARTITIONS, created};
use partita_tests::{kafka::Kafka, wait};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_whose_clock_steps_back_goes_on_in_its_group() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    let session = "log.kafka.properties.\"session.timeout.ms\"";
    let server = setup.set(session, "\"6000\"").clocked().unwrap().start().await.unwrap();
    server.client().accept("key", "before").await.unwrap();
    wait::until("all partitions are assigned", Duration::from_secs(30), async || {
        Ok((server.partitions().await?.len() == PARTITIONS as usize).then_some(()))
    })
    .await
    .unwrap();
    let rebalances = async || server.metrics().await.unwrap().sum("partita_rebalances_total");
    let before = rebalances().await;
    for off in [-3600, -7200] {
        server.setup().clock().jump_to(off).unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(rebalances().await, before, "it was away for a session");
    let receipt = server.client().accept("key", "after").await.unwrap();
    wait::until("it is recorded", Duration::from_secs(2), async || {
        let recording = server.client().recording("key").await?;
        let last = recording.and_then(|recording| recording.chunks.last().map(|chunk| chunk.position()));
        Ok((last == Some(receipt.position())).then_some(()))
    })
    .await
    .unwrap();
    server.is_sound().await.unwrap();
    assert_eq!(server.stop(Duration::from_secs(15)).await.unwrap().code(), Some(0));
}
