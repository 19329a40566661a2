//! Partita: actor-based stream processing over Kafka or an embedded log.
//!
//! An acknowledged task is never lost, never out of order, and memory stays within one number.

pub mod admin;
mod actor;
pub mod config;
pub mod envelope;
mod error;
mod handler;
pub mod log;
pub mod memory;
pub mod metrics;
mod pipeline;
pub mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use actor::Routes;
pub use config::Config;
pub use error::Error;
pub use handler::{Assignment, Fence, Task, TaskContext, TaskError, TaskHandler};
pub use partita_core as core;
pub use pipeline::{Pipeline, PipelineBuilder, Role, Running};
pub use partita_proto as proto;
