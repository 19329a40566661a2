//! The system tests that need nothing but cargo: the real binary over its embedded log, over real HTTP, with real faults.

#![allow(clippy::unwrap_used)]

mod config;
mod connections;
mod crash;
mod dashboard;
mod disk;
mod idempotency;
mod memory;
mod parking;
mod power_loss;
mod push;
mod readme;
mod receipts;
mod retention;
mod secrets;
mod send;
mod session;
mod shutdown;
mod sizes;
mod statuses;
mod ways_in;

/// Of the embedded log, as it is configured by default.
const PARTITIONS: usize = 16;
