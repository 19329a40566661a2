//! Partita: ordered, durable task processing over an embedded log or Apache Kafka.
//!
//! An acknowledged task is never lost, never out of order, and memory stays within one number.

mod actor;
pub mod admin;
pub mod config;
pub mod envelope;
mod error;
pub mod front_door;
mod handler;
pub mod log;
pub mod memory;
pub mod metrics;
mod operations;
mod pipeline;
#[cfg(feature = "prometheus")]
pub mod prometheus;
pub mod status;
pub mod task_state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use actor::Routes;
pub use config::Config;
pub use error::Error;
pub use handler::{Assignment, Fence, Task, TaskContext, TaskError, TaskHandler};
pub use operations::{
    OperationError, Operations, ParkedDetail, ParkedSelection, ParkedTask, Redriven, RewindTo, Rewound,
};
pub use partita_core as core;
pub use partita_proto as proto;
pub use pipeline::{NewTask, Pipeline, PipelineBuilder, Role, Running};
