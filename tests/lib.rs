//! What the system tests share: the real binary, a real Kafka, clients, a load, and the ledger that judges every run.

mod support;

pub use support::{
    checkers, client, history, kafka, ledger, load, metrics, observe, payload, ports, process, random,
    scenario, server, wait,
};
