//! Which log the settings name, opened.

use super::Role;
use crate::{
    Config, Error,
    config::LogKind,
    log::{
        TaskConsumer, TaskLog,
        embedded::EmbeddedLog,
        kafka::{self, KafkaConsumer, KafkaLog},
    },
    memory::MemoryBudget,
};
use partita_core::DeliveryLimits;
use std::sync::Arc;

/// A log's writing half, and its reading half where there are workers.
pub(crate) type Halves = (Arc<dyn TaskLog>, Option<Box<dyn TaskConsumer>>);

/// Opens the log, and its consumer if the role needs one. Opening reads and syncs files: it happens aside.
pub(crate) async fn open(config: &Config, memory: &MemoryBudget, role: Role) -> Result<Halves, Error> {
    let (config, limits) = (config.clone(), limits(config, memory));
    let (queue_bytes, prefetch) = (memory.intake.capacity(), memory.prefetch);
    let max_task = config.limits.max_task.as_u64();
    let opened = tokio::task::spawn_blocking(move || -> Result<Halves, Error> {
        match config.log.kind {
            LogKind::Embedded => {
                let opened = EmbeddedLog::open(&config.log.embedded, limits)?;
                let consumer = role.works().then(|| Box::new(opened.consumer) as Box<dyn TaskConsumer>);
                Ok((opened.log, consumer))
            }
            LogKind::Kafka => {
                kafka::admin::refuse_unfit(&config.log.kafka, max_task)?;
                let log = KafkaLog::connect(&config.log.kafka, max_task, queue_bytes)?;
                if role.accepts() {
                    log.read_requests();
                }
                let consumer = match role.works() {
                    true => Some(KafkaConsumer::new(&config.log.kafka, &log, limits, prefetch, max_task)?),
                    false => None,
                };
                Ok((log, consumer.map(|consumer| Box::new(consumer) as Box<dyn TaskConsumer>)))
            }
        }
    });
    opened.await.map_err(|error| Error::Log(format!("the log was not opened: {error}")))?
}

/// How much of the log may wait in the actors' queues.
pub(crate) fn limits(config: &Config, memory: &MemoryBudget) -> DeliveryLimits {
    DeliveryLimits {
        partition_records: config.worker.queue_tasks,
        partition_bytes: config.worker.queue_bytes.as_u64(),
        total_bytes: memory.fetched,
    }
}
