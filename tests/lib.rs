//! What the system tests share: the real binary, a real Kafka, clients, a load, and the ledger that judges every run.

mod support;

pub use support::{
    checkers, checkers_starts, client, clock, connections, disk, history, insistent, journal, kafka, ledger,
    load, metrics, network, observe, pace, payload, ports, preload, process, push, random, receipts,
    scenario, server, size, stall, statuses, wait, ways_in,
};
