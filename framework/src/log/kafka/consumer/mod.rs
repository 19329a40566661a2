//! The reading half on Kafka: one member of the group, one thread, one queue.
//!
//! `run` is the thread's loop; `lanes` are the ways to the partition actors; `starts` finds where partitions begin, on a thread of
//! its own, from what is `committed`; `contact` sees to it that the group hears this member; `tail` watches the topic and its ends, `retention` what may soon be deleted; `held` keeps large records in the buffer they were fetched in, `buffers` are what small ones are copied into.

mod buffers;
mod committed;
mod contact;
mod held;
mod lanes;
mod retention;
mod run;
mod starts;
mod tail;

use super::{
    KafkaLog,
    native::NativeConsumer,
    settings::{Role, client_config},
    watch::Watch,
};
use crate::log::{ConsumerPort, TaskConsumer, Tenure};
use crate::{Error, config::KafkaConfig};
use partita_core::DeliveryLimits;
use std::{sync::Arc, time::Duration};

/// A member of the consumer group that reads the task topic.
pub struct KafkaConsumer {
    config: KafkaConfig,
    limits: DeliveryLimits,
    prefetch_bytes: u64,
    native: Arc<NativeConsumer>,
    watch: Watch,
    tenure: Tenure,
    /// `session.timeout.ms`. `None` where the brokers decide about it: `group.protocol=consumer`.
    session: Option<Duration>,
    max_task: u64,
}

impl KafkaConsumer {
    /// A consumer of the topic that `log` writes to. It joins the group once it is run, and begins with no partition before the
    /// topic's id is known. Needs no broker yet: fails only for a wrong configuration. `prefetch_bytes` is what may be fetched ahead
    /// of the actors.
    pub fn new(
        config: &KafkaConfig,
        log: &KafkaLog,
        limits: DeliveryLimits,
        prefetch_bytes: u64,
        max_task: u64,
    ) -> Result<Self, Error> {
        let settings = client_config(config, Role::Consumer { prefetch_bytes }, max_task)?;
        let native = NativeConsumer::new(&settings, &config.topic)
            .map_err(|error| Error::Log(format!("cannot make a Kafka consumer: {error}")))?;
        let watch = Watch::new(config, max_task, log.identity())?;
        let session = settings.get("session.timeout.ms").and_then(|value| value.trim().parse().ok());
        Ok(Self {
            config: config.clone(),
            limits,
            prefetch_bytes,
            native: Arc::new(native),
            watch,
            tenure: Tenure::limited(),
            session: session.map(Duration::from_millis),
            max_task,
        })
    }
}

impl TaskConsumer for KafkaConsumer {
    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        // Weak: whoever keeps the waker does not keep the client.
        let native = Arc::downgrade(&self.native);
        Arc::new(move || {
            if let Some(native) = native.upgrade() {
                native.wake();
            }
        })
    }

    fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }

    fn run(self: Box<Self>, port: ConsumerPort) {
        run::run(*self, port);
    }
}
