//! Where each partition's delivery stands.
//!
//! One scan over the log serves all lanes, because the log is in the order of arrival and normally all lanes are at the same place
//! in it. A lane that fell behind (it was paused, or reopened) has its own place: scans start at the place of each lane in turn.

use crate::log::{Batch, Lane};
use partita_core::Offset;
use std::collections::VecDeque;

/// Records and bytes that one lane gets in one round; one record may be larger.
const LANE_RECORDS: usize = 1024;
const LANE_BYTES: u64 = 1 << 20;
/// Marks kept of one partition. Older ones are thinned out: a mark may be earlier than need be, never later.
const MARKS: usize = 4096;

/// One partition as the consumer sees it.
pub(super) struct Place {
    /// The open lane, if there is one.
    pub(super) lane: Option<Lane>,
    /// The next offset to deliver.
    pub(super) next: u64,
    /// A seq that the next record is not before.
    pub(super) from: u64,
    /// What is stored as committed: offset and a seq that its record is not before.
    pub(super) committed: (u64, u64),
    /// (offset, seq): the record of this offset is not before this seq.
    marks: VecDeque<(u64, u64)>,
    pub(super) batch: Batch,
    /// It gets no more in this round.
    pub(super) full: bool,
}

/// What a row is to a lane.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Not for it, or not now.
    Skip,
    /// Its next record.
    Next,
    /// The records between are missing.
    Gap,
}

impl Place {
    /// A partition without a lane.
    pub(super) fn new(committed: (u64, u64)) -> Self {
        Self {
            lane: None,
            next: committed.0,
            from: committed.1,
            committed,
            marks: VecDeque::new(),
            batch: Batch::default(),
            full: false,
        }
    }

    /// Delivers from `lane.start` on, into its inbox.
    pub(super) fn open(&mut self, lane: Lane) {
        let start = lane.start.0;
        self.from = self.seq_of(start);
        self.next = start;
        self.marks.retain(|(offset, _)| *offset <= start);
        self.marks.push_back((start, self.from));
        self.batch = Batch::new(lane.epoch);
        self.lane = Some(lane);
    }

    /// A seq that the record at `offset` is not before.
    fn seq_of(&self, offset: u64) -> u64 {
        let marked = self.marks.iter().rev().find(|(mark, _)| *mark <= offset);
        let known = [marked.copied(), (self.committed.0 <= offset).then_some(self.committed)];
        known.into_iter().flatten().map(|(_, seq)| seq).max().unwrap_or(0)
    }

    /// The seq to store with a commit of `offset`.
    pub(super) fn seq_for_commit(&mut self, offset: u64) -> u64 {
        if self.lane.is_some() && offset == self.next {
            self.marks.clear();
            self.marks.push_back((self.next, self.from));
            return self.from;
        }
        let seq = self.seq_of(offset);
        while self.marks.get(1).is_some_and(|(mark, _)| *mark <= offset) {
            self.marks.pop_front();
        }
        seq
    }

    /// How a row at `seq` with `offset`, found by a scan from `start`, fits.
    pub(super) fn fit(&self, start: u64, seq: u64, offset: u64) -> Fit {
        if self.full || offset < self.next {
            Fit::Skip
        } else if offset == self.next {
            Fit::Next
        } else if self.is_covered(start) && self.from <= seq {
            Fit::Gap
        } else {
            Fit::Skip
        }
    }

    /// Whether a scan from `start` sees every record that the lane lacks.
    pub(super) fn is_covered(&self, start: u64) -> bool {
        self.from >= start
    }

    /// Whether a record of `size` bytes has to wait for the next round.
    pub(super) fn has_no_room(&self, size: u64) -> bool {
        !self.batch.is_empty() && (self.batch.len() >= LANE_RECORDS || self.batch.bytes() + size > LANE_BYTES)
    }

    /// The next record, at `seq`, was added to the batch.
    pub(super) fn advance(&mut self, seq: u64) {
        self.next += 1;
        self.from = seq + 1;
    }

    /// The next record, at `seq`, waits for another round.
    pub(super) fn stop_at(&mut self, seq: u64) {
        self.full = true;
        self.from = seq;
    }

    /// Ends the round: hands the batch over. Returns its records and bytes.
    pub(super) fn deliver(&mut self) -> (u64, u64) {
        self.full = false;
        let Some(lane) = &self.lane else { return (0, 0) };
        if self.batch.is_empty() {
            return (0, 0);
        }
        let mut batch = std::mem::replace(&mut self.batch, Batch::new(lane.epoch));
        let counted = (batch.len() as u64, batch.bytes());
        batch.seal();
        lane.inbox.deliver(batch);
        if self.marks.len() >= MARKS {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
        self.marks.push_back((self.next, self.from));
        counted
    }

    /// Delivers nothing more.
    pub(super) fn close(&mut self) {
        self.lane = None;
        self.batch = Batch::default();
        self.full = false;
    }

    /// The offset is stored.
    pub(super) fn committed(&mut self, offset: Offset, seq: u64) {
        self.committed = (offset.0, seq);
    }
}
