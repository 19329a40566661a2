//! Each row of the table of statuses, and no other, over real HTTP.

use crate::{PARTITIONS, created, created_as};
use partita_tests::{
    kafka::{Fault, Kafka},
    statuses::{self, Statuses},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_table_is_reached_and_nothing_outside_it_is_answered() {
    let kafka = Kafka::up(1).unwrap();
    let mut seen = Statuses::default();
    let setup = created_as(&kafka, "behind", PARTITIONS).await;
    let (setup, partition) = statuses::of_a_partition_behind(&setup, &mut seen).await.unwrap();
    kafka.delete_before("behind", partition, 2).unwrap();
    statuses::of_a_stuck_partition(&setup, &mut seen).await.unwrap();
    let setup = statuses::guarded(created(&kafka, PARTITIONS).await).unwrap();
    let server = setup.start().await.unwrap();
    statuses::of_clients(&server, &mut seen).await.unwrap();
    server.is_sound().await.unwrap();
    statuses::of_a_stop(server, &mut seen).await.unwrap();
    let server = setup.start().await.unwrap();
    // A producer that was never connected has written nothing, for certain.
    statuses::accepts(&server, &mut seen).await.unwrap();
    kafka.fault(Fault::Pause, 1).unwrap();
    // What is under way when the broker falls silent may have been written; then it is known to be away.
    statuses::refused_with(&server, &mut seen, "unknown_outcome").await.unwrap();
    statuses::refused_with(&server, &mut seen, "log_away").await.unwrap();
    kafka.fault(Fault::Continue, 1).unwrap();
    seen.are_complete(&[]).unwrap();
}
