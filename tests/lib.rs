//! What the system tests share: the real binary, a real Kafka, clients, a load, and the ledger that judges every run.

mod support;

pub use support::{
    checkers, checkers_starts, client, disk, history, journal, kafka, ledger, load, metrics, observe,
    payload, ports, process, random, scenario, server, size, stall, wait,
};
