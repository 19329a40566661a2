//! The consumer's thread: does what it is told, delivers what there is, waits for more.

use super::{
    TOPIC, Threads,
    lanes::{Fit, Place},
    published::{RowValue, View},
    queue::{OffsetCommit, StoredOffset},
    reader::{Next, Reader, Seen, Value},
    retention::Committed,
    shared::Shared,
};
use crate::{
    log::{ConsumerCommand, ConsumerEvent, ConsumerPort, Lane, Start, TaskConsumer, journal::mark_to_text},
    metrics as names,
};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use metrics::{Counter, Gauge, counter, gauge};
use partita_core::{CommitId, DeliveryLimits, Epoch, FlowControl, Intent, Mark, Offset, Partition, Position};
use rusqlite::Connection;
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Bytes read in one round; one record may be larger.
const ROUND_BYTES: u64 = 4 << 20;
/// A smaller value is copied into the batch's buffer.
const COPIED: usize = 4096;
/// How often paused lanes are looked at: at first, and at last.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(16);
/// How often the thread looks round when nothing happens.
const IDLE: Duration = Duration::from_secs(1);
/// After a failed read.
const READ_RETRY: Duration = Duration::from_millis(500);
/// How long others wait, in turn with going on, while a large record waits for room.
const PATIENCE: Duration = Duration::from_secs(2);
const ASSIGNMENT: Intent = Intent(0);

/// The reading half of the embedded log.
pub struct EmbeddedConsumer {
    parts: Parts,
}

pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) reader: Connection,
    pub(super) generation: u32,
    pub(super) committed: Committed,
    /// For each partition the mark that was committed, and where its journal ends.
    pub(super) journals: Vec<(Mark, Position)>,
    pub(super) limits: DeliveryLimits,
    pub(super) threads: Arc<Threads>,
}

impl EmbeddedConsumer {
    pub(super) fn new(parts: Parts) -> Self {
        Self { parts }
    }
}

impl TaskConsumer for EmbeddedConsumer {
    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        let shared = self.parts.shared.clone();
        Arc::new(move || shared.consumer.raise())
    }

    fn run(self: Box<Self>, port: ConsumerPort) {
        let (answered, answers) = crossbeam_channel::unbounded();
        let Parts { shared, reader, generation, committed, journals, limits, threads } = self.parts;
        let mut running = Running {
            places: committed.into_iter().map(Place::new).collect(),
            reader: Reader::new(reader),
            flow: FlowControl::new(limits),
            limits,
            port,
            answered,
            answers,
            commits: 0,
            closing: false,
            leader: 0,
            starved: None,
            away: false,
            told: None,
            tick: None,
            meters: Meters::new(),
            shared,
        };
        running.offer(generation, journals);
        running.serve();
        (running.port.events)(ConsumerEvent::Closed);
        drop(running);
        drop(threads);
    }
}

/// A commit that the writer answered.
type CommitAnswer = (CommitId, Vec<StoredOffset>, Result<(), String>);

struct Running {
    shared: Arc<Shared>,
    reader: Reader,
    places: Vec<Place>,
    flow: FlowControl,
    limits: DeliveryLimits,
    port: ConsumerPort,
    answered: Sender<CommitAnswer>,
    answers: Receiver<CommitAnswer>,
    commits: usize,
    closing: bool,
    /// Whose place the last scan started from.
    leader: usize,
    starved: Option<Starved>,
    away: bool,
    /// The seq of the last high watermarks.
    told: Option<u64>,
    tick: Option<Instant>,
    meters: Meters,
}

/// A record that waits until enough of what is outstanding has ended.
struct Starved {
    lane: usize,
    offset: u64,
    since: Instant,
}

/// What a round came to.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// There may be more.
    Some,
    /// A lane waits for its actor.
    Waiting,
    /// All lanes have everything.
    Idle,
}

/// A record whose value is read after the scan.
struct Pointed {
    lane: usize,
    seq: u64,
    offset: Offset,
    timestamp_ms: i64,
    key: Bytes,
    value: RowValue,
}

/// What one scan may do and did.
struct Round {
    start: u64,
    /// Bytes that may still become outstanding.
    room: u64,
    /// Nothing is outstanding: a record that is larger than all the room may come.
    alone: bool,
    /// Lanes that still take records.
    open: usize,
    taken: u64,
    patient: bool,
    pointed: Option<Pointed>,
    starved: Option<usize>,
    gaps: Vec<(usize, u64)>,
}

impl Running {
    fn emit(&self, event: ConsumerEvent) {
        (self.port.events)(event);
    }

    fn offer(&mut self, generation: u32, journals: Vec<(Mark, Position)>) {
        self.emit(ConsumerEvent::Joined);
        let start = |(p, (place, (mark, journal_end))): (usize, (&Place, (Mark, Position)))| Start {
            partition: Partition(p as u32),
            offset: Offset(place.next),
            mark,
            journal_end,
        };
        let partitions = self.places.iter().zip(journals).enumerate().map(start).collect();
        self.emit(ConsumerEvent::Assigned { intent: ASSIGNMENT, generation, partitions });
    }

    fn serve(&mut self) {
        let mut look = LOOK_FIRST;
        while !self.closing || self.commits > 0 {
            self.obey();
            self.answer_commits();
            self.pause_and_resume();
            self.tell();
            let wait = match self.round() {
                Ok(Progress::Some) => {
                    look = LOOK_FIRST;
                    self.back();
                    continue;
                }
                Ok(Progress::Waiting) => {
                    let wait = look;
                    look = (look * 2).min(LOOK_LAST);
                    wait
                }
                Ok(Progress::Idle) => {
                    look = LOOK_FIRST;
                    IDLE
                }
                Err(error) => {
                    self.gone(&error);
                    READ_RETRY
                }
            };
            if !self.closing || self.commits > 0 {
                self.shared.consumer.wait(wait);
            }
        }
    }

    fn gone(&mut self, error: &rusqlite::Error) {
        if !self.away {
            self.away = true;
            tracing::error!(%error, "the embedded log cannot be read; it is tried again");
            self.emit(ConsumerEvent::Away(Some(format!("the embedded log cannot be read: {error}"))));
        }
    }

    fn back(&mut self) {
        if self.away {
            self.away = false;
            self.emit(ConsumerEvent::Away(None));
        }
    }

    fn obey(&mut self) {
        loop {
            match self.port.commands.try_recv() {
                Ok(command) => self.command(command),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => return self.close_all(),
            }
        }
    }

    fn command(&mut self, command: ConsumerCommand) {
        match command {
            ConsumerCommand::CompleteAssign { intent, lanes } => {
                if intent == ASSIGNMENT && !self.closing {
                    lanes.into_iter().for_each(|lane| self.open(lane));
                }
            }
            ConsumerCommand::Reopen(lane) => {
                if !self.closing {
                    self.open(lane);
                }
            }
            // Nothing is ever taken back: there is no other process.
            ConsumerCommand::CompleteRevoke { .. } => {}
            ConsumerCommand::CloseLane { partition, epoch } => self.close(partition, epoch),
            ConsumerCommand::Commit { commit, offsets } => self.commit(commit, offsets),
            ConsumerCommand::Close => self.close_all(),
        }
    }

    fn open(&mut self, lane: Lane) {
        let partition = lane.partition;
        if let Some(place) = self.places.get_mut(partition.0 as usize) {
            place.open(lane);
            let was_paused = self.flow.is_paused(partition);
            self.flow.open(partition);
            if was_paused {
                self.emit(ConsumerEvent::Paused { partition, paused: false });
            }
        }
    }

    fn close(&mut self, partition: Partition, epoch: Epoch) {
        if let Some(place) = self.places.get_mut(partition.0 as usize)
            && place.lane.as_ref().is_some_and(|lane| lane.epoch == epoch)
        {
            place.close();
            self.flow.close(partition);
        }
    }

    fn close_all(&mut self) {
        self.closing = true;
        self.places.iter_mut().for_each(Place::close);
    }

    fn commit(&mut self, commit: CommitId, offsets: Vec<(Partition, Offset, Mark)>) {
        let offsets: Vec<_> = offsets
            .into_iter()
            .filter_map(|(partition, offset, mark)| {
                let place = self.places.get_mut(partition.0 as usize)?;
                let seq = place.seq_for_commit(offset.0);
                Some(StoredOffset { partition, offset, seq, mark: mark_to_text(&mark) })
            })
            .collect();
        let (answered, shared, stored) = (self.answered.clone(), self.shared.clone(), offsets.clone());
        let reply = Box::new(move |result| {
            let _ = answered.send((commit, stored, result));
            shared.consumer.raise();
        });
        self.commits += 1;
        if let Err(refused) = self.shared.queue.push_commit(OffsetCommit { offsets, reply }) {
            (refused.reply)(Err("the embedded log's writer has ended".into()));
        }
    }

    fn answer_commits(&mut self) {
        while let Ok((commit, stored, result)) = self.answers.try_recv() {
            self.commits -= 1;
            let committed = if result.is_ok() { stored } else { Vec::new() };
            for one in &committed {
                if let Some(place) = self.places.get_mut(one.partition.0 as usize) {
                    place.committed(one.offset, one.seq);
                }
            }
            let committed = committed.into_iter().map(|one| one.partition).collect();
            self.emit(ConsumerEvent::CommitDone { commit, committed, error: result.err() });
        }
    }

    fn pause_and_resume(&mut self) {
        for place in &self.places {
            if let Some(lane) = &place.lane {
                self.flow.observe(lane.partition, lane.inbox.outstanding());
            }
        }
        for change in self.flow.decide() {
            self.emit(ConsumerEvent::Paused { partition: change.partition, paused: change.paused });
        }
    }

    /// Says about once a second how far the log reaches, if that changed.
    fn tell(&mut self) {
        if self.tick.is_some_and(|tick| tick.elapsed() < IDLE) {
            return;
        }
        self.tick = Some(Instant::now());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        self.meters.last_poll.set(now);
        if self.told != Some(self.shared.published.seq()) {
            let view = self.shared.published.view();
            self.told = Some(view.seq);
            let ends =
                view.ends.iter().enumerate().map(|(p, end)| (Partition(p as u32), Offset(*end))).collect();
            self.emit(ConsumerEvent::HighWatermarks(ends));
        }
    }

    /// Scans once from the place of the next lane in turn and hands over what it found.
    fn round(&mut self) -> rusqlite::Result<Progress> {
        let view = self.shared.published.view();
        let Some(mut round) = self.prepare(&view) else {
            let waits = self.places.iter().any(|place| place.lane.is_some() && place.full);
            self.places.iter_mut().for_each(|place| place.full = false);
            return Ok(if waits { Progress::Waiting } else { Progress::Idle });
        };
        let (places, reader, shared) = (&mut self.places, &self.reader, &self.shared);
        let scanned = reader.scan(shared, round.start, view.seq, |seen| visit(&mut round, places, seen));
        let scanned = scanned.and_then(|scanned| {
            if let Some(pointed) = round.pointed.take() {
                let value = reader.value(shared, pointed.seq, &pointed.value)?;
                let place = &mut places[pointed.lane];
                place.batch.push_owned(pointed.offset, pointed.timestamp_ms, &pointed.key, value);
                place.advance(pointed.seq);
            }
            Ok(scanned)
        });
        if let Ok(scanned) = &scanned {
            settle(&mut round, places, &view, scanned.to);
        }
        let delivered = self.deliver();
        self.forget();
        self.report_gaps(&round, &view);
        let scanned = scanned?;
        self.starved = self.starved.take().filter(|starved| self.places[starved.lane].next == starved.offset);
        if let (None, Some(lane)) = (&self.starved, round.starved) {
            self.starved = Some(Starved { lane, offset: self.places[lane].next, since: Instant::now() });
        }
        let moved = delivered > 0 || scanned.to > round.start || !round.gaps.is_empty();
        Ok(if moved { Progress::Some } else { Progress::Waiting })
    }

    /// Marks the lanes that take no part as full and picks where to start. None: no lane takes part.
    fn prepare(&mut self, view: &View) -> Option<Round> {
        let mut outstanding = 0;
        let mut open = 0;
        for (index, place) in self.places.iter_mut().enumerate() {
            let Some(lane) = &place.lane else {
                place.full = true;
                continue;
            };
            outstanding += lane.inbox.outstanding().bytes;
            let end = view.ends.get(index).copied().unwrap_or(0);
            if place.next == end {
                place.from = place.from.max(view.seq);
            }
            // A lane that waits only for new records is not "full": see `round`.
            place.full = place.next != end && self.flow.is_paused(lane.partition);
            open += usize::from(place.next != end && !place.full);
        }
        let wants = |place: &Place, end: u64| place.lane.is_some() && !place.full && place.next != end;
        let end = |index: usize| view.ends.get(index).copied().unwrap_or(0);
        if open == 0 {
            return None;
        }
        let patient = self.starved.as_ref().is_none_or(|starved| in_patience(starved.since.elapsed()));
        let starved = self
            .starved
            .as_ref()
            .map(|starved| starved.lane)
            .filter(|&index| wants(&self.places[index], end(index)));
        let count = self.places.len();
        let leader = match starved {
            Some(index) if patient => {
                for (other, place) in self.places.iter_mut().enumerate() {
                    place.full |= other != index;
                }
                open = 1;
                index
            }
            _ => (1..=count)
                .map(|step| (self.leader + step) % count)
                .find(|&index| wants(&self.places[index], end(index)))?,
        };
        self.leader = leader;
        Some(Round {
            start: self.places[leader].from,
            room: self.limits.total_bytes.saturating_sub(outstanding),
            alone: outstanding == 0,
            open,
            taken: 0,
            patient,
            pointed: None,
            starved: None,
            gaps: Vec::new(),
        })
    }

    fn deliver(&mut self) -> u64 {
        let (mut records, mut bytes) = (0, 0);
        for place in &mut self.places {
            let counted = place.deliver();
            records += counted.0;
            bytes += counted.1;
        }
        if records > 0 {
            self.meters.records.increment(records);
            self.meters.bytes.increment(bytes);
        }
        records
    }

    /// Lets go of the rows in memory that every lane has passed.
    fn forget(&self) {
        if let Some(seq) =
            self.places.iter().filter(|place| place.lane.is_some()).map(|place| place.from).min()
        {
            self.shared.published.forget_before(seq);
        }
    }

    fn report_gaps(&mut self, round: &Round, view: &View) {
        for (index, found) in &round.gaps {
            let place = &mut self.places[*index];
            let Some(lane) = &place.lane else { continue };
            let (partition, epoch) = (lane.partition, lane.epoch);
            let end = view.ends.get(*index).copied().unwrap_or(0);
            let detail = format!(
                "expected offset {}, found {found} (the log ends at {end}): records {}..{found} of partition {partition} are not in \
                 the embedded log",
                place.next, place.next
            );
            place.close();
            self.flow.close(partition);
            self.emit(ConsumerEvent::Discontinuity { partition, epoch, detail });
        }
    }
}

fn in_patience(waited: Duration) -> bool {
    (waited.as_millis() / PATIENCE.as_millis()).is_multiple_of(2)
}

/// Takes a row into its lane's batch, if it is its next one and there is room.
fn visit(round: &mut Round, places: &mut [Place], seen: &Seen<'_>) -> rusqlite::Result<Next> {
    let index = seen.partition.0 as usize;
    let Some(place) = places.get_mut(index) else { return Ok(Next::More) };
    match place.fit(round.start, seen.seq, seen.offset.0) {
        Fit::Skip => return Ok(Next::More),
        Fit::Gap => {
            round.gaps.push((index, seen.offset.0));
            place.full = true;
            return Ok(Next::More);
        }
        Fit::Next => {}
    }
    let crowded = seen.size > round.room && !(round.alone && round.taken == 0);
    if crowded || place.has_no_room(seen.size) {
        place.stop_at(seen.seq);
        round.open -= 1;
        if crowded && round.starved.is_none() {
            round.starved = Some(index);
        }
        let stop = round.open == 0 || (crowded && round.patient);
        return Ok(if stop { Next::Before } else { Next::More });
    }
    let content = seen.content()?;
    let (offset, timestamp_ms, key) = (seen.offset, content.timestamp_ms, content.key);
    match content.value {
        Value::Shared(value) if value.len() > COPIED => {
            place.batch.push_owned(offset, timestamp_ms, key, value.clone());
        }
        Value::Borrowed(value) if value.len() > COPIED => {
            place.batch.push_owned(offset, timestamp_ms, key, Bytes::copy_from_slice(value));
        }
        Value::Shared(value) => place.batch.push_copied(offset, timestamp_ms, key, value),
        Value::Borrowed(value) => place.batch.push_copied(offset, timestamp_ms, key, value),
        Value::Elsewhere(value) => {
            let key = Bytes::copy_from_slice(key);
            round.pointed = Some(Pointed { lane: index, seq: seen.seq, offset, timestamp_ms, key, value });
            place.stop_at(seen.seq);
            return Ok(Next::Before);
        }
    }
    place.advance(seen.seq);
    round.taken += seen.size;
    round.room = round.room.saturating_sub(seen.size);
    Ok(if round.taken >= ROUND_BYTES { Next::Enough } else { Next::More })
}

/// Moves the lanes that the scan served to where it ended, and finds those whose records are not there.
fn settle(round: &mut Round, places: &mut [Place], view: &View, to: u64) {
    for (index, place) in places.iter_mut().enumerate() {
        if place.lane.is_none() || place.full || !place.is_covered(round.start) {
            continue;
        }
        place.from = place.from.max(to);
        let end = view.ends.get(index).copied().unwrap_or(0);
        if to >= view.seq && place.next != end {
            round.gaps.push((index, end));
        }
    }
}

struct Meters {
    records: Counter,
    bytes: Counter,
    last_poll: Gauge,
}

impl Meters {
    fn new() -> Self {
        Self {
            records: counter!(names::CONSUMER_RECORDS_TOTAL, "topic" => TOPIC),
            bytes: counter!(names::CONSUMER_BYTES_TOTAL, "topic" => TOPIC),
            last_poll: gauge!(names::CONSUMER_LAST_POLL_TIMESTAMP_SECONDS),
        }
    }
}
