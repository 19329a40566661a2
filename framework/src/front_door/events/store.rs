//! Many tasks on their way into the log: those of different keys side by side, those of one key one after another, and none after
//! one that was not accepted.

use super::{
    super::{
        access::Caller,
        admission,
        append::append,
        door::Door,
        idempotency,
        intake::too_large,
        problem::{Problem, ProblemCode},
        receive::Received,
        refuse::may_go_on,
    },
    Entry, Task,
    document::Document,
    failed::Failed,
    lines::Lines,
    outbox::Outbox,
    results::{Counts, Results},
};
use crate::log::Receipt;
use bytes::Bytes;
use futures_util::{StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use partita_core::partition_of;
use partita_proto::v1::Envelope;
use prost::Message;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// The most entries of one request that have no result yet.
const OPEN: usize = 1024;
/// How long it looks at nothing while its sender is slowed down.
const LOOK: Duration = Duration::from_millis(500);
/// After so long with nothing to read, what is answered is given out.
const IDLE: Duration = Duration::from_millis(20);

/// Where the entries come from.
pub(super) enum Entries<'a> {
    Document(Document),
    Lines(Lines<'a>),
}

/// One request's tasks.
pub(super) struct Store<'a> {
    door: &'a Door,
    base: Envelope,
    /// The request's own name.
    idempotency: Option<String>,
    caller: Option<Arc<Caller>>,
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
    pub(super) fn new(
        door: &'a Door,
        base: Envelope,
        idempotency: Option<String>,
        caller: Option<Arc<Caller>>,
        results: Results,
    ) -> Self {
        Self {
            door,
            base,
            idempotency,
            caller,
            results,
            running: FuturesUnordered::new(),
            behind: HashMap::new(),
            failed: Failed::default(),
        }
    }

    /// Stores them all and answers each; `None` where nobody takes the answer any more.
    pub(super) async fn run(mut self, mut entries: Entries<'_>) -> Option<Counts> {
        let mut ended = false;
        // There was no memory for the next entry.
        let mut pinched = false;
        // Whoever is to take the answer, while there is too much of it.
        let mut reader = None;
        loop {
            let blocked = !self.results.give_out(false);
            if blocked {
                reader.get_or_insert_with(|| Reader::new(self.results.outbox()));
            } else {
                reader = None;
            }
            let is_away = reader.as_mut().is_some_and(|reader| reader.is_away(self.door.body_timeout));
            if is_away || self.results.outbox().is_gone() {
                return None;
            }
            // Whoever sends many tasks at once is slowed down to his rate.
            let ahead = match entries {
                Entries::Lines(_) if !self.door.is_draining() => {
                    self.caller.as_ref().and_then(|caller| caller.wait())
                }
                _ => None,
            };
            let may_read = !ended && !pinched && !blocked && ahead.is_none() && self.results.open() < OPEN;
            if !may_read && !blocked && self.running.is_empty() && ended {
                return Some(self.results.finish());
            }
            tokio::select! {
                biased;
                Some(done) = self.running.next(), if !self.running.is_empty() => {
                    self.done(done);
                    pinched = false;
                }
                next = entries.next(&self.base), if may_read => match next {
                    Ok(Some(entry)) => self.take(entry, matches!(entries, Entries::Document(_))),
                    Ok(None) => ended = true,
                    Err(problem) if problem.code == ProblemCode::OutOfMemoryBudget => {
                        pinched = !self.running.is_empty();
                        if !pinched {
                            entries.skip(problem);
                        }
                    }
                    Err(problem) => {
                        let place = self.results.place();
                        self.refuse(place, None, &problem);
                        if may_go_on(problem.code) {
                            entries.drain().await;
                        }
                        ended = true;
                    }
                },
                () = pause(ahead.unwrap_or_default().min(LOOK)), if ahead.is_some() && !ended => {}
                // Whoever waits for its results before it goes on hears them, and who was waited for is looked at again.
                () = pause(IDLE), if blocked || self.results.is_waiting() => {
                    self.results.give_out(true);
                }
            }
        }
    }

    /// Answers with this alone.
    pub(super) fn give_up(mut self, problem: &Problem) -> Counts {
        let place = self.results.place();
        self.refuse(place, None, problem);
        self.results.finish()
    }

    fn take(&mut self, entry: Entry, is_document: bool) {
        let Entry { id, key, task } = entry;
        let place = self.results.place();
        let failed = key.as_ref().is_some_and(|key| self.failed.contains(key));
        let task = match task {
            Ok(_) if failed => Err(earlier_failed()),
            // A document is in memory as a whole: what is beyond its sender's rate does not wait there.
            Ok(task) if is_document => {
                let checked = self.caller.as_ref().map_or(Ok(()), |caller| caller.check());
                checked.and_then(|()| self.admit(task))
            }
            task => task.and_then(|task| self.admit(task)),
        };
        match task {
            Err(problem) => {
                self.refuse(place, id.as_deref(), &problem);
                match &key {
                    Some(key) => self.failed.insert(key, &self.door.budget),
                    // It may have been of any key, and accepted the next time.
                    None if problem.code == ProblemCode::OutOfMemoryBudget => self.failed.insert_all(),
                    None => {}
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
        if let Some(caller) = &self.caller {
            // Also what is refused came.
            caller.charge_task(task.payload.len());
            caller.may_use(&task.key)?;
        }
        if task.payload.len() > max_task {
            return Err(too_large(max_task));
        }
        let partition = partition_of(&task.key, door.log.partitions());
        let health = (door.partition_health)(partition);
        admission::admit(door.is_draining(), (door.log_health)(), health, true)?;
        // Its attributes are memory too, as long as it waits for its turn.
        let mut task = task;
        task.payload.charge(2 * task.head.encoded_len() as u64)?;
        Ok(task)
    }

    fn start(&mut self, place: u64, task: Task) {
        let Task { key, head, payload } = task;
        self.behind.insert(key.clone(), VecDeque::new());
        let door = self.door;
        let own = self.idempotency.as_deref().map(|name| (name, place));
        let begun = door.begin(idempotency::of_event(&key, &head, own));
        self.running.push(Box::pin(async move {
            let (id, size) = (head.id.clone(), payload.len());
            let received = Received::plain(payload, None);
            let partition = partition_of(&key, door.log.partitions());
            let answer = match begun {
                Ok(begun) => append(door, partition, key.clone(), head, received, begun).await,
                Err(problem) => Err(problem),
            };
            Done { place, key, id, size, answer }
        }));
    }

    fn done(&mut self, done: Done) {
        let Done { place, key, id, size, answer } = done;
        let id = (!id.is_empty()).then_some(id);
        let behind = self.behind.remove(&key).unwrap_or_default();
        match answer {
            Ok(receipt) => {
                self.door.meter.stored(size, &receipt);
                self.results.accepted(place, id.as_deref(), receipt);
                self.go_on(behind);
            }
            Err(problem) => {
                self.refuse(place, id.as_deref(), &problem);
                self.failed.insert(&key, &self.door.budget);
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
            Self::Document(document) => document.next(base).await,
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

/// Whoever is to take the answer, and since when it has taken nothing.
struct Reader {
    outbox: Outbox,
    taken: u64,
    since: Instant,
}

impl Reader {
    fn new(outbox: &Outbox) -> Self {
        Self { outbox: outbox.clone(), taken: outbox.taken(), since: Instant::now() }
    }

    fn is_away(&mut self, patience: Duration) -> bool {
        if self.outbox.taken() != self.taken {
            *self = Self::new(&self.outbox.clone());
        }
        self.since.elapsed() > patience
    }
}

/// Looks at the clock only where it is waited for.
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

fn earlier_failed() -> Problem {
    Problem::new(
        ProblemCode::EarlierFailed,
        "an earlier task of this key in the batch was not accepted, and this one may not overtake it",
    )
}
