//! Many tasks on their way into the log: those of different keys side by side, those of one key one after another, and none after
//! one that was not accepted.

use super::{
    super::{
        access::Caller,
        admission,
        append::{is_small, not_appended, record, record_at_once},
        door::Door,
        idempotency::{self, Begun},
        intake::too_large,
        problem::{Problem, ProblemCode},
        receive::Received,
        refuse::may_go_on,
    },
    Entry, Refused, Task,
    entries::Entries,
    failed::Failed,
    outbox::Taker,
    results::{Counts, Results},
};
use crate::log::{AppendOutcome, IdempotencyKey, NewRecord, Receipt, Replies};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use partita_core::{Partition, partition_of};
use partita_proto::v1::Envelope;
use prost::Message;
use slab::Slab;
use std::{
    collections::{HashMap, VecDeque, hash_map},
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

/// The most entries of one request that have no result yet.
const OPEN: usize = 1024;
/// What an entry takes beside its bytes and its texts while it waits, about.
const ENTRY: u64 = 512;
/// Entries that are taken before anything else is looked at.
const AT_ONCE: usize = 32;
/// How long it looks at nothing while its sender is slowed down.
const LOOK: Duration = Duration::from_millis(500);
/// After so long with nothing to read, what is answered is given out.
const IDLE: Duration = Duration::from_millis(20);

/// One request's tasks.
pub(super) struct Store<'a> {
    door: &'a Door,
    base: Envelope,
    /// The request's own name.
    idempotency: Option<String>,
    caller: Option<Arc<Caller>>,
    /// The next task is to wait, by its sender's rate.
    is_ahead: bool,
    results: Results,
    /// The tasks that were begun and have no outcome, at most one of each key. Where one is here is its ticket.
    running: Slab<Running>,
    /// Those of them that the log does not have yet: what is large is made ready step by step.
    preparing: FuturesUnordered<LocalBoxFuture<'a, (usize, Result<NewRecord, Problem>)>>,
    replies: Replies,
    /// What was taken out of `replies`, to be gone through.
    arrived: Vec<(usize, AppendOutcome)>,
    /// For each key with a running task, what waits behind it.
    behind: HashMap<Bytes, VecDeque<Waiting>>,
    failed: Failed,
}

/// A task that waits for its turn.
struct Waiting {
    place: u64,
    partition: Partition,
    key: Bytes,
    id: String,
    size: u64,
    name: Option<IdempotencyKey>,
    work: Work,
}

/// What there is of a task.
enum Work {
    /// A small one is made ready when it comes: then nothing is left to do when its turn does.
    Record(NewRecord),
    Payload(Box<(Envelope, Received)>),
}

/// A task that was begun.
struct Running {
    place: u64,
    partition: Partition,
    key: Bytes,
    id: String,
    size: u64,
    begun: Option<Begun>,
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
            is_ahead: false,
            results,
            running: Slab::new(),
            preparing: FuturesUnordered::new(),
            replies: Replies::default(),
            arrived: Vec::new(),
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
        let mut taker = None;
        // Since when there is no memory to go on with.
        let mut waits = None;
        loop {
            let blocked = !self.results.give_out(false);
            if blocked {
                taker.get_or_insert_with(|| Taker::new(self.results.outbox()));
            } else {
                taker = None;
            }
            let is_away = taker.as_mut().is_some_and(|taker| taker.is_away(self.door.body_timeout));
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
                () = next_of(&mut self.replies, &mut self.arrived), if !self.running.is_empty() => {
                    self.settle();
                    pinched = false;
                }
                Some((ticket, record)) = self.preparing.next(), if !self.preparing.is_empty() => {
                    self.prepared(ticket, record);
                    pinched = false;
                }
                next = entries.next(&self.base), if may_read => match self.take_some(next, &mut entries) {
                    Ok(is_more) => (ended, waits) = (!is_more, None),
                    Err(problem) if problem.code == ProblemCode::OutOfMemoryBudget => {
                        pinched = !self.running.is_empty();
                        if pinched {
                            waits = None;
                        } else {
                            ended = !self.find_memory(&problem, &mut entries, &mut waits).await;
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

    /// Leaves out what there is no memory for; nothing of this request is under way, which could give some back. What cannot be left out,
    /// as a window that has no room, is waited for, since `waits`. `false`: for long enough, and it was refused.
    async fn find_memory(
        &mut self,
        problem: &Problem,
        entries: &mut Entries<'_>,
        waits: &mut Option<Instant>,
    ) -> bool {
        if entries.skip(problem.clone()) {
            *waits = None;
            return true;
        }
        let since = *waits.get_or_insert_with(Instant::now);
        if since.elapsed() > self.door.body_timeout || self.door.is_draining() {
            let place = self.results.place();
            self.refuse(place, None, problem);
            return false;
        }
        self.results.give_out(true);
        pause(IDLE).await;
        true
    }

    /// Answers with this alone.
    pub(super) fn give_up(mut self, problem: &Problem) -> Counts {
        let place = self.results.place();
        self.refuse(place, None, problem);
        self.results.finish()
    }

    /// Takes an entry, and some of those after it that are there already. `false`: that was the last.
    fn take_some(
        &mut self,
        first: Result<Option<Entry>, Problem>,
        entries: &mut Entries<'_>,
    ) -> Result<bool, Problem> {
        let is_document = matches!(entries, Entries::Document(_));
        let mut next = Some(first);
        for taken in 1.. {
            match next.transpose()? {
                Some(Some(entry)) => self.take(entry, is_document),
                Some(None) => return Ok(false),
                None => break,
            }
            if taken >= AT_ONCE || self.is_ahead || self.results.open() >= OPEN {
                break;
            }
            // What is not there yet is asked for again, by somebody who waits for it.
            next = entries.next(&self.base).now_or_never();
        }
        Ok(true)
    }

    fn take(&mut self, entry: Entry, is_document: bool) {
        let place = self.results.place();
        match entry.and_then(|task| self.admit(place, task, is_document)) {
            Ok(waiting) => match self.behind.entry(waiting.key.clone()) {
                hash_map::Entry::Occupied(mut behind) => behind.get_mut().push_back(waiting),
                hash_map::Entry::Vacant(behind) => {
                    behind.insert(VecDeque::new());
                    self.start(waiting);
                }
            },
            Err(refused) => {
                let Refused { id, key, problem, size } = *refused;
                if let Some(caller) = self.caller.as_ref().filter(|_| size > 0) {
                    // A document's are not slowed down: what comes next waits.
                    self.is_ahead = caller.charge_task(size, true).unwrap_or(true);
                }
                self.refuse(place, id.as_deref(), &problem);
                match &key {
                    Some(key) => self.failed.insert(key, &self.door.budget),
                    // It may have been of any key, and accepted the next time.
                    None if problem.code == ProblemCode::OutOfMemoryBudget => self.failed.insert_all(),
                    None => {}
                }
            }
        }
    }

    fn admit(&mut self, place: u64, mut task: Box<Task>, is_document: bool) -> Result<Waiting, Box<Refused>> {
        let door = self.door;
        let partition = partition_of(&task.key, door.log.partitions());
        let checked = self.check(&mut task, partition, is_document);
        let Task { key, head, payload } = *task;
        if let Err(problem) = checked {
            return Err(Box::new(Refused { id: id_of(head.id), key: Some(key), problem, size: 0 }));
        }
        let own = self.idempotency.as_deref().map(|name| (name, place));
        let name = idempotency::of_event(&key, &head, own);
        let (id, size) = (head.id.clone(), payload.len());
        let received = Received::plain(payload, None);
        let work = if is_small(&received) {
            Work::Record(record_at_once(door, key.clone(), head, received, name))
        } else {
            Work::Payload(Box::new((head, received)))
        };
        Ok(Waiting { place, partition, key, id, size, name, work })
    }

    fn check(&mut self, task: &mut Task, partition: Partition, is_document: bool) -> Result<(), Problem> {
        let door = self.door;
        if let Some(caller) = &self.caller {
            door.access.look();
            // Also what is refused came. A document is in memory as a whole: what is beyond its sender's rate does not wait there.
            self.is_ahead = caller.charge_task(task.payload.len(), !is_document)?;
            caller.may_use(&task.key)?;
        }
        if self.failed.contains(&task.key) {
            return Err(earlier_failed());
        }
        if task.payload.len() > door.max_task {
            return Err(too_large(door.max_task));
        }
        let health = (door.partition_health)(partition);
        admission::admit(door.is_draining(), (door.log_health)(), health, true)?;
        // Its attributes are memory too, as long as it waits for its turn.
        task.payload.charge(ENTRY + 2 * task.head.encoded_len() as u64)
    }

    /// Begins a task whose key has no other running.
    fn start(&mut self, waiting: Waiting) {
        let Waiting { place, partition, key, id, size, name, work } = waiting;
        let door = self.door;
        let (begun, refusal) = match door.begin(name) {
            Ok(begun) => (begun, None),
            Err(problem) => (None, Some(problem)),
        };
        let running = Running { place, partition, key: key.clone(), id, size, begun };
        if let Some(problem) = refusal {
            return self.done(running, Err(problem));
        }
        let ticket = self.running.insert(running);
        match work {
            Work::Record(record) => self.prepared(ticket, Ok(record)),
            Work::Payload(payload) => {
                let (head, received) = *payload;
                let record = record(door, key, head, received, name);
                self.preparing.push(Box::pin(async move { (ticket, record.await) }));
            }
        }
    }

    /// Gives a record into the log's hands.
    fn prepared(&mut self, ticket: usize, record: Result<NewRecord, Problem>) {
        match record {
            Ok(record) => {
                let partition = self.running[ticket].partition;
                self.door.log.submit(partition, record, self.replies.reply(ticket));
            }
            Err(problem) => {
                let running = self.running.remove(ticket);
                self.done(running, Err(problem));
            }
        }
    }

    /// Goes through the log's replies.
    fn settle(&mut self) {
        let mut arrived = std::mem::take(&mut self.arrived);
        for (ticket, outcome) in arrived.drain(..) {
            let running = self.running.remove(ticket);
            self.done(running, outcome.map_err(not_appended));
        }
        self.arrived = arrived;
    }

    fn done(&mut self, running: Running, answer: Result<Receipt, Problem>) {
        let Running { place, key, id, size, begun, .. } = running;
        // What waits behind it may bear the same name.
        drop(begun);
        let id = id_of(id);
        match answer {
            Ok(receipt) => {
                self.door.meter.stored(size, &receipt);
                self.results.accepted(place, id.as_deref(), receipt);
                match self.behind.get_mut(&key).and_then(VecDeque::pop_front) {
                    Some(next) => self.start(next),
                    None => drop(self.behind.remove(&key)),
                }
            }
            Err(problem) => {
                self.refuse(place, id.as_deref(), &problem);
                self.failed.insert(&key, &self.door.budget);
                for Waiting { place, id, .. } in self.behind.remove(&key).unwrap_or_default() {
                    self.refuse(place, id_of(id).as_deref(), &earlier_failed());
                }
            }
        }
    }

    fn refuse(&mut self, place: u64, id: Option<&str>, problem: &Problem) {
        self.door.meter.not_stored(problem.code);
        self.results.refused(place, id, problem);
    }
}

/// Looks at the clock only where it is waited for.
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Waits for replies, and takes all that have arrived.
async fn next_of(replies: &mut Replies, arrived: &mut Vec<(usize, AppendOutcome)>) {
    poll_fn(|cx| replies.poll_all(cx, arrived)).await;
}

fn id_of(id: String) -> Option<String> {
    (!id.is_empty()).then_some(id)
}

fn earlier_failed() -> Problem {
    Problem::new(
        ProblemCode::EarlierFailed,
        "an earlier task of this key in the batch was not accepted, and this one may not overtake it",
    )
}
