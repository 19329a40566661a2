//! The writing half on Kafka: an idempotent producer, `acks=all`, one append one record.
//!
//! An append is handed to librdkafka within the call, so that the order of the calls is the order in the partition. A thread watches
//! the topic and says whether appends may be expected to succeed: while they may not, they are refused at once instead of waiting for
//! their timeout. The parking topic has a producer of its own, made when the first task is parked.

use super::{
    client::OnError,
    delivery::{Delivery, Meters, Pending, TARGETS, Target, kind},
    lookup::Lookup,
    requests::{Append, Requests, release},
    settings::{Role, client_config},
    spawn,
    watch::{Identity, Replicas, Standing, Trouble, Watch},
    writers::Writers,
};
use crate::log::{
    AppendError, AppendFuture, BacklogFuture, CommittedFuture, ExtentFuture, JournalFuture, JournalRead,
    LogHealth, NewRecord, NotWritten, ParkedRecord, Reply, TaskLog,
};
use crate::memory::Reservation;
use crate::metrics::{PRODUCER_QUEUE_BYTES, PRODUCER_QUEUE_MESSAGES};
use crate::{Error, config::KafkaConfig};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use futures_util::future::BoxFuture;
use partita_core::{Partition, Position};
use rdkafka::error::RDKafkaErrorCode;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::runtime::Handle;

/// The record header that says what a record of the parking topic says.
pub(super) const PARKED_HEADER: &str = "partita-parked";

/// A task topic and its parking topic, to write to.
pub struct KafkaLog {
    shared: Arc<Shared>,
    lookup: Lookup,
    /// On a thread of its own: a search may go through much.
    searches: Arc<Lookup>,
    /// On another: what is searched once more is short, and waits for nobody.
    searches_again: Arc<Lookup>,
    max_task: u64,
    /// Where an append that has to be negotiated goes on if its caller is in no runtime.
    runtime: Option<Handle>,
}

/// A record on its way to a topic.
pub(super) struct Record<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Bytes,
    pub(super) reservation: Option<Reservation>,
    pub(super) header: Option<(&'static str, Bytes)>,
}

/// What the log's threads and calls share.
pub(super) struct Shared {
    pub(super) requests: Arc<Requests>,
    config: KafkaConfig,
    writers: Writers,
    pending: Arc<Pending>,
    meters: Arc<[Meters; TARGETS]>,
    delivered: Arc<AtomicU64>,
    health: Mutex<LogHealth>,
    ready: AtomicBool,
    /// The topic has more partitions than this process knows of.
    grown: AtomicBool,
    alarmed: Arc<AtomicBool>,
    alarm: Sender<()>,
    identity: Identity,
    pub(super) replicas: Replicas,
    closing: AtomicBool,
    stop: AtomicBool,
}

impl KafkaLog {
    /// A log that is away until the brokers were reached and the topic was found to be as it must be. Fails only for a wrong
    /// configuration. `queue_bytes` is what may wait to be written.
    pub fn connect(config: &KafkaConfig, max_task: u64, queue_bytes: u64) -> Result<Arc<Self>, Error> {
        // A parked record needs room for its reason.
        let client_config =
            client_config(config, Role::Producer { queue_bytes }, max_task + super::settings::RECORD_ROOM)?;
        let identity = Identity::default();
        let watch = Watch::new(config, max_task, identity.clone())?;
        let (alarm, alarms) = bounded(1);
        let alarmed = Arc::new(AtomicBool::new(false));
        let meters = Arc::new(Target::ALL.map(|target| Meters::new(&target.topic(&config.topic))));
        let delivered = Arc::new(AtomicU64::new(0));
        let writers = Writers::new(
            config.producers,
            &config.topic,
            client_config,
            wake_watch(&alarmed, &alarm),
            meters.clone(),
            delivered.clone(),
        )?;
        let waiting = format!("waiting for the Kafka brokers at {}", config.bootstrap_servers);
        let shared = Arc::new(Shared {
            requests: Arc::new(Requests::new(config)),
            config: config.clone(),
            writers,
            pending: Arc::default(),
            meters,
            delivered,
            health: Mutex::new(LogHealth::Away(waiting)),
            ready: AtomicBool::new(false),
            grown: AtomicBool::new(false),
            alarmed,
            alarm,
            identity,
            replicas: watch.replicas(),
            closing: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        spawn("partita-kafka-watch", {
            let shared = shared.clone();
            move || shared.keep_watch(watch, &alarms)
        })?;
        let lookup = || Lookup::new(config, max_task);
        let (searches, searches_again) = (Arc::new(lookup()), Arc::new(lookup()));
        let runtime = Handle::try_current().ok();
        Ok(Arc::new(Self { shared, lookup: lookup(), searches, searches_again, max_task, runtime }))
    }

    /// Reads the journal of requests from now on, if there is one: not only from the first idempotent append on.
    pub fn read_requests(&self) {
        let shared = Arc::downgrade(&self.shared);
        self.shared.requests.start_once(self.max_task, move |key, claim| {
            if let Some(shared) = shared.upgrade() {
                release(&shared, key, claim);
            }
        });
    }

    pub(super) fn identity(&self) -> Identity {
        self.shared.identity.clone()
    }
}

impl TaskLog for KafkaLog {
    fn topic(&self) -> &str {
        &self.shared.config.topic
    }

    fn topic_id(&self) -> &str {
        self.shared.identity.get().map_or("", String::as_str)
    }

    fn partitions(&self) -> u32 {
        self.shared.config.partitions
    }

    /// With an idempotency key: where there is a Tokio runtime, or was one when the log was made.
    fn submit(&self, partition: Partition, record: NewRecord, reply: Reply) {
        let Some(idempotency) = record.idempotency else {
            let NewRecord { key, value, reservation, .. } = record;
            let record = Record { key: &key, value, reservation, header: None };
            return self.shared.submit(Target::Tasks, partition, record, reply);
        };
        if let Err(error) = self.shared.admit(Target::Tasks, partition) {
            return reply.send(Err(error));
        }
        self.read_requests();
        let (shared, lookup, again) =
            (self.shared.clone(), self.searches.clone(), self.searches_again.clone());
        let append = Append { shared, lookup, again, partition, idempotency }.run(record);
        match Handle::try_current().ok().as_ref().or(self.runtime.as_ref()) {
            // It goes on where its caller is gone.
            Some(runtime) => drop(runtime.spawn(async move { reply.send(append.await) })),
            None => {
                let reason = "an append with an idempotency key is made within a Tokio runtime".into();
                reply.send(Err(AppendError::NotWritten { code: NotWritten::Away, reason }));
            }
        }
    }

    fn park(&self, partition: Partition, record: ParkedRecord) -> AppendFuture {
        let ParkedRecord { key, value, parked } = record;
        let header = Some((PARKED_HEADER, parked));
        self.shared.write(Target::Parking, partition, Record { key: &key, value, reservation: None, header })
    }

    fn journal(&self, partition: Partition, from: Position, read: JournalRead) -> JournalFuture {
        self.lookup.journal(partition, from, read)
    }

    fn extent(&self, partition: Partition, time_ms: Option<i64>) -> ExtentFuture {
        self.lookup.extent(partition, time_ms)
    }

    fn committed(&self, partition: Partition) -> CommittedFuture {
        self.lookup.committed(partition)
    }

    fn backlog(&self) -> BacklogFuture {
        self.lookup.backlog()
    }

    fn group(&self) -> &str {
        &self.shared.config.group
    }

    fn health(&self) -> LogHealth {
        self.shared.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        let shared = self.shared.clone();
        shared.closing.store(true, Ordering::SeqCst);
        // Every record is answered within its timeout, so this ends.
        Box::pin(async move { shared.pending.none().await })
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.requests.stop();
        let _ = self.shared.alarm.try_send(());
    }
}

impl Shared {
    /// The task topic's id, once it is known.
    pub(super) fn topic_id(&self) -> Option<&str> {
        self.identity.get().map(String::as_str)
    }

    fn submit(&self, target: Target, partition: Partition, record: Record<'_>, reply: Reply) {
        let writer = match self.admit(target, partition).and_then(|()| self.writers.get(target, partition)) {
            Ok(writer) => writer,
            Err(error) => return reply.send(Err(error)),
        };
        let Record { key, value, reservation, header } = record;
        let delivery = Box::new(Delivery::new(target, partition, value, reservation, &self.pending, reply));
        let taken = match &header {
            None => writer.produce(key, delivery),
            Some((name, header)) => writer.produce_with_header(key, delivery, name, header),
        };
        if let Err((code, delivery)) = taken {
            if code == RDKafkaErrorCode::Fatal {
                let _ = self.alarm.try_send(());
            }
            delivery.end(Err(not_written(code)), &self.meters);
        }
    }

    /// The same, for one who waits for this record alone.
    pub(super) fn write(&self, target: Target, partition: Partition, record: Record<'_>) -> AppendFuture {
        let (reply, outcome) = Reply::one();
        self.submit(target, partition, record, reply);
        Box::pin(outcome)
    }

    /// Refuses what could only wait for its timeout.
    fn admit(&self, target: Target, partition: Partition) -> Result<(), AppendError> {
        let refuse = |code, reason: String| Err(AppendError::NotWritten { code, reason });
        // What becomes of a request that is under way is still noted.
        if self.closing.load(Ordering::SeqCst) && target != Target::Requests {
            return refuse(NotWritten::Closing, "this process is shutting down".into());
        }
        if partition.0 >= self.config.partitions && target != Target::Requests {
            return refuse(NotWritten::Away, format!("there is no partition {partition}"));
        }
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.health.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            LogHealth::Ready => Ok(()),
            // What is left is worked off, and some of it may have to be parked.
            LogHealth::Mismatch(_) if target == Target::Parking && self.grown.load(Ordering::Relaxed) => {
                Ok(())
            }
            LogHealth::Away(reason) | LogHealth::Mismatch(reason) => refuse(NotWritten::Away, reason),
            LogHealth::Full(reason) => refuse(NotWritten::Full, reason),
        }
    }

    fn set_health(&self, health: LogHealth) {
        let mut present = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if *present == health {
            return;
        }
        match &health {
            LogHealth::Ready => tracing::info!(topic = self.config.topic, "the Kafka log is ready"),
            other => {
                tracing::warn!(topic = self.config.topic, health = ?other, "the Kafka log takes no tasks")
            }
        }
        self.ready.store(health == LogHealth::Ready, Ordering::Release);
        *present = health;
    }

    fn keep_watch(&self, mut watch: Watch, alarms: &Receiver<()>) {
        let mut standing = Standing::default();
        let mut delivered = 0;
        let messages = metrics::gauge!(PRODUCER_QUEUE_MESSAGES);
        let bytes = metrics::gauge!(PRODUCER_QUEUE_BYTES);
        while !self.stop.load(Ordering::SeqCst) {
            let asked = Instant::now();
            let answer = watch.probe();
            let alarmed = self.alarmed.swap(false, Ordering::SeqCst);
            let delivering = std::mem::replace(&mut delivered, self.delivered.load(Ordering::Relaxed))
                != self.delivered.load(Ordering::Relaxed);
            if let Some(news) = standing.judge(answer, alarmed, delivering, asked, Instant::now()) {
                self.grown.store(matches!(news, Err(Trouble::Grown(_))), Ordering::Relaxed);
                self.set_health(match news {
                    Ok(()) => LogHealth::Ready,
                    Err(Trouble::Away(reason)) => LogHealth::Away(reason),
                    Err(Trouble::Mismatch(reason) | Trouble::Grown(reason)) => LogHealth::Mismatch(reason),
                });
            }
            messages.set(self.pending.count() as f64);
            bytes.set(self.pending.bytes() as f64);
            self.replace_broken_writers();
            let _ = alarms.recv_timeout(standing.ask_after());
        }
    }

    /// Makes producers anew after a fatal error.
    fn replace_broken_writers(&self) {
        self.writers.replace_broken(&self.stop, |reason| {
            self.set_health(LogHealth::Away(format!("the Kafka producer broke and is made anew: {reason}")));
        });
    }
}

/// Wakes the watch when a producer loses its brokers or breaks.
fn wake_watch(alarmed: &Arc<AtomicBool>, alarm: &Sender<()>) -> OnError {
    let (alarmed, alarm) = (alarmed.clone(), alarm.clone());
    Arc::new(move |code, _| {
        if matches!(code, RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Fatal) {
            alarmed.store(true, Ordering::SeqCst);
            let _ = alarm.try_send(());
        }
    })
}

pub(super) fn not_written(code: RDKafkaErrorCode) -> AppendError {
    let reason = match code {
        RDKafkaErrorCode::QueueFull => "too many bytes wait to be written to Kafka already".into(),
        code => code.to_string(),
    };
    AppendError::NotWritten { code: kind(code), reason }
}
