//! Requests that come again, at two front doors of one topic: each is stored once.

use crate::{PARTITIONS, committed_is_end, created};
use partita_tests::{
    insistent::{self, Insistent},
    kafka::{Fault, Kafka},
    random::Random,
};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn what_insistent_clients_send_is_stored_once_whichever_door_is_killed_and_while_kafka_is_away() {
    let mut random = Random::from_env();
    let kafka = Kafka::up(1).unwrap();
    // An append's fate is known sooner.
    let setup = created(&kafka, PARTITIONS).await.set("log.kafka.append_timeout", "\"2s\"");
    let first = setup.start().await.unwrap();
    let door = setup.beside().role("front-door");
    let mut second = door.start().await.unwrap();
    let doors = [setup.front(), door.front()];
    let insistent = Insistent { tasks: 2400, clients: 12, most: 100_000 };
    let mut running = insistent.start(&doors, Random::new(random.bits()));
    for kill in 1..=3 {
        running.stored_at_least(kill * 300 + random.below(50) as usize).await.unwrap();
        second = second.kill().start().await.unwrap();
    }
    running.stored_at_least(1300).await.unwrap();
    kafka.fault(Fault::Pause, 1).unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    kafka.fault(Fault::Continue, 1).unwrap();
    running.stored_at_least(1700).await.unwrap();
    let first = first.kill().start().await.unwrap();
    let stored = running.finish().await.unwrap();
    committed_is_end(&kafka, PARTITIONS).await;
    insistent::each_was_stored_once(&first.client(), &stored).await.unwrap();
    insistent::all_are_known(&doors, &stored).await.unwrap();
    insistent::each_was_stored_once(&first.client(), &stored).await.unwrap();
    for server in [&first, &second] {
        server.is_sound().await.unwrap();
    }
}

/// While two of three brokers stand still, what the third has taken is shown to no reader, and whether it is there cannot be known.
#[tokio::test(flavor = "multi_thread")]
async fn what_too_few_brokers_had_for_long_is_stored_once_when_they_come_back() {
    let mut random = Random::from_env();
    let kafka = Kafka::up(3).unwrap();
    let setup = created(&kafka, PARTITIONS).await.set("log.kafka.append_timeout", "\"2s\"");
    let server = setup.start().await.unwrap();
    let insistent = Insistent { tasks: 1200, clients: 16, most: 20_000 };
    let mut running = insistent.start(&[setup.front()], Random::new(random.bits()));
    running.stored_at_least(400).await.unwrap();
    for broker in [2, 3] {
        kafka.fault(Fault::Pause, broker).unwrap();
    }
    // Longer than a claim is waited for.
    tokio::time::sleep(Duration::from_secs(85)).await;
    for broker in [2, 3] {
        kafka.fault(Fault::Continue, broker).unwrap();
    }
    let stored = running.finish().await.unwrap();
    committed_is_end(&kafka, PARTITIONS).await;
    insistent::each_was_stored_once(&server.client(), &stored).await.unwrap();
    insistent::all_are_known(&[setup.front()], &stored).await.unwrap();
    server.is_sound().await.unwrap();
}
