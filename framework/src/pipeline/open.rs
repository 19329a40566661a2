//! Which log the settings name, opened.

use super::Role;
use crate::{
    Config, Error,
    log::{TaskConsumer, TaskLog},
    memory::MemoryBudget,
};
use partita_core::DeliveryLimits;
use std::sync::Arc;

/// Opens the log, and its consumer if the role needs one.
pub(crate) async fn open(
    config: &Config,
    memory: &MemoryBudget,
    _role: Role,
) -> Result<(Arc<dyn TaskLog>, Option<Box<dyn TaskConsumer>>), Error> {
    let _limits = limits(config, memory);
    Err(Error::Log(format!("log.kind = {:?} cannot be opened by this build", config.log.kind)))
}

/// How much of the log may wait in the actors' queues.
pub(crate) fn limits(config: &Config, memory: &MemoryBudget) -> DeliveryLimits {
    DeliveryLimits {
        partition_records: config.worker.queue_tasks,
        partition_bytes: config.worker.queue_bytes.as_u64(),
        total_bytes: memory.fetched,
    }
}
