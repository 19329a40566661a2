//! The system tests that need nothing but cargo: the real binary over its embedded log, over real HTTP, with real faults.

#![allow(clippy::unwrap_used)]

mod config;
mod crash;
mod dashboard;
mod memory;
mod readme;
mod session;
mod shutdown;
mod sizes;
