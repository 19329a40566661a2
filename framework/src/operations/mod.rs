//! What operators may ask of a running pipeline, wherever they ask: the admin listener, the program itself, a test.

mod parked;
mod rewind;

pub use parked::{ParkedDetail, ParkedSelection, ParkedTask, Redriven};
pub use rewind::{RewindTo, Rewound};

use crate::{
    actor::ParkedTasks,
    log::{ReadError, TaskLog},
    memory::MemoryPool,
    status::PipelineStatus,
};
use partita_core::Partition;
use std::{fmt, sync::Arc};

/// The verbs on the partitions that this process owns.
#[derive(Clone)]
pub struct Operations {
    pub(crate) log: Arc<dyn TaskLog>,
    pub(crate) status: Arc<PipelineStatus>,
    /// What a task that is shown is reserved from.
    pub(crate) memory: MemoryPool,
    pub(crate) max_task: u64,
}

/// Why a verb was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// Another process owns the partition, or none does now.
    #[error("partition {0} is not owned by this process; ask the worker that owns it")]
    NotOwned(u32),
    /// The partition was assigned a moment ago, and its worker does not know yet what is parked.
    #[error("partition {0} has just been assigned and its worker still reads what is parked; ask again")]
    NotReady(u32),
    /// There is no such partition.
    #[error("there is no partition {0}: the log has {1}")]
    NoPartition(u32, u32),
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The partition was taken away before its worker came to it; nothing or some of it may be done.
    #[error("partition {0} was taken away meanwhile; look at what came of it, and ask again")]
    TakenAway(u32),
    /// The log has no such offset.
    #[error("partition {partition} has the offsets {first} to {end}, not {asked}")]
    OutOfRange {
        /// Which partition.
        partition: u32,
        /// Its first offset.
        first: u64,
        /// The offset after its last.
        end: u64,
        /// What was asked for.
        asked: u64,
    },
    /// It is not stored yet; it will be, unless the process ends before.
    #[error("partition {0} begins anew, but that is not committed yet: the log does not answer")]
    NotStored(u32),
}

impl Operations {
    /// The partitions that this process owns, in order.
    pub fn owned_partitions(&self) -> Vec<u32> {
        self.status.partitions().iter().map(|status| status.partition.0).collect()
    }

    fn owned(&self, partition: u32) -> Result<Arc<ParkedTasks>, OperationError> {
        let partitions = self.log.partitions();
        if partition >= partitions {
            return Err(OperationError::NoPartition(partition, partitions));
        }
        self.status.parked(Partition(partition)).ok_or(OperationError::NotOwned(partition))
    }
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}
