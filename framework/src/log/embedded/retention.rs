//! Deletes records that were committed long enough ago, a little at a time on the writer's thread.
//!
//! Age is counted from the commit by a monotonic clock, so a changed wall clock deletes nothing early; it starts anew when the log
//! is opened. Freed pages are used again by later appends: the file's size is bounded by the most that was ever kept at once.

use super::{schema::CHUNK, store::chunks_of};
use rusqlite::{Connection, Result};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What one transaction may do: it holds appends back for as long. The time is looked at between two rows or pieces.
const STEP_ROWS: usize = 128;
const STEP_BYTES: u64 = 8 << 20;
const STEP_TIME: Duration = Duration::from_millis(20);
/// Bytes of a large value that are deleted at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// For each partition: the next offset to read, and a seq that none of its unread records is before.
pub(super) type Committed = Vec<(u64, u64)>;

/// The state of the deletion.
#[derive(Debug)]
pub(super) struct Retention {
    keep: Duration,
    interval: Duration,
    next: Instant,
    /// What was committed when, oldest first.
    history: VecDeque<(Instant, Committed)>,
    /// Up to where everything has been deleted.
    swept: Committed,
    sweep: Option<Sweep>,
}

#[derive(Debug)]
struct Sweep {
    until: Committed,
    from: u64,
    limit: u64,
}

/// A record that is to be deleted.
struct Old {
    seq: i64,
    size: usize,
    /// For a value that is not in its row.
    first_chunk: Option<i64>,
}

impl Sweep {
    /// The next records that are old enough, and the seq to go on from behind them.
    fn old(&self, connection: &Connection, committed: &Committed) -> Result<(Vec<Old>, u64)> {
        let mut look = connection.prepare_cached(
            "SELECT seq, partition, offset, size, chunk FROM records WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT ?3",
        )?;
        let mut rows = look.query((self.from as i64, self.limit as i64, STEP_ROWS as i64))?;
        let (mut old, mut seen, mut next) = (Vec::new(), 0, self.limit);
        while let Some(row) = rows.next()? {
            let (seq, partition, offset): (i64, u32, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            seen += 1;
            next = if seen == STEP_ROWS { seq as u64 + 1 } else { self.limit };
            let of = |offsets: &Committed| offsets.get(partition as usize).map_or(0, |(offset, _)| *offset);
            if (offset as u64) < of(&self.until).min(of(committed)) {
                old.push(Old { seq, size: row.get::<_, i64>(3)? as usize, first_chunk: row.get(4)? });
            }
        }
        Ok((old, next))
    }
}

impl Retention {
    /// Keeps records for `keep` after their commit.
    pub(super) fn new(keep: Duration, now: Instant, committed: Committed) -> Self {
        let interval = (keep / 16).clamp(Duration::from_millis(100), Duration::from_secs(60));
        let swept = vec![(0, 0); committed.len()];
        Self { keep, interval, next: now, history: VecDeque::from([(now, committed)]), swept, sweep: None }
    }

    /// When `step` is to be called next.
    pub(super) fn due(&self) -> Instant {
        self.next
    }

    /// Looks whether there is something to delete now.
    pub(super) fn look(&mut self, now: Instant, committed: &Committed) {
        if self.sweep.is_some() {
            return;
        }
        self.next = now + self.interval;
        if self.history.back().is_none_or(|(_, last)| last != committed) {
            self.history.push_back((now, committed.clone()));
        }
        let mut old = None;
        while self.history.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) >= self.keep) {
            old = self.history.pop_front();
        }
        let Some((_, mut until)) = old else { return };
        // What an operator has rewound past is unread again.
        for (until, committed) in until.iter_mut().zip(committed) {
            *until = (*until).min(*committed);
        }
        let grown = || until.iter().zip(&self.swept).filter(|(until, swept)| until.0 > swept.0);
        let from = grown().map(|(_, swept)| swept.1).min();
        let limit = grown().map(|(until, _)| until.1).max();
        if let (Some(from), Some(limit)) = (from, limit) {
            self.next = now;
            self.sweep = Some(Sweep { until, from, limit });
        }
    }

    /// Whether there is something to delete.
    pub(super) fn is_active(&self) -> bool {
        self.sweep.is_some()
    }

    /// Deletes a little inside the caller's transaction. Returns the seq to go on from, for `stepped` after the commit.
    pub(super) fn step(&self, connection: &Connection, committed: &Committed) -> Result<u64> {
        let Some(sweep) = &self.sweep else { return Ok(0) };
        let began = Instant::now();
        let (old, mut next) = sweep.old(connection, committed)?;
        let mut delete = connection.prepare_cached("DELETE FROM records WHERE seq = ?1")?;
        let mut bytes = 0;
        // However slow the disk is, each step deletes something.
        let is_over = |bytes| bytes > 0 && (bytes >= STEP_BYTES || began.elapsed() >= STEP_TIME);
        for Old { seq, size, first_chunk } in old {
            let (mut chunk, mut left) =
                (first_chunk.unwrap_or(0), first_chunk.map_or(0, |_| chunks_of(size)));
            while left > 0 && !is_over(bytes) {
                let piece = left.min(PIECE_BYTES / CHUNK as u64);
                bytes += delete_chunks(connection, chunk, piece)? * CHUNK as u64;
                (chunk, left) = (chunk + piece as i64, left - piece);
            }
            if left > 0 || is_over(bytes) {
                next = seq as u64;
                break;
            }
            delete.execute([seq])?;
            bytes += if first_chunk.is_none() { size as u64 } else { 0 };
        }
        Ok(next)
    }

    /// The step was committed and the next one starts at `next`.
    pub(super) fn stepped(&mut self, next: u64) {
        if let Some(sweep) = &mut self.sweep {
            sweep.from = next;
            if next >= sweep.limit {
                self.swept.clone_from(&sweep.until);
                self.sweep = None;
            }
        }
    }

    /// The step failed: try again later.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.next = now + self.interval.max(Duration::from_secs(1));
    }
}

/// Deletes so many chunks from `first` on. Returns how many were there: the others went in an earlier step.
fn delete_chunks(connection: &Connection, first: i64, count: u64) -> Result<u64> {
    let mut delete = connection.prepare_cached("DELETE FROM chunks WHERE id >= ?1 AND id < ?2")?;
    Ok(delete.execute((first, first + count as i64))? as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_rewound_past_is_not_deleted() {
        let (keep, start) = (Duration::from_secs(1), Instant::now());
        let mut retention = Retention::new(keep, start, vec![(100, 70), (10, 20)]);
        retention.look(start + keep * 2, &vec![(40, 30), (10, 20)]);
        let until = retention.sweep.as_ref().map(|sweep| sweep.until.clone());
        assert_eq!(until, Some(vec![(40, 30), (10, 20)]));
    }
}
