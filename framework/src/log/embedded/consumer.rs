//! The consumer's thread: does what it is told, delivers what there is, waits for more.

mod round;

use super::{
    TOPIC, Threads,
    lanes::Place,
    queue::{OffsetCommit, StoredOffset},
    reader::Reader,
    retention::Committed,
    shared::Shared,
};
use crate::{
    log::{ConsumerCommand, ConsumerEvent, ConsumerPort, Lane, Start, TaskConsumer, journal::mark_to_text},
    metrics as names,
};
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use metrics::{Counter, Gauge, counter, gauge};
use partita_core::{CommitId, DeliveryLimits, Epoch, FlowControl, Intent, Mark, Offset, Partition, Position};
use rusqlite::Connection;
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often paused lanes are looked at: at first, and at last.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_LAST: Duration = Duration::from_millis(16);
/// How often the thread looks round when nothing happens.
const IDLE: Duration = Duration::from_secs(1);
/// After a failed read.
const READ_RETRY: Duration = Duration::from_millis(500);
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
