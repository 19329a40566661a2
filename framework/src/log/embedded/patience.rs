//! A disk that does not answer: whoever waits for the writer is answered in time, as truly as can be.
//!
//! What the writer has in hand may be written yet: its outcome is unknown. What still waits in the queue is taken out of it, and so is not
//! written for certain. Until the writer moves again the log is away.

use super::{
    queue::{Op, refused},
    shared::Shared,
};
use crate::log::{AppendError, LogHealth, NotWritten, Reply};
use crate::metrics::PRODUCER_DELIVERIES_TOTAL;
use std::{
    collections::VecDeque,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// How often it is looked, where `append_timeout` is not short.
const LOOK: Duration = Duration::from_secs(1);

/// What the writer owes while it is at a transaction, or at its files.
#[derive(Default)]
pub(super) struct InHand {
    lent: Mutex<Lent>,
    /// It takes too long.
    late: AtomicBool,
}

#[derive(Default)]
struct Lent {
    /// Since when the writer is at it.
    began: Option<Instant>,
    owed: Vec<Owed>,
}

struct Owed {
    since: Instant,
    /// Not there any more once it is answered.
    reply: Option<Reply>,
}

impl InHand {
    fn lock(&self) -> MutexGuard<'_, Lent> {
        // No code that can panic runs under the lock.
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer begins something that the disk may hold up: what these wait for is answered here if it takes too long.
    pub(super) fn lend<'a>(&self, ops: impl Iterator<Item = &'a mut Op>) {
        let mut lent = self.lock();
        let now = Instant::now();
        lent.began = Some(now);
        lent.owed.extend(ops.map(|op| match op {
            Op::Write(write) => {
                let reply = write.reply.is_owed().then(|| write.reply.take());
                Owed { since: write.since, reply }
            }
            Op::Commit(_) => Owed { since: now, reply: None },
        }));
    }

    /// It has ended: the replies go back to the same ops, but for those that were answered.
    pub(super) fn give_back<'a>(&self, ops: impl Iterator<Item = &'a mut Op>) {
        let mut lent = self.lock();
        lent.began = None;
        for (op, Owed { reply, .. }) in ops.zip(lent.owed.drain(..)) {
            if let (Op::Write(write), Some(reply)) = (op, reply) {
                write.reply = reply;
            }
        }
        if self.late.swap(false, Ordering::AcqRel) {
            tracing::info!("the embedded log's disk answers again");
        }
    }

    /// Whether the disk has not answered in time, and still does not.
    pub(super) fn is_late(&self) -> bool {
        self.late.load(Ordering::Acquire)
    }

    /// Nobody is owed anything any more: what is dropped says that nobody knows.
    pub(super) fn clear(&self) {
        let owed = std::mem::take(&mut *self.lock());
        self.late.store(false, Ordering::Release);
        drop(owed);
    }

    /// Takes the replies whose time is over.
    fn overdue(&self, began_before: Instant) -> Vec<Reply> {
        let mut lent = self.lock();
        if lent.began.is_some_and(|began| began <= began_before) && !self.late.swap(true, Ordering::AcqRel) {
            tracing::error!("the embedded log's disk does not answer");
        }
        let overdue = lent.owed.iter_mut().filter(|owed| owed.since <= began_before);
        overdue.filter_map(|owed| owed.reply.take()).collect()
    }
}

/// What the log says while its disk does not answer.
pub(super) fn health() -> LogHealth {
    LogHealth::Away("the embedded log's disk does not answer: check it; the log goes on by itself".into())
}

/// The thread that looks at the clock.
#[derive(Default)]
pub(super) struct Watch {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Watch {
    pub(super) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Its whole life.
    pub(super) fn run(&self, shared: &Shared, timeout: Duration, topic: &'static str) {
        let every = LOOK.min(timeout / 4);
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            let wait = self.changed.wait_timeout(stopped, every);
            stopped = wait.unwrap_or_else(PoisonError::into_inner).0;
            if let Some(began_before) = Instant::now().checked_sub(timeout) {
                answer_overdue(shared, began_before, topic);
            }
        }
    }
}

fn answer_overdue(shared: &Shared, began_before: Instant, topic: &'static str) {
    let unknown = shared.in_hand.overdue(began_before);
    // Whoever waits behind a disk that stands still has as little to hope for, and is told for certain.
    let refusable = if shared.in_hand.is_late() { None } else { Some(began_before) };
    let not_written = shared.queue.take_back(refusable);
    let count = |outcome: &'static str, replies: &VecDeque<Reply>| {
        metrics::counter!(PRODUCER_DELIVERIES_TOTAL, "topic" => topic, "outcome" => outcome)
            .increment(replies.len() as u64);
    };
    let unknown = VecDeque::from(unknown);
    count("unknown", &unknown);
    count("not_written", &not_written);
    let reason = || "the disk did not answer within log.embedded.append_timeout".to_owned();
    let unsure = |reply| (reply, Err(AppendError::Unknown { reason: reason() }));
    let certain = |reply| (reply, Err(refused(NotWritten::Away, reason())));
    Reply::send_all(unknown.into_iter().map(unsure).chain(not_written.into_iter().map(certain)));
    // It may have been the last that somebody waits for who closes the log.
    shared.note_drained();
}
