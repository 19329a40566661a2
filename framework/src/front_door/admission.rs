//! What the rest of the process lets the front door take.

use super::problem::{Problem, ProblemCode};
use crate::log::{LogHealth, TaskLog};
use partita_core::Partition;
use std::sync::Arc;

/// Asked before each task is received.
pub trait Admission: Send + Sync + 'static {
    /// May a task for this partition come in? Called often, from any thread: it must not wait.
    fn admit(&self, partition: Partition) -> Result<(), Refusal>;
}

/// Why a task may not come in now. It has not been written, and a later attempt may succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The process is stopping.
    Draining,
    /// The log does not take appends.
    Log(LogHealth),
    /// The partition makes no progress, for this reason.
    PartitionStuck(String),
}

/// Admits while the log is healthy: enough where no workers run in the process.
pub struct LogAdmission(pub Arc<dyn TaskLog>);

impl Admission for LogAdmission {
    fn admit(&self, _partition: Partition) -> Result<(), Refusal> {
        match self.0.health() {
            LogHealth::Ready => Ok(()),
            health => Err(Refusal::Log(health)),
        }
    }
}

impl<F> Admission for F
where
    F: Fn(Partition) -> Result<(), Refusal> + Send + Sync + 'static,
{
    fn admit(&self, partition: Partition) -> Result<(), Refusal> {
        self(partition)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Draining => draining(),
            Refusal::Log(LogHealth::Ready) => Problem::new(ProblemCode::LogBusy, "try again"),
            Refusal::Log(LogHealth::Away(reason)) => Problem::new(ProblemCode::LogAway, reason),
            Refusal::Log(LogHealth::Full(reason)) => Problem::new(ProblemCode::LogFull, reason),
            Refusal::Log(LogHealth::Mismatch(reason)) => Problem::new(ProblemCode::LogMismatch, reason),
            Refusal::PartitionStuck(reason) => Problem::new(ProblemCode::PartitionStuck, reason),
        }
    }
}

/// The refusal of a process that is stopping.
pub(super) fn draining() -> Problem {
    Problem::new(
        ProblemCode::Draining,
        "this process is stopping; send the task again, to another one if there is",
    )
}
