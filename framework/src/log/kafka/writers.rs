//! The producers of a log, each made at its first use, and anew after a fatal error.

use super::{
    client::{Context, OnError},
    delivery::{Meters, TARGETS, Target},
    lend::Lender,
    reports::Deliveries,
};
use crate::Error;
use crate::log::{AppendError, NotWritten};
use bytes::Bytes;
use crossbeam_channel::{Sender, unbounded};
use partita_core::Partition;
use rdkafka::{ClientConfig, error::KafkaResult};
use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

pub(super) struct Writers {
    /// A partition always has the same one, which keeps its order.
    tasks: Box<[Slot]>,
    parking: Slot,
    requests: Slot,
    topic: String,
    client_config: ClientConfig,
    on_error: OnError,
    meters: Arc<[Meters; TARGETS]>,
    delivered: Arc<AtomicU64>,
    /// What has been parked goes here, to be dropped by a thread that nothing waits for.
    spent: Sender<Bytes>,
}

type Slot = RwLock<Option<Arc<Lender>>>;

impl Writers {
    /// `producers` share the partitions of the task topic, whose name is `topic`. `delivered` counts the records that were written.
    pub(super) fn new(
        producers: u32,
        topic: &str,
        client_config: ClientConfig,
        on_error: OnError,
        meters: Arc<[Meters; TARGETS]>,
        delivered: Arc<AtomicU64>,
    ) -> Result<Self, Error> {
        let (spent, dropped) = unbounded();
        super::spawn("partita-kafka-spent", move || dropped.into_iter().for_each(drop::<Bytes>))?;
        let writers = Self {
            tasks: (0..producers.max(1)).map(|_| Slot::default()).collect(),
            parking: Slot::default(),
            requests: Slot::default(),
            topic: topic.into(),
            client_config,
            on_error,
            meters,
            delivered,
            spent,
        };
        // The first at once: it shows what librdkafka makes of the settings. One that is not used costs, with many partitions.
        writers.get(Target::Tasks, Partition(0)).map_err(|error| Error::Log(error.to_string()))?;
        Ok(writers)
    }

    /// The producer for this partition of a topic.
    pub(super) fn get(&self, target: Target, partition: Partition) -> Result<Arc<Lender>, AppendError> {
        let slot = self.slot(target, partition);
        if let Some(writer) = slot.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            return Ok(writer.clone());
        }
        let mut slot = slot.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = slot.as_ref() {
            return Ok(writer.clone());
        }
        let refused = |error| AppendError::NotWritten {
            code: NotWritten::Away,
            reason: format!("cannot make a Kafka producer: {error}"),
        };
        Ok(slot.insert(self.make(target).map_err(refused)?).clone())
    }

    /// Makes the producers anew that a fatal error ended, after `broken` was told why. The old one's records are all answered first, so
    /// that none of its can follow one of the new one's.
    pub(super) fn replace_broken(&self, stop: &AtomicBool, broken: impl Fn(String)) {
        for (slot, target) in self.all() {
            let Some(old) = slot.read().unwrap_or_else(PoisonError::into_inner).clone() else { continue };
            let Some(reason) = old.fatal() else { continue };
            broken(reason);
            while old.held() > 0 && !stop.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(10));
            }
            match self.make(target) {
                Ok(new) => *slot.write().unwrap_or_else(PoisonError::into_inner) = Some(new),
                Err(error) => tracing::error!(%error, "the Kafka producer could not be made anew"),
            }
        }
    }

    fn make(&self, target: Target) -> KafkaResult<Arc<Lender>> {
        let deliveries = Deliveries::new(self.meters.clone(), self.delivered.clone(), self.spent.clone());
        let context = Context::new(self.on_error.clone());
        Lender::new(&self.client_config, &target.topic(&self.topic), context, deliveries).map(Arc::new)
    }

    fn slot(&self, target: Target, partition: Partition) -> &Slot {
        match target {
            Target::Tasks => &self.tasks[partition.0 as usize % self.tasks.len()],
            Target::Parking => &self.parking,
            Target::Requests => &self.requests,
        }
    }

    fn all(&self) -> impl Iterator<Item = (&Slot, Target)> {
        let tasks = self.tasks.iter().map(|slot| (slot, Target::Tasks));
        tasks.chain([(&self.parking, Target::Parking), (&self.requests, Target::Requests)])
    }
}
