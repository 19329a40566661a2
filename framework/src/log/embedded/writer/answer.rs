//! What the writer tells of a group that is committed: receipts to those who wait, records to the consumer.

use super::super::{
    plan::Step,
    published::{Row, RowValue},
    queue::{Op, Write},
    schema::{CHUNK, PAGE_SIZE},
    store::{At, Place},
};
use super::{NOTE_EVERY, Outcome, Writer};
use crate::log::{AppendError, AppendOutcome, Receipt, Reply};
use partita_core::Offset;
use std::{collections::VecDeque, time::Instant};

impl Writer<'_> {
    /// Shows what the committed transaction completed, and then answers it: who has a receipt finds its task.
    pub(super) fn answer(&mut self, steps: &[Step]) {
        if self.tail.seq - self.noted >= NOTE_EVERY {
            self.noted = self.tail.seq;
        }
        let now = Instant::now();
        let mut completed = steps.iter().filter_map(|step| match step {
            Step::Complete(index) => Some(*index),
            Step::Stream(..) => None,
        });
        let mut outcomes = self.outcomes.drain(..);
        let mut next = completed.next();
        let (mut records, mut bytes, mut pages, mut told) = (0, 0, 3, 0);
        let mut kept = VecDeque::new();
        for (index, pending) in self.pending.drain(..).enumerate() {
            if next != Some(index) {
                kept.push_back(pending);
                continue;
            }
            next = completed.next();
            match (pending.op, outcomes.next()) {
                (Op::Write(write), Some(outcome)) => {
                    records += 1;
                    bytes += write.weight();
                    self.meters.latency.record(now.saturating_duration_since(write.since).as_secs_f64());
                    let (row, reply, answer) = end(write, outcome);
                    self.rows.extend(row);
                    told += u64::from(reply.is_owed());
                    self.replies.push((reply, answer));
                }
                (Op::Commit(commit), _) => {
                    for one in &commit.offsets {
                        if let Some(slot) = self.committed.get_mut(one.partition.0 as usize) {
                            *slot = (one.offset.0, one.seq);
                        }
                    }
                    (commit.reply)(Ok(()));
                }
                (Op::Write(_), None) => {}
            }
        }
        drop(outcomes);
        self.pending.append(&mut kept);
        pages += bytes / PAGE_SIZE + records as u64 / 8;
        for step in steps {
            if let Step::Stream(_, count) = step {
                pages += count * CHUNK as u64 / PAGE_SIZE;
            }
        }
        let is_news = !self.rows.is_empty();
        if is_news {
            self.shared.published.publish(&mut self.rows);
        }
        Reply::send_all(self.replies.drain(..));
        if is_news {
            self.shared.consumer.raise();
        }
        self.meters.ok.increment(told);
        self.settle(records, bytes);
        self.due.wrote(pages);
    }

    pub(super) fn settle(&self, records: usize, bytes: u64) {
        let (records, bytes) = self.shared.queue.answered(records, bytes);
        self.meters.queue_records.set(records as f64);
        self.meters.queue_bytes.set(bytes as f64);
        self.shared.note_drained();
    }
}

/// Lets the reservation go, and returns what the consumer is to see and who is to hear what.
fn end(write: Write, outcome: Outcome) -> (Option<Row>, Reply, AppendOutcome) {
    let Write { partition, key, value, reservation, reply, .. } = write;
    drop(reservation);
    let (offset, repeated, row) = match outcome {
        Outcome::Record(At { seq, offset, timestamp_ms }, place) => {
            let value = match place {
                Place::InRow => RowValue::Here(value),
                Place::Chunks(first) => RowValue::Chunks { first, size: value.len() as u64 },
            };
            let offset = Offset(offset);
            (offset, false, Some(Row { seq, partition, offset, timestamp_ms, key, value }))
        }
        Outcome::Repeated(offset) => (Offset(offset), true, None),
        Outcome::Parked(id) => (Offset(id), false, None),
        Outcome::Refused(error) => return (None, reply, Err(error)),
        Outcome::Committed => {
            let reason = "a write was answered as a commit is".into();
            return (None, reply, Err(AppendError::Unknown { reason }));
        }
    };
    (row, reply, Ok(Receipt { partition, offset, repeated }))
}
