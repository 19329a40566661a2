//! The system tests over a real Apache Kafka. Each starts a cluster of its own: run them with `--test-threads=1`, for some are held to times.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod backlog;
mod clock;
mod connections;
mod discontinuity;
mod fatal;
mod faults;
mod handover;
mod idempotency;
mod ledger;
mod memory;
mod outage;
mod polling;
mod push;
mod receipts;
mod roles;
mod sizes;
mod statuses;
mod three_brokers;
mod topics;
mod ways_in;

use partita_tests::{
    checkers::{self, Bounds},
    kafka::Kafka,
    ledger::Ledger,
    observe::{self, Observer},
    server::{Server, Setup},
    wait,
};
use std::time::Duration;

const TOPIC: &str = "tasks";
const PARTITIONS: u32 = 16;

/// A server's setup on a topic that `topics create` made.
async fn created(kafka: &Kafka, partitions: u32) -> Setup {
    created_as(kafka, TOPIC, partitions).await
}

/// On a topic of this name.
async fn created_as(kafka: &Kafka, topic: &str, partitions: u32) -> Setup {
    let setup = kafka.setup(topic, partitions);
    let finished = setup.command(&["topics", "create"]).await.unwrap();
    assert_eq!(finished.code, Some(0), "{}", finished.said());
    setup
}

/// Waits until the group has committed the end of every partition.
async fn committed_is_end(kafka: &Kafka, partitions: u32) {
    wait::until("committed = end on every partition", Duration::from_secs(120), async || {
        kafka.committed_is_end(TOPIC, partitions).map(Some)
    })
    .await
    .unwrap();
}

/// Looks at what is committed and then at what is handled.
async fn look(observer: &mut Observer, kafka: &Kafka, server: &Server) {
    let committed = kafka.committed(TOPIC, PARTITIONS).unwrap();
    observer.look(&server.client(), &committed).await.unwrap();
}

/// The verdict on a run that has ended: everything is committed, and no judge has anything to say. `bounds` is what the faults
/// of the run allow.
async fn judge(mut observer: Observer, kafka: &Kafka, server: &Server, ledger: &Ledger, bounds: Bounds) {
    committed_is_end(kafka, PARTITIONS).await;
    look(&mut observer, kafka, server).await;
    let history = observer.history(ledger);
    eprintln!("{:?}, {} ends", ledger.counts(), history.ends.len());
    assert_eq!(checkers::violations(&history, bounds), Vec::<String>::new());
    observe::spot_check(&server.client(), &history.ends, 25).await.unwrap();
    server.is_sound().await.unwrap();
}
