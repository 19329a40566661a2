//! The parked tasks of one assignment of one partition, as everybody sees them: its runner changes them, the supervisor commits
//! their mark, operators list them and ask for what is to become of them.

use crate::{
    log::journal::Meaning,
    memory::{MemoryPool, Reservation},
};
use bytes::Bytes;
use partita_core::{Entry, Epoch, Mark, Offset, ParkReason, Parking, Position, Verdict};
use partita_proto::v1::Parked;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::sync::{Notify, oneshot};

/// What of a reason is kept in memory, in bytes.
const REASON_BYTES: usize = 256;

/// What a parked key takes in memory, its first task's reason included, and what each of its tasks takes.
const KEY_BYTES: u64 = 1280;
const TASK_BYTES: u64 = 112;

/// See the module.
pub(crate) struct ParkedTasks {
    state: Mutex<State>,
    index: MemoryPool,
    /// What reading the journal begins with.
    origin: (Mark, Offset),
    /// Nothing is parked and nothing comes again: no task has to be looked at.
    quiet: AtomicBool,
    drops: Mutex<VecDeque<DropOrder>>,
    /// There may be something to redrive or to drop.
    requests: AtomicBool,
    asked: Notify,
    /// The mark that has the claim is committed.
    confirmed: AtomicBool,
}

struct State {
    parking: Parking<Bytes>,
    /// Why a task was parked that was not parked behind another.
    causes: BTreeMap<Offset, Cause>,
    /// The keys that are being redriven.
    redriving: BTreeSet<Bytes>,
    /// Where the journal ended when the partition was assigned, as long as nothing was added since.
    known_end: Option<Position>,
    /// The journal was read.
    ready: bool,
    /// For what is known, and the next task that may have to be parked; `None` where that is nothing.
    memory: Option<Reservation>,
    /// Whether there is room for that one.
    roomy: bool,
}

/// Why a task is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// As the metric's label has it.
    pub(crate) label: String,
    /// For people.
    pub(crate) reason: String,
    /// How often it was tried.
    pub(crate) attempts: u32,
    /// When, in milliseconds since the Unix epoch.
    pub(crate) parked_at_ms: u64,
}

impl Cause {
    pub(crate) fn of(note: &Parked) -> Self {
        Self::new(&note.cause, &note.reason, note.attempts, note.parked_at_ms)
    }

    /// Keeps as much of the reason as there is memory for.
    pub(crate) fn new(label: &str, reason: &str, attempts: u32, parked_at_ms: u64) -> Self {
        let reason = reason[..reason.floor_char_boundary(REASON_BYTES)].to_owned();
        Self { label: label.to_owned(), reason, attempts, parked_at_ms }
    }
}

/// A parked task as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) key: Bytes,
    pub(crate) offset: Offset,
    pub(crate) entry: Entry,
    /// `None`: it waits behind an earlier one of its key.
    pub(crate) cause: Option<Cause>,
    pub(crate) redriving: bool,
}

/// Which parked tasks are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All.
    All,
    /// Those of a key.
    Key(Bytes),
    /// One.
    One(Offset),
}

/// Parked tasks that an operator gives up.
pub(crate) struct DropOrder {
    pub(crate) selection: Selection,
    pub(crate) reason: String,
    /// How many were given up.
    pub(crate) answer: oneshot::Sender<u64>,
}

impl ParkedTasks {
    /// What is known at the start of an assignment: the journal is to be read from `mark` on.
    /// Memory for it comes out of `index`.
    pub(crate) fn new(mark: Mark, start: Offset, known_end: Option<Position>, index: MemoryPool) -> Self {
        let mark = match known_end {
            Some(end) if end < mark.from => {
                tracing::error!(
                    end = end.0,
                    expected = mark.from.0,
                    "the parking journal ends before where it was last read: it was made again, or has lost its end. It is read from its beginning"
                );
                Mark::default()
            }
            _ => mark,
        };
        let state = State {
            parking: Parking::new(mark.clone(), start),
            causes: BTreeMap::new(),
            redriving: BTreeSet::new(),
            known_end,
            ready: false,
            memory: None,
            roomy: false,
        };
        Self {
            index,
            origin: (mark, start),
            state: Mutex::new(state),
            quiet: AtomicBool::new(false),
            drops: Mutex::default(),
            requests: AtomicBool::new(false),
            asked: Notify::new(),
            confirmed: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic half-way runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        self.quiet.store(state.ready && state.parking.is_empty(), Relaxed);
        let needed = state.needed();
        if needed == 0 {
            state.memory = None;
        } else if let Some(memory) = &mut state.memory {
            memory.shrink_to(needed);
        }
        result
    }

    /// Sees to it that one more task may be parked. Where it says no there is no memory to know it in: until some are redriven or dropped,
    /// here or in another partition.
    pub(crate) fn make_room(&self) -> bool {
        let mut state = self.state();
        state.roomy = true;
        state.roomy = state.reserve(&self.index);
        state.roomy
    }

    /// Whether something is parked, and there is no room for one more.
    pub(crate) fn is_crowded(&self) -> bool {
        !self.is_quiet() && self.state().parking.parked_tasks() > 0 && !self.make_room()
    }

    /// Whether nothing is parked and nothing comes again.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet.load(Relaxed)
    }

    /// Where the journal is to be read from; `None` where nothing of it is unread.
    pub(crate) fn unread(&self) -> Option<Position> {
        let state = self.state();
        let from = state.parking.unread();
        (!state.ready && state.known_end.is_none_or(|end| end > from)).then_some(from)
    }

    /// Takes a record of the journal. Where it says no there is no memory for what is parked, and `begin_again` is to follow.
    #[must_use]
    pub(crate) fn read(&self, position: Position, key: &Bytes, meaning: &Meaning) -> bool {
        let Meaning { epoch, offset, noted, note } = meaning;
        // The page's buffer is not to be kept for a key.
        let key = Bytes::copy_from_slice(key);
        self.change(|state| {
            state.parking.read(position, *epoch, key.clone(), *offset, *noted);
            state.told(&key, *offset, Cause::of(note));
            state.reserve(&self.index)
        })
    }

    /// Forgets what was read, and gives its memory back: others may need it to get as far as to make room.
    pub(crate) fn begin_again(&self) {
        let (mark, start) = self.origin.clone();
        self.change(|state| {
            state.parking = Parking::new(mark, start);
            state.causes.clear();
        });
    }

    /// The journal is read up to `end`. Returns the epoch that this owner's records carry.
    pub(crate) fn claim(&self, end: Position, epoch: Epoch) -> Epoch {
        self.change(|state| {
            let end = state.known_end.map_or(end, |known| known.max(end));
            state.ready = true;
            state.parking.claim(end, epoch)
        })
    }

    /// An offset of this assignment is committed, with its mark.
    pub(crate) fn confirm(&self) {
        self.confirmed.store(self.is_ready(), Relaxed);
    }

    /// Whether the claim is committed.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.load(Relaxed)
    }

    /// Whether the journal has been read.
    pub(crate) fn is_ready(&self) -> bool {
        self.state().ready
    }

    /// What becomes of the next task from the task topic.
    pub(crate) fn judge(&self, key: &Bytes, offset: Offset) -> Verdict {
        if self.is_quiet() { Verdict::Run } else { self.state().parking.judge(key, offset) }
    }

    /// Every task before `next` has ended.
    pub(crate) fn passed(&self, next: Offset) {
        if !self.is_quiet() {
            self.state().parking.passed(next);
        }
    }

    /// The journal has a task that came from the task topic.
    pub(crate) fn parked(&self, key: &Bytes, offset: Offset, entry: Entry, cause: Cause) {
        let key = Bytes::copy_from_slice(key);
        self.change(|state| {
            state.parking.parked(key.clone(), offset, entry);
            state.parking.passed(offset.next());
            state.roomy = false;
            state.told(&key, offset, cause);
        });
    }

    /// The journal has the end of a task, parked or not.
    pub(crate) fn closed(&self, key: &Bytes, offset: Offset, position: Position, epoch: Epoch) {
        self.change(|state| {
            state.parking.closed(key, offset, position, epoch);
            state.causes.remove(&offset);
            if state.parking.of(key).is_none() {
                state.redriving.remove(key);
            }
            state.roomy &= state.parking.parked_tasks() > 0;
        });
    }

    /// A redriven task failed again: its key stays parked.
    pub(crate) fn failed_again(&self, key: &Bytes, offset: Offset, cause: Cause) {
        self.change(|state| {
            state.told(key, offset, cause);
            state.redriving.remove(key);
        });
    }

    /// The mark to commit with this offset.
    pub(crate) fn mark(&self, committable: Offset) -> Mark {
        self.change(|state| match state.ready {
            true => state.parking.mark(committable),
            // A former actor's offset: what is not read yet may still need what this would forget.
            false => state.parking.mark_for(committable),
        })
    }

    /// The task that is to be redriven next. What comes before it in its key may still have to be delivered again: then another key's.
    pub(crate) fn next_to_redrive(&self) -> Option<(Bytes, Offset, Entry)> {
        let mut state = self.state();
        let State { redriving, parking, .. } = &mut *state;
        redriving.retain(|key| parking.of(key).is_some());
        // In the order of the journal, which is read from front to back then.
        let next = redriving.iter().filter_map(|key| {
            let (offset, entry) = parking.redrivable(key)?;
            Some((key, offset, entry))
        });
        next.min_by_key(|(.., entry)| entry.position).map(|(key, offset, entry)| (key.clone(), offset, entry))
    }

    /// The next order to give tasks up.
    pub(crate) fn next_drop(&self) -> Option<DropOrder> {
        self.drops.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Whether there may be something to redrive or to drop; says so once, unless `has_more`.
    pub(crate) fn take_requests(&self) -> bool {
        self.requests.load(Relaxed) && self.requests.swap(false, Relaxed)
    }

    /// There is more to redrive.
    pub(crate) fn has_more(&self) {
        if !self.state().redriving.is_empty() {
            self.requests.store(true, Relaxed);
        }
    }

    fn ask(&self) {
        self.requests.store(true, Relaxed);
        self.asked.notify_one();
    }

    /// Returns when an operator has asked for something.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// The parked tasks that are meant, in order of their keys and offsets.
    pub(crate) fn select(&self, selection: &Selection) -> Vec<Listed> {
        let state = self.state();
        let of_key = |key: &Bytes| {
            let redriving = state.redriving.contains(key);
            let listed = |(&offset, &entry): (&Offset, &Entry)| Listed {
                key: key.clone(),
                offset,
                entry,
                cause: state.causes.get(&offset).cloned(),
                redriving,
            };
            state.parking.of(key).into_iter().flatten().map(listed).collect::<Vec<_>>()
        };
        match selection {
            Selection::Key(key) => of_key(key),
            Selection::All => state.parking.keys().flat_map(|(key, _)| of_key(key)).collect(),
            Selection::One(wanted) => {
                let key = state.parking.keys().find(|(_, tasks)| tasks.contains_key(wanted));
                let mut found = key.map(|(key, _)| of_key(key)).unwrap_or_default();
                found.retain(|task| task.offset == *wanted);
                found
            }
        }
    }

    /// Asks for the keys of a selection to be redriven. Says how many keys and tasks that are.
    pub(crate) fn redrive(&self, selection: &Selection) -> (u64, u64) {
        let (mut keys, mut tasks) = (0, 0);
        let mut state = self.state();
        let wanted: Vec<Bytes> = match selection {
            Selection::Key(key) => state.parking.of(key).map(|_| key.clone()).into_iter().collect(),
            Selection::All | Selection::One(_) => state.parking.keys().map(|(key, _)| key.clone()).collect(),
        };
        for key in wanted {
            let count = state.parking.of(&key).map_or(0, BTreeMap::len) as u64;
            if let Selection::One(offset) = selection
                && state.parking.get(&key, *offset).is_none()
            {
                continue;
            }
            (keys, tasks) = (keys + 1, tasks + count);
            state.redriving.insert(key);
        }
        drop(state);
        self.ask();
        (keys, tasks)
    }

    /// Asks for tasks to be given up. The answer comes when the journal has it; it does not where the assignment ends before.
    pub(crate) fn drop_tasks(&self, selection: Selection, reason: String) -> oneshot::Receiver<u64> {
        let (answer, answered) = oneshot::channel();
        let order = DropOrder { selection, reason, answer };
        self.drops.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
        self.ask();
        answered
    }

    /// How many keys and tasks are parked.
    pub(crate) fn count(&self) -> (u64, u64) {
        let state = self.state();
        (state.parking.parked_keys() as u64, state.parking.parked_tasks() as u64)
    }
}

impl State {
    /// What is to be reserved. The next task may be of a key of its own.
    fn needed(&self) -> u64 {
        let (keys, tasks) = (self.parking.parked_keys() as u64, self.parking.parked_tasks() as u64);
        let one = u64::from(self.roomy);
        (keys + one) * KEY_BYTES + (tasks + one) * TASK_BYTES
    }

    /// Reserves what is needed, or says that it cannot be had.
    fn reserve(&mut self, index: &MemoryPool) -> bool {
        let needed = self.needed();
        match &mut self.memory {
            Some(memory) => needed <= memory.bytes() || memory.try_grow(needed - memory.bytes()),
            None if needed == 0 => true,
            memory => {
                *memory = index.try_reserve(needed);
                memory.is_some()
            }
        }
    }

    /// Keeps a cause, unless the task is not parked or only waits behind another.
    fn told(&mut self, key: &Bytes, offset: Offset, cause: Cause) {
        if self.parking.get(key, offset).is_some() {
            if cause.label != ParkReason::Behind.label() {
                self.causes.insert(offset, cause);
            }
        } else {
            self.causes.remove(&offset);
        }
    }
}

impl std::fmt::Debug for ParkedTasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParkedTasks").field("count", &self.count()).finish_non_exhaustive()
    }
}
