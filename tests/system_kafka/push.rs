//! `handler.kind = "http"`: tasks are delivered to a service, over Kafka.

use crate::{PARTITIONS, created_as};
use partita_tests::{kafka::Kafka, push};

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_are_in_order_and_come_again_where_they_were_not_answered_or_the_process_was_killed() {
    let kafka = Kafka::up(1).unwrap();
    let setup = created_as(&kafka, "in-order", PARTITIONS).await;
    push::keys_are_in_order_and_partitions_side_by_side(&setup).await.unwrap();
    let setup = created_as(&kafka, "unanswered", 1).await;
    push::what_is_not_answered_is_parked_and_holds_up_its_key_alone(&setup).await.unwrap();
    let setup = created_as(&kafka, "killed", PARTITIONS).await;
    // The dead worker's partitions are its own for as long.
    let setup = setup.set("log.kafka.properties.\"session.timeout.ms\"", "\"6000\"");
    push::what_is_under_way_at_a_kill_is_delivered_again(&setup).await.unwrap();
}
