//! What the writer tells the consumer: how far the log reaches, and its last records while they are still in memory.

use bytes::Bytes;
use partita_core::{Offset, Partition};
use std::{
    collections::VecDeque,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// What may stay in memory of the last records, for a consumer that keeps up.
const RECENT_BYTES: usize = 4 << 20;
const RECENT_RECORDS: usize = 8 << 10;
/// A larger value is always read back from the file.
const RECENT_VALUE: usize = 256 << 10;

/// A record as the log has it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    pub(super) timestamp_ms: i64,
    pub(super) key: Bytes,
    pub(super) value: RowValue,
}

/// Where a record's value is.
#[derive(Debug, Clone)]
pub(super) enum RowValue {
    /// Here.
    Here(Bytes),
    /// In the row of this seq.
    InRow {
        /// Its bytes.
        size: u64,
    },
    /// In the chunks from this id on.
    Chunks {
        /// The first chunk's id.
        first: u64,
        /// Bytes of all of them.
        size: u64,
    },
}

impl RowValue {
    /// Its bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::InRow { size } | Self::Chunks { size, .. } => *size,
        }
    }
}

/// The end of the log as one consistent view.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The next seq.
    pub(super) seq: u64,
    /// The next offset of each partition.
    pub(super) ends: Vec<u64>,
}

/// The shared state.
pub(super) struct Published {
    state: Mutex<State>,
    /// The next seq, to be looked at without the lock.
    seq: AtomicU64,
}

struct State {
    view: View,
    recent: VecDeque<Row>,
    bytes: usize,
}

impl Published {
    /// A log that ends here.
    pub(super) fn new(seq: u64, ends: Vec<u64>) -> Self {
        let view = View { seq, ends };
        Self {
            state: Mutex::new(State { view, recent: VecDeque::new(), bytes: 0 }),
            seq: AtomicU64::new(seq),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds committed rows, whose seqs follow on what is there.
    pub(super) fn publish(&self, rows: &mut Vec<Row>) {
        let mut freed = Vec::new();
        let mut state = self.lock();
        for mut row in rows.drain(..) {
            state.view.seq = row.seq + 1;
            if let Some(end) = state.view.ends.get_mut(row.partition.0 as usize) {
                *end = row.offset.0 + 1;
            }
            if let RowValue::Here(value) = &row.value
                && value.len() > RECENT_VALUE
            {
                row.value = RowValue::InRow { size: value.len() as u64 };
            }
            state.bytes += held(&row);
            state.recent.push_back(row);
        }
        while state.bytes > RECENT_BYTES || state.recent.len() > RECENT_RECORDS {
            let Some(row) = state.recent.pop_front() else { break };
            state.bytes -= held(&row);
            freed.push(row);
        }
        self.seq.store(state.view.seq, Ordering::Release);
    }

    /// The log was read again and ends here.
    pub(super) fn reset(&self, seq: u64, ends: Vec<u64>) {
        let mut state = self.lock();
        state.view = View { seq, ends };
        state.bytes = 0;
        let freed = std::mem::take(&mut state.recent);
        self.seq.store(seq, Ordering::Release);
        drop(state);
        drop(freed);
    }

    /// How far the log reaches.
    pub(super) fn view(&self) -> View {
        self.lock().view.clone()
    }

    /// The next seq.
    pub(super) fn seq(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }

    /// Up to `limit` rows from `seq` on, if they are still here.
    pub(super) fn recent(&self, seq: u64, limit: usize) -> Option<Vec<Row>> {
        let state = self.lock();
        let first = state.recent.front()?.seq;
        let skip = seq.checked_sub(first)? as usize;
        Some(state.recent.range(skip.min(state.recent.len())..).take(limit).cloned().collect())
    }

    /// Nobody will ask for rows before `seq` here.
    pub(super) fn forget_before(&self, seq: u64) {
        let mut freed = Vec::new();
        let mut state = self.lock();
        while state.recent.front().is_some_and(|row| row.seq < seq) {
            let Some(row) = state.recent.pop_front() else { break };
            state.bytes -= held(&row);
            freed.push(row);
        }
        drop(state);
    }
}

fn held(row: &Row) -> usize {
    row.key.len() + if let RowValue::Here(value) = &row.value { value.len() } else { 0 }
}

/// A flag that a thread waits for.
#[derive(Default)]
pub(super) struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Raises the flag and wakes the thread that waits for it.
    pub(super) fn raise(&self) {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        if !*raised {
            *raised = true;
            drop(raised);
            self.changed.notify_one();
        }
    }

    /// Waits until the flag is raised, or for so long, and lowers it.
    pub(super) fn wait(&self, longest: Duration) {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut raised, _) = self
            .changed
            .wait_timeout_while(raised, longest, |raised| !*raised)
            .unwrap_or_else(PoisonError::into_inner);
        *raised = false;
    }
}
