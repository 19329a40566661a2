//! Three brokers: one at a time may go, and 768 partitions cost nothing while nothing happens.

use crate::{PARTITIONS, created, judge, look};
use partita_tests::{
    checkers::Bounds,
    kafka::{Fault, Kafka},
    load::Load,
    observe::Observer,
    process,
    random::Random,
    wait,
};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_reordered_when_each_broker_in_turn_is_stopped_or_killed_under_load() {
    let kafka = Kafka::up(3).unwrap();
    let setup = created(&kafka, PARTITIONS).await;
    let server = setup.start().await.unwrap();
    let load = Load { tasks: 100_000, keys: 80, sizes: 1_000..=500_000, ..Load::default() };
    let mut running = load.start(setup.front(), Random::from_env());
    let mut observer = Observer::default();
    let faults = [(1, Fault::Stop), (2, Fault::Kill), (3, Fault::Stop)];
    for (broker, fault) in faults {
        let accepted = running.accepted();
        running.accepted_at_least(accepted + 100).await.unwrap();
        kafka.fault(fault, broker).unwrap();
        let accepted = running.accepted();
        running.accepted_at_least(accepted + 100).await.unwrap();
        look(&mut observer, &kafka, &server).await;
        kafka.fault(Fault::Start, broker).unwrap();
        kafka.ready().unwrap();
    }
    running.stop();
    let ledger = running.finish().await.unwrap();
    // A client has one task in flight, which librdkafka may write twice when it loses that partition's leader, and again when the
    // leader comes back.
    let written_twice = 2 * load.clients * faults.len() as u64;
    judge(observer, &kafka, &server, &ledger, Bounds { written_twice, ..Bounds::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_hundred_and_sixty_eight_idle_partitions_use_under_5_percent_of_a_core() {
    const MANY: u32 = 768;
    const WATCHED: Duration = Duration::from_secs(20);
    let kafka = Kafka::up(3).unwrap();
    let server = created(&kafka, MANY).await.start().await.unwrap();
    wait::until("all partitions are assigned", Duration::from_secs(120), async || {
        let assigned = server.metrics().await?.sum("partita_partition_assigned");
        Ok((assigned == Some(f64::from(MANY))).then_some(()))
    })
    .await
    .unwrap();
    let cpu_of = async |watched: Duration| {
        let before = process::cpu_time(server.pid()).unwrap();
        tokio::time::sleep(watched).await;
        (process::cpu_time(server.pid()).unwrap() - before).as_secs_f64() / watched.as_secs_f64()
    };
    // Settled: what follows an assignment (offsets, first fetches) is over.
    wait::until("it settles", Duration::from_secs(60), async || {
        Ok((cpu_of(Duration::from_secs(3)).await < 0.10).then_some(()))
    })
    .await
    .unwrap();
    let share = cpu_of(WATCHED).await;
    let resident = process::resident(server.pid()).unwrap() >> 20;
    println!("768 partitions, idle: {:.1} % of a core, {resident} MiB resident", share * 100.0);
    assert!(share < 0.05, "{:.1} % of a core", share * 100.0);

    for key in 0..200 {
        server.client().accept(&format!("key-{key}"), "task").await.unwrap();
    }
    crate::committed_is_end(&kafka, MANY).await;
}
