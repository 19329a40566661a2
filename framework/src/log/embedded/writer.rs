//! The writer's thread: takes whatever waits, writes it in one transaction, syncs once, answers everybody.
//!
//! There is no linger: one client's append is written at once, and while that is being synced the next group gathers by itself.

mod answer;
mod meters;
mod trouble;

use super::{
    checkpoint::Due,
    plan::{Shape, Step, answers, plan},
    published::Row,
    queue::{Op, Taken},
    requests::{Known, Requests},
    retention::{Committed, Retention},
    schema::Tail,
    shared::Shared,
    store::{At, Place, Store, chunks_of},
};
use crate::log::{AppendError, AppendOutcome, LogHealth, Reply};
use meters::Meters;
use rusqlite::Connection;
use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use trouble::Trouble;

/// Ops that the writer looks at for one transaction.
const LOOK_AHEAD: usize = 4096;
/// Records between two notes of where the log ends.
const NOTE_EVERY: u64 = 4096;

/// What the thread is given.
pub(super) struct Start {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
    pub(super) due: Arc<Due>,
    pub(super) tail: Tail,
    pub(super) next_chunk: u64,
    pub(super) committed: Committed,
    pub(super) retention: Duration,
    pub(super) requests: Requests,
    pub(super) topic: &'static str,
}

/// The thread's whole life.
pub(super) fn run(start: Start) {
    let shared = start.shared.clone();
    let _end = OnEnd(&shared);
    let store = match Store::new(&start.connection) {
        Ok(store) => store,
        Err(error) => {
            tracing::error!(%error, "the embedded log's writer cannot start");
            shared.health.set(LogHealth::Away(error.to_string()));
            return;
        }
    };
    let writer = Writer {
        shared: &shared,
        due: &start.due,
        store,
        noted: start.tail.seq,
        tail: start.tail,
        next_chunk: start.next_chunk,
        retention: Retention::new(start.retention, Instant::now(), start.committed.clone()),
        committed: start.committed,
        requests: start.requests,
        pending: VecDeque::new(),
        abandoned: Vec::new(),
        outcomes: Vec::new(),
        rows: Vec::new(),
        replies: Vec::new(),
        trouble: None,
        meters: Meters::new(start.topic),
    };
    writer.serve();
}

/// However the thread ends, nobody waits for it any more.
struct OnEnd<'a>(&'a Shared);

impl Drop for OnEnd<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .health
                .set(LogHealth::Away("the embedded log's writer panicked; restart the process".into()));
        }
        self.0.in_hand.clear();
        self.0.queue.die();
        self.0.drained.send_replace(true);
        self.0.consumer.raise();
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    due: &'a Due,
    store: Store<'a>,
    tail: Tail,
    /// The seq of the last note of the ends.
    noted: u64,
    next_chunk: u64,
    committed: Committed,
    retention: Retention,
    requests: Requests,
    pending: VecDeque<Pending>,
    /// Chunks of values that were given up half-way: first id and number.
    abandoned: Vec<(u64, u64)>,
    outcomes: Vec<Outcome>,
    rows: Vec<Row>,
    replies: Vec<(Reply, AppendOutcome)>,
    trouble: Option<Trouble>,
    meters: Meters,
}

struct Pending {
    op: Op,
    /// For a large value whose writing has begun.
    begun: Option<Begun>,
    /// It will not be written, for this reason.
    settled: Option<Known>,
}

#[derive(Clone, Copy)]
struct Begun {
    first: u64,
    written: u64,
}

impl From<Op> for Pending {
    fn from(op: Op) -> Self {
        Self { op, begun: None, settled: None }
    }
}

impl Pending {
    fn shape(&self) -> Shape {
        match &self.op {
            Op::Commit(_) => Shape::Commit,
            Op::Write(write) if self.settled.is_some() => Shape::Small(write.partition, 0),
            Op::Write(write) => match chunks_of(write.value.len()) {
                0 => Shape::Small(write.partition, write.weight()),
                count => Shape::Large(write.partition, count - self.begun.map_or(0, |begun| begun.written)),
            },
        }
    }
}

/// What became of an op whose transaction is not committed yet.
enum Outcome {
    Record(At, Place),
    /// It was there already, at this offset.
    Repeated(u64),
    Refused(AppendError),
    Parked(u64),
    Committed,
}

/// A failed transaction.
struct Failed {
    error: rusqlite::Error,
    /// It failed in its commit, not before.
    in_commit: bool,
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self { error, in_commit: false }
    }
}

impl Writer<'_> {
    fn serve(mut self) {
        loop {
            let wake = match &self.trouble {
                Some(trouble) => trouble.probe_at.min(self.retention.due()),
                None => self.retention.due(),
            };
            if let Taken::Stop = self.shared.queue.take(&mut self.pending, LOOK_AHEAD, wake) {
                break;
            }
            if !self.pending.is_empty() {
                match &self.trouble {
                    None => self.group(),
                    Some(trouble) => self.fail_all(trouble.error.clone()),
                }
            }
            self.housekeeping();
        }
        if self.noted != self.tail.seq
            && let Err(failed) = self.transaction(true, |writer| Ok(writer.store.note_ends(&writer.tail)?))
        {
            tracing::warn!(error = %failed.error, "the embedded log could not note its end; opening it will read it");
        }
    }

    /// Writes one group and answers it.
    fn group(&mut self) {
        let steps = plan(self.pending.iter().map(Pending::shape));
        let (tail, next_chunk) = (self.tail.clone(), self.next_chunk);
        self.outcomes.clear();
        self.requests.begin();
        let written = self.transaction(answers(&steps), |writer| writer.write(&steps));
        match written {
            Ok(()) => {
                self.requests.committed();
                self.answer(&steps);
            }
            Err(failed) => {
                self.requests.failed();
                self.tail = tail;
                self.next_chunk = self.next_chunk.max(next_chunk);
                self.give_up(&failed);
            }
        }
    }

    fn transaction(
        &mut self,
        synced: bool,
        body: impl FnOnce(&mut Self) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        self.held_up(|writer| writer.transact(synced, body))
    }

    /// Does what the disk may hold up: whoever waits is answered in time.
    fn held_up<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let in_hand = &self.shared.in_hand;
        in_hand.lend(self.pending.iter_mut().map(|pending| &mut pending.op));
        let done = work(self);
        in_hand.give_back(self.pending.iter_mut().map(|pending| &mut pending.op));
        done
    }

    fn transact(
        &mut self,
        synced: bool,
        body: impl FnOnce(&mut Self) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let shared = self.shared;
        #[cfg(test)]
        self.limit_pages();
        let _shared_with_readers = shared.gate.read().unwrap_or_else(PoisonError::into_inner);
        let done = self
            .store
            .begin(synced)
            .map_err(Failed::from)
            .and_then(|()| body(self))
            .and_then(|()| self.store.commit().map_err(|error| Failed { error, in_commit: true }));
        if done.is_err() {
            self.store.rollback();
        }
        done
    }

    #[cfg(test)]
    fn limit_pages(&self) {
        let limit = self.shared.page_limit.load(std::sync::atomic::Ordering::Relaxed);
        let pages = if limit == 0 { u32::MAX - 1 } else { limit };
        let limited =
            self.store.connection().pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()));
        assert!(limited.is_ok(), "{limited:?}");
    }

    fn write(&mut self, steps: &[Step]) -> Result<(), Failed> {
        let now = now_ms();
        for step in steps {
            match *step {
                Step::Complete(index) => {
                    let outcome = self.complete(index, now)?;
                    self.outcomes.push(outcome);
                }
                Step::Stream(index, count) => self.stream(index, count)?,
            }
        }
        if self.tail.seq - self.noted >= NOTE_EVERY {
            self.store.note_ends(&self.tail)?;
        }
        if let Some((seq, entries)) = self.requests.staged() {
            self.store.requests(seq, entries)?;
        }
        if let Some(seq) = self.requests.forgettable() {
            self.store.forget_requests(seq)?;
        }
        Ok(())
    }

    fn complete(&mut self, index: usize, now: i64) -> Result<Outcome, Failed> {
        let known = self.pending[index].settled.take().unwrap_or_else(|| self.known(index));
        match known {
            Known::New => {}
            Known::Stored(offset) => return Ok(Outcome::Repeated(offset)),
            Known::Refused(error) => return Ok(Outcome::Refused(error)),
        }
        let left = match self.pending[index].shape() {
            Shape::Large(_, left) => left,
            Shape::Small(..) | Shape::Commit => 0,
        };
        let place = if left > 0 { Place::Chunks(self.stream_rest(index, left)?) } else { Place::InRow };
        let write = match &self.pending[index].op {
            Op::Commit(commit) => {
                self.store.commit_offsets(commit)?;
                return Ok(Outcome::Committed);
            }
            Op::Write(write) => write,
        };
        if let Some(parked) = &write.parked {
            return Ok(Outcome::Parked(self.store.park(write, parked, now, place)?));
        }
        let end = &mut self.tail.ends[write.partition.0 as usize];
        let at = At { seq: self.tail.seq, offset: *end, timestamp_ms: now };
        self.store.insert(at, write, place)?;
        if let Some(idempotency) = &write.idempotency {
            self.requests.stored(idempotency, write.partition, at);
        }
        *end += 1;
        self.tail.seq += 1;
        Ok(Outcome::Record(at, place))
    }

    /// What is known of the idempotent append at this index, before anything of it is written. Later appends of its partition, and so of
    /// its key, are not written meanwhile.
    fn known(&self, index: usize) -> Known {
        let pending = &self.pending[index];
        match &pending.op {
            Op::Write(write) if pending.begun.is_none() => self.requests.look(write.idempotency.as_ref()),
            _ => Known::New,
        }
    }

    /// Writes the last chunks of a value. Returns its first chunk's id.
    fn stream_rest(&mut self, index: usize, left: u64) -> Result<u64, Failed> {
        let staged = self.pending[index].begun.is_some();
        let first = self.chunks(index, left)?;
        if staged {
            self.store.unstage(first)?;
        }
        Ok(first)
    }

    fn stream(&mut self, index: usize, count: u64) -> Result<(), Failed> {
        match self.known(index) {
            Known::New => {}
            known => {
                self.pending[index].settled = Some(known);
                return Ok(());
            }
        }
        let fresh = self.pending[index].begun.is_none();
        let first = self.chunks(index, count)?;
        if fresh && let Op::Write(write) = &self.pending[index].op {
            self.store.stage(first, chunks_of(write.value.len()))?;
        }
        Ok(())
    }

    fn chunks(&mut self, index: usize, count: u64) -> Result<u64, Failed> {
        let pending = &mut self.pending[index];
        let Op::Write(write) = &pending.op else { return Ok(0) };
        let begun = pending.begun.get_or_insert_with(|| {
            let first = self.next_chunk;
            self.next_chunk += chunks_of(write.value.len());
            Begun { first, written: 0 }
        });
        for index in begun.written..begun.written + count {
            self.store.chunk(begun.first, index, &write.value)?;
        }
        begun.written += count;
        Ok(begun.first)
    }

    /// What is done between groups: deletion of old records, and the way out of trouble.
    fn housekeeping(&mut self) {
        let now = Instant::now();
        if now >= self.retention.due() {
            self.retention.look(now, &self.committed);
            if self.retention.is_active() {
                self.delete_some(now);
            }
        }
        self.held_up(|writer| writer.requests.turn(writer.tail.seq));
        self.try_again(now);
    }

    fn delete_some(&mut self, now: Instant) {
        let mut next = 0;
        // Its sync may wait for the next append's: a deletion that a crash undoes is done again.
        let began = Instant::now();
        let deleted = self.transaction(false, |writer| {
            writer.store.note_ends(&writer.tail)?;
            next = writer.retention.step(writer.store.connection(), &writer.committed)?;
            Ok(())
        });
        self.meters.deletion.record(began.elapsed().as_secs_f64());
        match deleted {
            Ok(()) => {
                self.noted = self.tail.seq;
                self.retention.stepped(next);
                self.due.wrote(16);
            }
            Err(failed) => {
                tracing::warn!(error = %failed.error, "the embedded log could not delete old records; it will try again");
                self.retention.postpone(now);
            }
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
