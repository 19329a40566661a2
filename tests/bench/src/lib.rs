//! What Partita is measured against, and how.
//!
//! Each `bare-*` program does one thing that Partita does, with the same client library and no framework: what it costs
//! is what the work itself costs. `partita-worker` and `partita-door` are Partita's own halves, set up the same way.
//! `bench-compare` runs the two sides by turns on the same records and prints ratios, which mean something on a shared
//! machine where rates do not.
//!
//! No module here names an allocator: a program that wants jemalloc says so in its own file, so that the bare ones keep
//! the system's.

pub mod bare_worker;
pub mod compare;
pub mod door;
pub mod fill;
pub mod topic;
pub mod usage;
pub mod worker;
