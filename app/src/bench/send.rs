//! Sends the tasks: each client has keys of its own and sends a key's next task only when the last one has its end.

use super::{
    ledger::{End, Entry, Ledger},
    payload::{Maker, Payload},
};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use rand::RngExt;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

/// The answer to one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The task is durable.
    Acknowledged {
        /// The receipt.
        partition: u32,
        /// The receipt.
        offset: u64,
    },
    /// It was not stored; trying again is right.
    NotWritten {
        /// The status or error, for the table.
        what: String,
        /// When the other side said to try again.
        after: Option<Duration>,
    },
    /// It was not stored and never will be.
    Refused {
        /// The status, for the table.
        what: String,
    },
    /// Nobody knows; trying again may make a copy.
    Unknown {
        /// The status or error, for the table.
        what: String,
    },
}

/// Where tasks go.
pub(crate) trait Sink {
    /// Tries once.
    fn send(&mut self, key: &str, payload: &Payload) -> impl Future<Output = Attempt>;
}

/// How much is sent, how fast, and how long one task is tried.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Stop after so many tasks.
    pub(crate) tasks: u64,
    /// Stop after so long.
    pub(crate) duration: Option<Duration>,
    /// Tasks a second, whatever the answers take. None: each client sends when it has its answer.
    pub(crate) rate: Option<f64>,
    /// Clients at once.
    pub(crate) clients: u32,
    /// Keys, shared out among the clients.
    pub(crate) keys: u32,
    /// How long one task is tried before it is given up.
    pub(crate) give_up: Duration,
}

/// What sending showed.
pub(crate) struct Sent {
    /// Every task and its end.
    pub(crate) ledger: Ledger,
    /// Microseconds from the time a task was due to its acknowledgement, retries included.
    pub(crate) acknowledgement: Histogram<u64>,
    /// Every answer and error by name.
    pub(crate) statuses: BTreeMap<String, u64>,
    /// Tasks acknowledged, refused or given up as not written, unknown.
    pub(crate) acknowledged: u64,
    /// Bytes of the acknowledged payloads.
    pub(crate) bytes: u64,
    /// Definitely not stored.
    pub(crate) not_written: u64,
    /// Given up with an unknown outcome.
    pub(crate) unknown: u64,
    /// Attempts that were repeated.
    pub(crate) retries: u64,
    /// From the first attempt to the last end.
    pub(crate) elapsed: Duration,
}

struct Shared {
    plan: Plan,
    maker: Maker,
    started: Instant,
    tickets: Cell<u64>,
    sent: RefCell<Sent>,
    progress: ProgressBar,
}

/// Sends everything. `sinks` are the clients; runs them all on this thread.
pub(crate) async fn send_all<S: Sink + 'static>(
    plan: Plan,
    maker: Maker,
    sinks: Vec<S>,
    progress: ProgressBar,
) -> Sent {
    let sent = Sent {
        ledger: Ledger::new(plan.keys),
        acknowledgement: histogram(),
        statuses: BTreeMap::new(),
        acknowledged: 0,
        bytes: 0,
        not_written: 0,
        unknown: 0,
        retries: 0,
        elapsed: Duration::ZERO,
    };
    let started = Instant::now();
    let shared =
        Rc::new(Shared { plan, maker, started, tickets: Cell::new(0), sent: RefCell::new(sent), progress });
    let local = tokio::task::LocalSet::new();
    for (client, sink) in sinks.into_iter().enumerate() {
        local.spawn_local(client_loop(shared.clone(), client as u32, sink));
    }
    local.await;
    match Rc::try_unwrap(shared) {
        Ok(shared) => {
            let mut sent = shared.sent.into_inner();
            sent.elapsed = started.elapsed();
            sent
        }
        Err(_) => unreachable!("every client has ended and dropped its share"),
    }
}

/// One microsecond to an hour, within one part in a thousand.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are valid")
}

async fn client_loop<S: Sink>(shared: Rc<Shared>, client: u32, mut sink: S) {
    let plan = &shared.plan;
    let keys: Vec<(u32, String)> = (client..plan.keys)
        .step_by(plan.clients as usize)
        .map(|key| (key, shared.maker.key_name(key)))
        .collect();
    for (key, name) in keys.iter().cycle() {
        let Some(due) = shared.next_ticket().await else { return };
        let sequence = shared.sent.borrow().ledger.next_sequence(*key);
        let payload = shared.maker.payload(*key, sequence, unix_micros());
        let entry = shared.send_task(&mut sink, name, &payload).await;
        shared.note(*key, entry, &payload, due);
    }
}

impl Shared {
    /// Waits until the next task is due; None when there is no more to send. Answers when it was due.
    async fn next_ticket(&self) -> Option<Instant> {
        let ticket = self.tickets.get();
        let out_of_time = self.plan.duration.is_some_and(|limit| self.started.elapsed() >= limit);
        if ticket >= self.plan.tasks || out_of_time {
            return None;
        }
        self.tickets.set(ticket + 1);
        let Some(rate) = self.plan.rate else { return Some(Instant::now()) };
        let due = self.started + Duration::from_secs_f64(ticket as f64 / rate);
        if due <= Instant::now() {
            // Every client was waiting for an answer when this was due: that wait counts.
            return Some(due);
        }
        tokio::time::sleep_until(due.into()).await;
        // A free client that the timer woke late is this program's delay, not the server's.
        Some(Instant::now())
    }

    async fn send_task(&self, sink: &mut impl Sink, key: &str, payload: &Payload) -> Entry {
        let begun = Instant::now();
        let mut doubtful = 0;
        for attempt in 0_u32.. {
            let (what, after) = match sink.send(key, payload).await {
                Attempt::Acknowledged { partition, offset } => {
                    self.count("202");
                    return Entry { end: End::Acknowledged { partition, offset }, doubtful };
                }
                Attempt::Refused { what } => {
                    self.count(&what);
                    break;
                }
                Attempt::NotWritten { what, after } => (what, after),
                Attempt::Unknown { what } => {
                    doubtful += 1;
                    (what, None)
                }
            };
            self.count(&what);
            if begun.elapsed() >= self.plan.give_up {
                break;
            }
            self.sent.borrow_mut().retries += 1;
            tokio::time::sleep(pause(attempt, after)).await;
        }
        Entry { end: if doubtful > 0 { End::Unknown } else { End::NotWritten }, doubtful }
    }

    fn count(&self, what: &str) {
        let mut sent = self.sent.borrow_mut();
        match sent.statuses.get_mut(what) {
            Some(count) => *count += 1,
            None => {
                sent.statuses.insert(what.to_owned(), 1);
            }
        }
    }

    fn note(&self, key: u32, entry: Entry, payload: &Payload, due: Instant) {
        let mut sent = self.sent.borrow_mut();
        match entry.end {
            End::Acknowledged { .. } => {
                sent.acknowledged += 1;
                sent.bytes += payload.len() as u64;
                sent.acknowledgement.saturating_record(due.elapsed().as_micros() as u64);
            }
            End::NotWritten => sent.not_written += 1,
            End::Unknown => sent.unknown += 1,
        }
        sent.ledger.note(key, entry);
        // A progress bar reads the clock: not for every task.
        let ended = sent.acknowledged + sent.not_written + sent.unknown;
        if ended.is_multiple_of(64) || payload.len() > 1 << 20 {
            self.progress.set_position(ended);
        }
    }
}

/// The wait before the next attempt: what the other side asked for, else doubling from 10 ms to 1 s, with jitter.
fn pause(attempt: u32, after: Option<Duration>) -> Duration {
    let longest = after.unwrap_or(Duration::from_millis(10 << attempt.min(7))).min(Duration::from_secs(5));
    longest.mul_f64(rand::rng().random_range(0.5..1.0))
}

/// Microseconds since the Unix epoch.
pub(crate) fn unix_micros() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::payload::{Fill, Identity, Sizes};

    /// Answers the first attempts of each task with doubt, then acknowledges.
    struct Doubtful {
        seen: Rc<RefCell<Vec<Identity>>>,
        doubts: u32,
        left: u32,
    }

    impl Sink for Doubtful {
        async fn send(&mut self, _: &str, payload: &Payload) -> Attempt {
            tokio::task::yield_now().await;
            if self.left > 0 {
                self.left -= 1;
                return Attempt::Unknown { what: "504".into() };
            }
            self.left = self.doubts;
            let mut seen = self.seen.borrow_mut();
            seen.push(Identity::read(&payload.header).unwrap());
            Attempt::Acknowledged { partition: 0, offset: seen.len() as u64 }
        }
    }

    fn run(plan: Plan, doubts: u32) -> (Sent, Vec<Identity>) {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let sinks =
            (0..plan.clients).map(|_| Doubtful { seen: seen.clone(), doubts, left: doubts }).collect();
        let maker = Maker::new(1, Sizes::parse("100B..1KB").unwrap(), Fill::Random);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let sent = runtime.block_on(send_all(plan, maker, sinks, ProgressBar::hidden()));
        (sent, Rc::try_unwrap(seen).unwrap().into_inner())
    }

    fn plan() -> Plan {
        Plan {
            tasks: 500,
            duration: None,
            rate: None,
            clients: 4,
            keys: 10,
            give_up: Duration::from_secs(60),
        }
    }

    #[test]
    fn every_task_is_sent_once_and_each_key_in_order() {
        let (sent, seen) = run(plan(), 0);
        assert_eq!((sent.acknowledged, seen.len()), (500, 500));
        for key in 0..10 {
            let sequences: Vec<u32> =
                seen.iter().filter(|task| task.key == key).map(|task| task.sequence).collect();
            assert_eq!(sequences, (0..sequences.len() as u32).collect::<Vec<_>>());
            assert_eq!(sequences.len(), sent.ledger.tasks(key).len());
        }
    }

    #[test]
    fn attempts_of_unknown_outcome_are_repeated_and_remembered() {
        let (sent, seen) = run(Plan { tasks: 20, ..plan() }, 2);
        assert_eq!((sent.acknowledged, sent.retries, seen.len()), (20, 40, 20));
        assert!(sent.ledger.keys().all(|key| sent.ledger.tasks(key).iter().all(|entry| entry.doubtful == 2)));
    }

    #[test]
    fn a_task_that_is_never_answered_ends_as_unknown() {
        let (sent, _) = run(Plan { tasks: 1, give_up: Duration::ZERO, ..plan() }, 1000);
        assert_eq!((sent.acknowledged, sent.unknown), (0, 1));
    }
}
