//! What waits for the writer: bounded, first in first out.

use crate::{
    log::{AppendError, Idempotency, NotWritten, Reply},
    memory::Reservation,
};
use bytes::Bytes;
use partita_core::{Offset, Partition};
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Bytes that may wait. A single task above it still fits when nothing else waits.
const MAX_BYTES: u64 = 256 << 20;
/// Records that may wait.
const MAX_RECORDS: usize = 32 << 10;

/// One thing for the writer to do.
pub(super) enum Op {
    /// Store a record or a parked task.
    Write(Write),
    /// Store offsets.
    Commit(OffsetCommit),
}

/// A record on its way to the disk.
pub(super) struct Write {
    pub(super) partition: Partition,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    /// For a task that is put aside: why.
    pub(super) parked: Option<Bytes>,
    pub(super) idempotency: Option<Idempotency>,
    /// Held until the bytes are on the disk.
    pub(super) reservation: Option<Reservation>,
    pub(super) reply: Reply,
    pub(super) since: Instant,
}

impl Write {
    /// The bytes it counts for.
    pub(super) fn weight(&self) -> u64 {
        let parked = self.parked.as_ref().map_or(0, Bytes::len);
        (self.key.len() + self.value.len() + parked) as u64
    }
}

/// One partition's offset as it is stored.
#[derive(Debug, Clone)]
pub(super) struct StoredOffset {
    pub(super) partition: Partition,
    /// The next one to read.
    pub(super) offset: Offset,
    /// A seq that no unread record is before.
    pub(super) seq: u64,
    /// The parking journal's mark, as text.
    pub(super) mark: String,
}

/// Offsets to store, and who wants to know.
pub(super) struct OffsetCommit {
    pub(super) offsets: Vec<StoredOffset>,
    pub(super) reply: Box<dyn FnOnce(Result<(), String>) + Send>,
}

/// The queue itself.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ops: VecDeque<Op>,
    records: usize,
    bytes: u64,
    /// The writer waits: whoever adds something has to wake it. Waking costs a system call, so nobody does otherwise.
    waiting: bool,
    /// New appends are refused.
    closing: bool,
    /// The writer is to end when it has nothing left to do.
    stopping: bool,
    /// The writer has ended: nothing will be written any more.
    dead: bool,
}

/// What the writer got.
pub(super) enum Taken {
    /// Ops were added.
    Some,
    /// Nothing came until the deadline.
    Nothing,
    /// There is nothing left and nobody to add to it.
    Stop,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record, or answers why not.
    pub(super) fn push_write(&self, write: Write) {
        let weight = write.weight();
        let mut state = self.lock();
        if let Some(error) = state.refusal(&write, weight) {
            drop(state);
            return write.reply.send(Err(error));
        }
        state.records += 1;
        state.bytes += weight;
        state.ops.push_back(Op::Write(write));
        self.wake(state);
    }

    /// Adds a commit of offsets. It is small and there is one consumer, so it is never refused for want of room.
    pub(super) fn push_commit(&self, commit: OffsetCommit) -> Result<(), OffsetCommit> {
        let mut state = self.lock();
        if state.dead {
            return Err(commit);
        }
        state.ops.push_back(Op::Commit(commit));
        self.wake(state);
        Ok(())
    }

    /// Wakes the writer if it waits.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let waited = std::mem::take(&mut state.waiting);
        drop(state);
        if waited {
            self.changed.notify_one();
        }
    }

    /// Moves ops to the end of `pending` until it has `limit`, waiting until `deadline` for the first one if it has none.
    pub(super) fn take<T: From<Op>>(
        &self,
        pending: &mut VecDeque<T>,
        limit: usize,
        deadline: Instant,
    ) -> Taken {
        let mut state = self.lock();
        loop {
            if !state.ops.is_empty() {
                let count = state.ops.len().min(limit.saturating_sub(pending.len()));
                pending.extend(state.ops.drain(..count).map(T::from));
                return Taken::Some;
            }
            if !pending.is_empty() {
                return Taken::Some;
            }
            if state.stopping {
                return Taken::Stop;
            }
            let wait = deadline.saturating_duration_since(Instant::now());
            if wait == Duration::ZERO {
                return Taken::Nothing;
            }
            state.waiting = true;
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting = false;
        }
    }

    /// How many ops the writer has not taken yet.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lock().ops.len()
    }

    /// Counts writes as answered. Returns what still waits: records and bytes.
    pub(super) fn answered(&self, records: usize, bytes: u64) -> (usize, u64) {
        let mut state = self.lock();
        state.records -= records;
        state.bytes -= bytes;
        (state.records, state.bytes)
    }

    /// Refuses new appends from now on.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        self.wake(state);
    }

    /// Whether it was closed and every append that was taken has been answered.
    pub(super) fn is_drained(&self) -> bool {
        let state = self.lock();
        state.dead || (state.closing && state.records == 0)
    }

    /// Lets the writer end.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.stopping = true;
        self.wake(state);
    }

    /// Takes the records back that wait since this time or longer, or all of them. They are not written; nor is what they are owed said.
    pub(super) fn take_back(&self, waiting_since: Option<Instant>) -> VecDeque<Reply> {
        let mut state = self.lock();
        let is_due = |op: &Op| match op {
            Op::Write(write) => waiting_since.is_none_or(|since| write.since <= since),
            Op::Commit(_) => false,
        };
        // They wait in the order of their coming.
        if state.ops.iter().find(|op| matches!(op, Op::Write(_))).is_none_or(|first| !is_due(first)) {
            return VecDeque::new();
        }
        let (mut replies, mut weight) = (VecDeque::new(), 0);
        for op in std::mem::take(&mut state.ops) {
            match op {
                Op::Write(write) if waiting_since.is_none_or(|since| write.since <= since) => {
                    weight += write.weight();
                    replies.push_back(write.reply);
                }
                op => state.ops.push_back(op),
            }
        }
        state.records -= replies.len();
        state.bytes -= weight;
        replies
    }

    /// The writer has ended, in whatever way. What still waits is dropped, which answers it as unknown.
    pub(super) fn die(&self) {
        let mut state = self.lock();
        state.dead = true;
        let left = std::mem::take(&mut state.ops);
        drop(state);
        drop(left);
    }
}

impl State {
    /// Why a record is not taken.
    fn refusal(&self, write: &Write, weight: u64) -> Option<AppendError> {
        let (code, reason) = if self.dead {
            (NotWritten::Away, "the embedded log's writer has ended; restart the process")
        } else if self.closing && write.parked.is_none() {
            // A worker that drains may still have to park: only intake is closed.
            (NotWritten::Closing, "the log is closing")
        } else if self.records >= MAX_RECORDS || (self.bytes + weight > MAX_BYTES && self.records > 0) {
            (NotWritten::Busy, "too much waits to be written to the embedded log already; try again later")
        } else {
            return None;
        };
        Some(refused(code, reason))
    }
}

/// A definite failure.
pub(super) fn refused(code: NotWritten, reason: impl Into<String>) -> AppendError {
    AppendError::NotWritten { code, reason: reason.into() }
}
