//! The consumer's thread: poll, deliver, and do as the supervisor says. It waits for nobody but librdkafka's queue.
//!
//! A rebalance is an intent with a number: the group waits until it is answered, the thread goes on polling meanwhile, and an answer
//! to an intent that was overtaken is ignored.

mod commands;
mod end;
mod flow;
mod notes;
mod rebalance;

use super::{
    super::{
        native::{NativeConsumer, Polled},
        watch::Trouble,
    },
    KafkaConsumer,
    contact::{ContactWatch, Heard},
    held::Holder,
    lanes::{Gap, Lanes},
    starts::{Asker, Found, Search},
    tail::Tail,
};
use crate::log::{ConsumerEvent, ConsumerPort, Lane, Tenure};
use crate::metrics::{CONSUMER_BYTES_TOTAL, CONSUMER_LAST_POLL_TIMESTAMP_SECONDS, CONSUMER_RECORDS_TOTAL};
use crossbeam_channel::{Receiver, Sender, unbounded};
use partita_core::{Epoch, FlowControl, Intent, Lease, Offset, Partition};
use rdkafka::error::RDKafkaErrorCode as Code;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A round of deliveries ends at this many records or bytes.
const ROUND_RECORDS: u64 = 1024;
const ROUND_BYTES: u64 = 8 << 20;
/// How long a poll waits when nothing is to be looked at meanwhile; commands wake it.
const IDLE: Duration = Duration::from_millis(100);
/// How often the client is asked for its standing in the group. Its main thread looks whether a heartbeat is due once a second, and
/// whenever it is asked something: without this a rebalance is heard of up to a second late, whatever `heartbeat.interval.ms` is.
const ATTEND: Duration = Duration::from_millis(100);
/// How often paused partitions are looked at, and failed seeks tried again.
const ATTENTIVE: Duration = Duration::from_millis(5);

/// What the helping threads found.
pub(super) enum Note {
    /// Where the partitions of an assignment begin.
    Starts { intent: Intent, starts: Vec<Found> },
    /// The standing of the topic changed.
    Standing(Result<(), Trouble>),
    /// The ends of the partitions.
    Ends(Vec<(Partition, Offset)>),
    /// Below which offsets retention may soon delete.
    Endangered(Vec<(Partition, Offset)>),
    /// The group answered.
    Heard(Heard),
}

/// The one question of the group that is not answered yet.
enum Pending {
    Assign { intent: Intent, starts: Option<Vec<Found>>, strangers: Vec<Partition>, _search: Option<Search> },
    Revoke { intent: Intent, partitions: Vec<Partition> },
}

/// Why the loop ends.
enum End {
    Close,
    Fatal(String),
}

struct Member {
    native: Arc<NativeConsumer>,
    port: ConsumerPort,
    notes: (Sender<Note>, Receiver<Note>),
    tail: Tail,
    asker: Asker,
    holder: Holder,
    lanes: Lanes,
    flow: FlowControl,
    pending: Option<Pending>,
    intents: u64,
    generation: u32,
    owned: BTreeSet<Partition>,
    /// Partitions whose committed offset is of another topic, with that topic's id: it stays that topic's until an operator says otherwise.
    foreign: BTreeMap<Partition, String>,
    /// Lanes whose seek has not succeeded yet.
    reopening: Vec<Lane>,
    joined: bool,
    attended: Instant,
    lease: Lease,
    contact: Option<ContactWatch>,
    tenure: Tenure,
    began: Instant,
    /// What the watch last said; `None` until it has spoken.
    standing: Option<Result<(), Trouble>>,
    meters: Meters,
}

struct Meters {
    records: metrics::Counter,
    bytes: metrics::Counter,
    last_poll: metrics::Gauge,
}

/// Runs a consumer to its end.
pub(super) fn run(consumer: KafkaConsumer, port: ConsumerPort) {
    let KafkaConsumer { config, limits, prefetch_bytes, native, watch, tenure, session, max_task } = consumer;
    let notes = unbounded();
    let asker = Asker::of(&watch);
    let contact = || match session {
        Some(_) => Ok(None),
        None => ContactWatch::start(&config, max_task, &native, notes.0.clone()).map(Some),
    };
    let started = Tail::start(watch, &native, notes.0.clone()).and_then(|tail| Ok((tail, contact()?)));
    let (tail, contact) = match started {
        Ok(started) => started,
        Err(error) => return (port.events)(ConsumerEvent::Fatal(format!("cannot start a thread: {error}"))),
    };
    let member = Member {
        holder: Holder::new(native.clone(), prefetch_bytes / 4),
        port,
        notes,
        tail,
        asker,
        lanes: Lanes::new(config.partitions),
        flow: FlowControl::new(limits),
        pending: None,
        intents: 0,
        generation: 0,
        owned: BTreeSet::new(),
        foreign: BTreeMap::new(),
        reopening: Vec::new(),
        joined: false,
        attended: Instant::now(),
        lease: session.map_or_else(Lease::with_contact, Lease::new),
        contact,
        tenure,
        began: Instant::now(),
        standing: None,
        meters: Meters {
            records: metrics::counter!(CONSUMER_RECORDS_TOTAL, "topic" => config.topic.clone()),
            bytes: metrics::counter!(CONSUMER_BYTES_TOTAL, "topic" => config.topic.clone()),
            last_poll: metrics::gauge!(CONSUMER_LAST_POLL_TIMESTAMP_SECONDS),
        },
        native,
    };
    member.live();
}

impl Member {
    fn live(mut self) {
        if let Err(error) = self.native.subscribe() {
            return self.emit(ConsumerEvent::Fatal(error.to_string()));
        }
        let end = loop {
            if let Some(end) = self.obey() {
                break end;
            }
            self.read_notes();
            self.beat();
            if let Some(end) = self.round() {
                break end;
            }
        };
        match end {
            End::Close => self.leave(),
            End::Fatal(reason) => self.die(reason),
        }
    }

    fn emit(&self, event: ConsumerEvent) {
        (self.port.events)(event);
    }

    /// Polls until the queue is empty or the round is full, then delivers.
    fn round(&mut self) -> Option<End> {
        let mut wait = self.patience();
        let mut end = None;
        loop {
            match self.native.poll(std::mem::take(&mut wait)) {
                Polled::Nothing => break,
                Polled::Served | Polled::Line { .. } => {}
                Polled::Record(record) => {
                    let partition = record.partition();
                    if let Err(gap) = self.lanes.take(record, &self.holder) {
                        self.halt_for_gap(partition, &gap);
                    }
                    let (records, bytes) = self.lanes.round();
                    if records >= ROUND_RECORDS || bytes >= ROUND_BYTES {
                        break;
                    }
                }
                other => {
                    // What was read before is delivered before.
                    self.deliver();
                    end = self.serve(other);
                    if end.is_some() {
                        break;
                    }
                }
            }
        }
        self.deliver();
        self.let_catch_up();
        self.regulate();
        self.reopen();
        self.attend();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.meters.last_poll.set(now.as_secs_f64());
        end
    }

    fn patience(&self) -> Duration {
        let attentive = !self.reopening.is_empty() || self.flow.paused().next().is_some();
        if attentive { ATTENTIVE } else { IDLE }
    }

    fn serve(&mut self, polled: Polled) -> Option<End> {
        match polled {
            Polled::Nothing | Polled::Served | Polled::Line { .. } | Polled::Record(_) => None,
            Polled::Rebalance { assign: true, partitions } => {
                self.offered(partitions);
                None
            }
            Polled::Rebalance { assign: false, partitions } => {
                self.taken(partitions);
                None
            }
            Polled::Committed { commit, partitions, error } => {
                self.committed(commit, partitions, error);
                None
            }
            Polled::Error { code, fatal, partition, reason } => self.failed(code, fatal, partition, reason),
        }
    }

    fn failed(
        &mut self,
        code: Code,
        fatal: bool,
        partition: Option<(Partition, i64)>,
        reason: String,
    ) -> Option<End> {
        if fatal || code == Code::Fatal {
            let detail = self.native.client().fatal_error();
            return Some(End::Fatal(detail.map_or(reason, |(code, text)| format!("{code}: {text}"))));
        }
        match (code, partition) {
            (Code::AllBrokersDown, _) => self.tail.alarm(),
            (
                Code::AutoOffsetReset
                | Code::OffsetOutOfRange
                | Code::BadMessage
                | Code::BadCompression
                | Code::InvalidMessage
                | Code::InvalidMessageSize
                | Code::MessageSizeTooLarge
                | Code::NotImplemented,
                Some((partition, offset)),
            ) => self.halt(partition, format!("at offset {offset}: {code}: {reason}")),
            _ => tracing::warn!(?code, ?partition, reason, "the Kafka consumer reports an error"),
        }
        None
    }

    fn halt_for_gap(&mut self, partition: Partition, gap: &Gap) {
        let Gap { expected, found } = gap;
        let missing = found.0 - expected.0;
        self.halt(
            partition,
            format!("expected offset {expected}, found {found}: {missing} tasks were skipped. Look for deleted or damaged records"),
        );
    }

    /// Closes a lane whose records cannot be continued, and says so.
    fn halt(&mut self, partition: Partition, detail: String) {
        let Some(epoch) = self.shut(partition) else { return };
        tracing::error!(%partition, detail, "the partition is halted");
        self.emit(ConsumerEvent::Discontinuity { partition, epoch, detail });
    }

    /// Closes a lane and stops fetching for it.
    fn shut(&mut self, partition: Partition) -> Option<Epoch> {
        let epoch = self.close_lane(partition)?;
        self.native.set_paused(&[partition], true);
        Some(epoch)
    }

    fn close_lane(&mut self, partition: Partition) -> Option<Epoch> {
        self.flow.close(partition);
        let reopening = self.reopening.iter().position(|lane| lane.partition == partition);
        let reopening = reopening.map(|index| self.reopening.swap_remove(index).epoch);
        self.lanes.close(partition).or(reopening)
    }
}
