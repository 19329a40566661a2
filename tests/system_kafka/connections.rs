//! Idle connections and a slow upload cost the others neither time nor memory.

use crate::{PARTITIONS, TOPIC, created_as};
use partita_tests::{
    connections::{BUDGET, a_crowd_costs_the_others_nothing},
    kafka::Kafka,
};

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_idle_connections_and_a_slow_upload_leave_the_others_their_pace() {
    let kafka = Kafka::up(1).unwrap();
    let setup = async |topic: &str| created_as(&kafka, topic, PARTITIONS).await.set("memory.budget", BUDGET);
    let crowded = setup(TOPIC).await.start().await.unwrap();
    let alone = setup("others").await.start().await.unwrap();
    a_crowd_costs_the_others_nothing(&crowded, &alone).await.unwrap();
}
