//! The writing half on Kafka: an idempotent producer, `acks=all`, one append one record.
//!
//! An append is handed to librdkafka within the call, so that the order of the calls is the order in the partition. One thread
//! serves the delivery reports, another watches the topic and says whether appends may be expected to succeed: while they may not,
//! they are refused at once instead of waiting for their timeout.

use super::{
    admin::parking_topic,
    client::{Context, OnError},
    delivery::{Delivery, Meters, Pending, Target, kind},
    lend::{Deliveries, Lender},
    settings::{Role, client_config},
    watch::{Standing, Trouble, Watch},
};
use crate::log::{AppendError, AppendFuture, LogHealth, NewRecord, NotWritten, ParkedRecord, TaskLog};
use crate::memory::Reservation;
use crate::metrics::{PRODUCER_QUEUE_BYTES, PRODUCER_QUEUE_MESSAGES};
use crate::{Error, config::KafkaConfig};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use futures_util::future::{BoxFuture, ready};
use partita_core::Partition;
use rdkafka::{ClientConfig, error::RDKafkaErrorCode};
use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// The record header that says why a task was parked.
const PARKED_HEADER: &str = "partita-parked";
/// How long the reports' thread serves before it looks around.
const REPORT_ROUND: Duration = Duration::from_millis(100);

/// A task topic and its parking topic, to write to.
pub struct KafkaLog {
    shared: Arc<Shared>,
    reports: Option<JoinHandle<()>>,
}

struct Shared {
    config: KafkaConfig,
    client_config: ClientConfig,
    writer: RwLock<Arc<Lender>>,
    pending: Arc<Pending>,
    meters: Arc<[Meters; 2]>,
    delivered: Arc<AtomicU64>,
    health: Mutex<LogHealth>,
    ready: AtomicBool,
    alarmed: Arc<AtomicBool>,
    alarm: Sender<()>,
    identity: OnceLock<String>,
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
        let watch = Watch::new(config, max_task)?;
        let (alarm, alarms) = bounded(1);
        let alarmed = Arc::new(AtomicBool::new(false));
        let meters = Arc::new([Meters::new(&config.topic), Meters::new(&parking_topic(&config.topic))]);
        let delivered = Arc::new(AtomicU64::new(0));
        let writer = writer(config, &client_config, context(&alarmed, &alarm), &meters, &delivered)?;
        let waiting = format!("waiting for the Kafka brokers at {}", config.bootstrap_servers);
        let shared = Arc::new(Shared {
            config: config.clone(),
            client_config,
            writer: RwLock::new(Arc::new(writer)),
            pending: Arc::default(),
            meters,
            delivered,
            health: Mutex::new(LogHealth::Away(waiting)),
            ready: AtomicBool::new(false),
            alarmed,
            alarm,
            identity: OnceLock::new(),
            closing: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let reports = spawn("partita-kafka-reports", {
            let shared = shared.clone();
            move || shared.serve_reports()
        })?;
        spawn("partita-kafka-watch", {
            let shared = shared.clone();
            move || shared.keep_watch(watch, &alarms)
        })?;
        Ok(Arc::new(Self { shared, reports: Some(reports) }))
    }
}

impl TaskLog for KafkaLog {
    fn topic(&self) -> &str {
        &self.shared.config.topic
    }

    /// Empty until the brokers were reached.
    fn topic_id(&self) -> &str {
        self.shared.identity.get().map_or("", String::as_str)
    }

    fn partitions(&self) -> u32 {
        self.shared.config.partitions
    }

    fn append(&self, partition: Partition, record: NewRecord) -> AppendFuture {
        let NewRecord { key, value, reservation } = record;
        self.shared.write(partition, &key, value, reservation, None)
    }

    fn park(&self, partition: Partition, task: ParkedRecord) -> AppendFuture {
        let ParkedRecord { key, value, parked } = task;
        self.shared.write(partition, &key, value, None, Some(parked))
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
        let _ = self.shared.alarm.try_send(());
        if let Some(thread) = self.reports.take() {
            let _ = thread.join();
        }
    }
}

fn writer(
    config: &KafkaConfig,
    client_config: &ClientConfig,
    context: Context,
    meters: &Arc<[Meters; 2]>,
    delivered: &Arc<AtomicU64>,
) -> Result<Lender, Error> {
    let deliveries = Deliveries::new(context, meters.clone(), delivered.clone());
    Lender::new(client_config, &config.topic, &parking_topic(&config.topic), deliveries)
        .map_err(|error| Error::Log(format!("cannot make a Kafka producer: {error}")))
}

impl Shared {
    fn write(
        &self,
        partition: Partition,
        key: &Bytes,
        value: Bytes,
        reservation: Option<Reservation>,
        parked: Option<Bytes>,
    ) -> AppendFuture {
        if let Err(error) = self.admit(partition) {
            return Box::pin(ready(Err(error)));
        }
        let (answer, receiver) = oneshot::channel();
        let topic = if parked.is_some() { Target::Parking } else { Target::Tasks };
        let delivery = Box::new(Delivery::new(topic, partition, value, reservation, &self.pending, answer));
        let taken = match &parked {
            None => self.writer().produce(key, delivery),
            Some(parked) => self.writer().produce_with_header(key, delivery, PARKED_HEADER, parked),
        };
        if let Err((code, delivery)) = taken {
            if code == RDKafkaErrorCode::Fatal {
                let _ = self.alarm.try_send(());
            }
            delivery.end(Err(not_written(code)), &self.meters);
        }
        Box::pin(async move { receiver.await.unwrap_or_else(|_| Err(dropped())) })
    }

    /// Refuses what could only wait for its timeout.
    fn admit(&self, partition: Partition) -> Result<(), AppendError> {
        let refuse = |code, reason: String| Err(AppendError::NotWritten { code, reason });
        if self.closing.load(Ordering::SeqCst) {
            return refuse(NotWritten::Closing, "this process is shutting down".into());
        }
        if partition.0 >= self.config.partitions {
            return refuse(NotWritten::Away, format!("there is no partition {partition}"));
        }
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.health.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            LogHealth::Ready => Ok(()),
            LogHealth::Away(reason) | LogHealth::Mismatch(reason) => refuse(NotWritten::Away, reason),
            LogHealth::Full(reason) => refuse(NotWritten::Full, reason),
        }
    }

    fn writer(&self) -> Arc<Lender> {
        self.writer.read().unwrap_or_else(PoisonError::into_inner).clone()
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

    fn serve_reports(&self) {
        let messages = metrics::gauge!(PRODUCER_QUEUE_MESSAGES);
        let bytes = metrics::gauge!(PRODUCER_QUEUE_BYTES);
        while !self.stop.load(Ordering::SeqCst) {
            self.writer().poll(REPORT_ROUND);
            messages.set(self.pending.count() as f64);
            bytes.set(self.pending.bytes() as f64);
        }
    }

    fn keep_watch(&self, mut watch: Watch, alarms: &Receiver<()>) {
        let mut standing = Standing::default();
        let mut delivered = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let asked = Instant::now();
            let answer = watch.probe();
            let alarmed = self.alarmed.swap(false, Ordering::SeqCst);
            let delivering = std::mem::replace(&mut delivered, self.delivered.load(Ordering::Relaxed))
                != self.delivered.load(Ordering::Relaxed);
            if let Some(id) = watch.identity() {
                let _ = self.identity.set(id.to_owned());
            }
            match standing.judge(answer, alarmed, delivering, asked, Instant::now()) {
                Some(Ok(())) => self.set_health(LogHealth::Ready),
                Some(Err(Trouble::Away(reason))) => self.set_health(LogHealth::Away(reason)),
                Some(Err(Trouble::Mismatch(reason))) => self.set_health(LogHealth::Mismatch(reason)),
                None => {}
            }
            if let Some(reason) = self.writer().fatal() {
                self.replace_writer(&reason);
            }
            let _ = alarms.recv_timeout(standing.ask_after());
        }
    }

    /// Makes the producer anew after a fatal error. The old one's records are all answered first, so that none of its can follow
    /// one of the new one's.
    fn replace_writer(&self, reason: &str) {
        self.set_health(LogHealth::Away(format!("the Kafka producer broke and is made anew: {reason}")));
        let old = self.writer();
        while old.held() > 0 && !self.stop.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(10));
        }
        let context = context(&self.alarmed, &self.alarm);
        match writer(&self.config, &self.client_config, context, &self.meters, &self.delivered) {
            Ok(new) => *self.writer.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new),
            Err(error) => tracing::error!(%error, "the Kafka producer could not be made anew"),
        }
    }
}

/// A context that wakes the watch when the client loses its brokers or breaks.
fn context(alarmed: &Arc<AtomicBool>, alarm: &Sender<()>) -> Context {
    let (alarmed, alarm) = (alarmed.clone(), alarm.clone());
    let on_error: OnError = Arc::new(move |code, _| {
        if matches!(code, RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::Fatal) {
            alarmed.store(true, Ordering::SeqCst);
            let _ = alarm.try_send(());
        }
    });
    Context::new(on_error)
}

pub(super) fn not_written(code: RDKafkaErrorCode) -> AppendError {
    let reason = match code {
        RDKafkaErrorCode::QueueFull => "too many bytes wait to be written to Kafka already".into(),
        code => code.to_string(),
    };
    AppendError::NotWritten { code: kind(code), reason }
}

fn dropped() -> AppendError {
    AppendError::Unknown { reason: "the Kafka producer was dropped before it answered".into() }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    thread::Builder::new().name(name.into()).spawn(run).map_err(Error::Thread)
}
