//! The consumer's thread: poll, deliver, and do as the supervisor says. It waits for nobody but librdkafka's queue.
//!
//! A rebalance is an intent with a number: the group waits until it is answered, the thread goes on polling meanwhile, and an answer
//! to an intent that was overtaken is ignored.

mod end;
mod flow;
mod rebalance;

use super::{
    super::{
        native::{NativeConsumer, Polled, Protocol, Seek},
        watch::Trouble,
    },
    KafkaConsumer, committed,
    contact::{ContactWatch, Heard},
    held::Holder,
    lanes::{Gap, Lanes},
    starts::{Asker, Found, Search},
    tail::Tail,
};
use crate::log::{ConsumerCommand, ConsumerEvent, ConsumerPort, Lane, Tenure};
use crate::metrics::{CONSUMER_BYTES_TOTAL, CONSUMER_LAST_POLL_TIMESTAMP_SECONDS, CONSUMER_RECORDS_TOTAL};
use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use partita_core::{CommitId, Epoch, FlowControl, Intent, Lease, Mark, Offset, Partition};
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
/// How long a seek may take.
const SEEK: Duration = Duration::from_millis(500);

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
    _contact: Option<ContactWatch>,
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
        _contact: contact,
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
                Polled::Served => {}
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
            Polled::Nothing | Polled::Served | Polled::Record(_) => None,
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

    fn obey(&mut self) -> Option<End> {
        loop {
            match self.port.commands.try_recv() {
                Ok(ConsumerCommand::CompleteAssign { intent, lanes }) => self.complete_assign(intent, lanes),
                Ok(ConsumerCommand::CompleteRevoke { intent }) => self.complete_revoke(intent),
                Ok(ConsumerCommand::CloseLane { partition, epoch }) => {
                    if self.lanes.epoch(partition) == Some(epoch) {
                        self.shut(partition);
                    }
                }
                Ok(ConsumerCommand::Reopen(lane)) => {
                    self.close_lane(lane.partition);
                    self.foreign.remove(&lane.partition);
                    if self.owned.contains(&lane.partition) {
                        self.reopening.push(lane);
                        self.reopen();
                    }
                }
                Ok(ConsumerCommand::Commit { commit, offsets }) => self.commit(commit, offsets),
                Ok(ConsumerCommand::Close) | Err(TryRecvError::Disconnected) => return Some(End::Close),
                Err(TryRecvError::Empty) => return None,
            }
        }
    }

    /// Seeks what is to be reopened; what fails is tried again in the next round.
    fn reopen(&mut self) {
        for lane in std::mem::take(&mut self.reopening) {
            let partition = lane.partition;
            let there = match self.native.seek(partition, lane.start, SEEK) {
                Seek::Done => Ok(()),
                Seek::NotFetching => self.fetch_anew(partition, lane.start),
                Seek::Failed(reason) => Err(reason),
            };
            match there {
                Ok(()) => {
                    self.flow.open(partition);
                    self.lanes.open(lane);
                    self.native.set_paused(&[partition], false);
                }
                Err(reason) => {
                    tracing::warn!(%partition, reason, "a seek failed and is tried again");
                    self.reopening.push(lane);
                }
            }
        }
    }

    /// Has librdkafka fetch a partition from this offset on that it fetches no more, and so cannot seek: it gives up at an offset that is
    /// not in the log.
    fn fetch_anew(&self, partition: Partition, start: Offset) -> Result<(), String> {
        if self.pending.is_some() {
            // What is said of assignments now would be taken for the answer.
            return Err("the group's question comes first".into());
        }
        match self.native.protocol() {
            Protocol::Cooperative => {
                self.native.unassign(&[partition]).and_then(|()| self.native.assign(&[(partition, start)]))
            }
            // Only the whole assignment could be given.
            Protocol::Eager => {
                Err("an eager group cannot begin one partition anew: restart this worker".into())
            }
        }
    }

    fn commit(&mut self, commit: CommitId, offsets: Vec<(Partition, Offset, Mark)>) {
        let text = |partition, mark: &Mark| {
            let former = self.foreign.get(&partition).map(String::as_str);
            committed::to_text(mark, former.or(self.asker.topic_id()).unwrap_or_default())
        };
        let (owned, others): (Vec<_>, Vec<_>) = offsets
            .into_iter()
            .map(|(partition, offset, mark)| (partition, offset, text(partition, &mark)))
            .partition(|(partition, ..)| self.owned.contains(partition));
        if !others.is_empty() {
            tracing::warn!(?others, "offsets of partitions that are not owned are not committed");
        }
        let sent = match owned.is_empty() {
            true => Err("the partitions are not owned any more".to_owned()),
            false => self.native.commit(commit, &owned),
        };
        if let Err(reason) = sent {
            self.emit(ConsumerEvent::CommitDone { commit, committed: Vec::new(), error: Some(reason) });
        }
    }

    fn committed(
        &mut self,
        commit: CommitId,
        partitions: Vec<(Partition, Option<Code>)>,
        error: Option<Code>,
    ) {
        let failed = partitions
            .iter()
            .find_map(|(partition, error)| error.map(|code| format!("partition {partition}: {code}")));
        // An error of the whole request says nothing of its partitions: count none as stored.
        let committed = match error {
            Some(_) => Vec::new(),
            None => {
                partitions.iter().filter(|(_, error)| error.is_none()).map(|(stored, _)| *stored).collect()
            }
        };
        let error = error.map(|code| code.to_string()).or(failed);
        self.emit(ConsumerEvent::CommitDone { commit, committed, error });
    }

    fn read_notes(&mut self) {
        while let Ok(note) = self.notes.1.try_recv() {
            match note {
                Note::Starts { intent, starts: found } => {
                    if let Some(Pending::Assign { intent: pending, starts, .. }) = &mut self.pending
                        && *pending == intent
                    {
                        *starts = Some(found);
                        self.offer();
                    }
                }
                Note::Ends(ends) => self.emit(ConsumerEvent::HighWatermarks(ends)),
                Note::Heard(heard) => self.heard(&heard),
                Note::Endangered(before) => self.emit(ConsumerEvent::Endangered(before)),
                Note::Standing(standing) => self.stand(standing),
            }
        }
    }

    fn stand(&mut self, standing: Result<(), Trouble>) {
        let before = self.standing.replace(standing.clone());
        match standing {
            Ok(()) => {
                if !matches!(before, None | Some(Ok(()))) {
                    self.emit(ConsumerEvent::Away(None));
                }
                self.offer();
            }
            Err(Trouble::Away(reason)) => self.emit(ConsumerEvent::Away(Some(reason))),
            Err(Trouble::Grown(reason)) => {
                self.emit(ConsumerEvent::Away(Some(reason)));
                self.offer();
            }
            Err(Trouble::Mismatch(reason)) => {
                for partition in self.lanes.open_partitions() {
                    self.halt(partition, reason.clone());
                }
                self.emit(ConsumerEvent::Away(Some(reason)));
            }
        }
    }
}
