//! Many tasks on their way into the log: those of different keys side by side, those of one key one after another, and none after
//! one that was not accepted.

use super::{
    super::{
        admission,
        append::append,
        door::Door,
        intake::too_large,
        problem::{Problem, ProblemCode},
        receive::Received,
    },
    Entry, Task,
    document::Document,
    lines::Lines,
    results::{Counts, Gone, Results},
};
use crate::{log::Receipt, memory::Reservation};
use bytes::Bytes;
use futures_util::{StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use partita_core::partition_of;
use partita_proto::v1::{Compression, Envelope};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
};

/// The most entries of one request that have no result yet.
const OPEN: usize = 1024;
/// Memory for keys whose tasks are refused is reserved in steps of so many.
const FAILED_STEP: usize = 1024;
/// What one takes, in a set that is half full.
const FAILED_BYTES: u64 = 32;

/// Where the entries come from.
pub(super) enum Entries<'a> {
    Document(Document),
    Lines(Lines<'a>),
}

/// One request's tasks.
pub(super) struct Store<'a> {
    door: &'a Door,
    base: Envelope,
    results: Results,
    running: FuturesUnordered<LocalBoxFuture<'a, Done>>,
    /// For each key with a task in the log's hands, what waits behind it.
    behind: HashMap<Bytes, VecDeque<Waiting>>,
    failed: Failed,
}

struct Waiting {
    place: u64,
    task: Task,
}

/// What became of a task.
struct Done {
    place: u64,
    key: Bytes,
    id: String,
    size: u64,
    answer: Result<Receipt, Problem>,
}

impl<'a> Store<'a> {
    pub(super) fn new(door: &'a Door, base: Envelope, results: Results) -> Self {
        Self {
            door,
            base,
            results,
            running: FuturesUnordered::new(),
            behind: HashMap::new(),
            failed: Failed::default(),
        }
    }

    /// Stores them all and answers each.
    pub(super) async fn run(mut self, mut entries: Entries<'_>) -> Result<Counts, Gone> {
        let mut ended = false;
        // There was no memory for the next entry.
        let mut pinched = false;
        loop {
            let may_read = !ended && !pinched && self.results.open() < OPEN && !self.results.is_gone();
            let next = tokio::select! {
                biased;
                Some(done) = self.running.next(), if !self.running.is_empty() => {
                    self.done(done);
                    pinched = false;
                    None
                }
                next = entries.next(&self.base), if may_read => Some(next),
                else => break,
            };
            match next {
                None => {}
                Some(Ok(Some(entry))) => self.take(entry),
                Some(Ok(None)) => ended = true,
                Some(Err(problem)) if problem.code == ProblemCode::OutOfMemoryBudget => {
                    pinched = !self.running.is_empty();
                    if !pinched {
                        entries.skip(problem);
                    }
                }
                Some(Err(problem)) => {
                    let place = self.results.place();
                    self.refuse(place, None, &problem);
                    entries.drain().await;
                    ended = true;
                }
            }
            self.results.give_out(self.door.body_timeout).await?;
        }
        if self.results.is_gone() {
            return Err(Gone);
        }
        self.results.finish(self.door.body_timeout).await
    }

    /// Answers with this alone.
    pub(super) async fn give_up(mut self, problem: &Problem) -> Result<Counts, Gone> {
        let place = self.results.place();
        self.refuse(place, None, problem);
        self.results.finish(self.door.body_timeout).await
    }

    fn take(&mut self, entry: Entry) {
        let Entry { id, key, task } = entry;
        let place = self.results.place();
        let failed = key.as_ref().is_some_and(|key| self.failed.contains(key));
        let task = match task {
            Ok(_) if failed => Err(earlier_failed()),
            task => task.and_then(|task| self.admit(task)),
        };
        match task {
            Err(problem) => {
                self.refuse(place, id.as_deref(), &problem);
                if let Some(key) = &key {
                    self.failed.insert(key, self.door);
                }
            }
            Ok(task) => match self.behind.get_mut(&task.key) {
                Some(behind) => behind.push_back(Waiting { place, task }),
                None => self.start(place, task),
            },
        }
    }

    fn admit(&self, task: Task) -> Result<Task, Problem> {
        let door = self.door;
        let max_task = door.max_task;
        if task.payload.len() > max_task {
            return Err(too_large(max_task));
        }
        let partition = partition_of(&task.key, door.log.partitions());
        let health = (door.partition_health)(partition);
        admission::admit(door.is_draining(), (door.log_health)(), health, true).map(|()| task)
    }

    fn start(&mut self, place: u64, task: Task) {
        let Task { key, head, payload } = task;
        self.behind.insert(key.clone(), VecDeque::new());
        let door = self.door;
        self.running.push(Box::pin(async move {
            let (id, size) = (head.id.clone(), payload.len());
            let received = Received { intake: payload, compression: Compression::None, size };
            let partition = partition_of(&key, door.log.partitions());
            let answer = append(door, partition, key.clone(), head, received).await;
            Done { place, key, id, size, answer }
        }));
    }

    fn done(&mut self, done: Done) {
        let Done { place, key, id, size, answer } = done;
        let id = (!id.is_empty()).then_some(id);
        let behind = self.behind.remove(&key).unwrap_or_default();
        match answer {
            Ok(receipt) => {
                self.door.meter.stored(size);
                self.results.accepted(place, id.as_deref(), receipt);
                self.go_on(behind);
            }
            Err(problem) => {
                self.refuse(place, id.as_deref(), &problem);
                self.failed.insert(&key, self.door);
                for Waiting { place, task } in behind {
                    let id = (!task.head.id.is_empty()).then_some(task.head.id);
                    self.refuse(place, id.as_deref(), &earlier_failed());
                }
            }
        }
    }

    fn go_on(&mut self, mut behind: VecDeque<Waiting>) {
        if let Some(Waiting { place, task }) = behind.pop_front() {
            let key = task.key.clone();
            self.start(place, task);
            self.behind.insert(key, behind);
        }
    }

    fn refuse(&mut self, place: u64, id: Option<&str>, problem: &Problem) {
        self.door.meter.not_stored(problem.code);
        self.results.refused(place, id, problem);
    }
}

impl Entries<'_> {
    async fn next(&mut self, base: &Envelope) -> Result<Option<Entry>, Problem> {
        match self {
            Self::Document(document) => document.next(base),
            Self::Lines(lines) => lines.next(base).await,
        }
    }

    /// Lets a sender whose body cannot be read any further come to its end.
    async fn drain(&mut self) {
        if let Self::Lines(lines) = self {
            lines.drain().await;
        }
    }

    fn skip(&mut self, problem: Problem) {
        match self {
            Self::Document(document) => document.skip(problem),
            Self::Lines(lines) => lines.skip(problem),
        }
    }
}

/// The keys of which a task was not accepted, as hashes: two keys that share one share their fate, which is to be sent again.
#[derive(Default)]
struct Failed {
    hasher: RandomState,
    keys: HashSet<u64>,
    reservation: Option<Reservation>,
    /// There was no memory to remember one: no key is free of suspicion.
    all: bool,
}

impl Failed {
    fn contains(&self, key: &[u8]) -> bool {
        self.all || self.keys.contains(&self.hasher.hash_one(key))
    }

    fn insert(&mut self, key: &[u8], door: &Door) {
        if self.keys.len().is_multiple_of(FAILED_STEP) && !self.reserve(door) {
            self.all = true;
        } else {
            self.keys.insert(self.hasher.hash_one(key));
        }
    }

    fn reserve(&mut self, door: &Door) -> bool {
        let more = FAILED_STEP as u64 * FAILED_BYTES;
        match &mut self.reservation {
            Some(reservation) => door.budget.grow(reservation, more).is_ok(),
            none => door.budget.reserve(more).map(|reservation| *none = Some(reservation)).is_ok(),
        }
    }
}

fn earlier_failed() -> Problem {
    Problem::new(
        ProblemCode::EarlierFailed,
        "an earlier task of this key in the batch was not accepted, and this one may not overtake it",
    )
}
