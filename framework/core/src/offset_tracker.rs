//! Which offset may be committed: everything below it has reached its end.

use crate::Offset;
use std::{collections::BTreeMap, ops::Range};

/// The ends of one partition's tasks under one epoch.
///
/// The committable offset is the next to read: one past the last of the unbroken run of ended offsets from the start.
/// Ends may be reported in any order; in order they cost no search and no allocation.
#[derive(Debug, Clone)]
pub struct OffsetTracker {
    committable: u64,
    /// Ended runs above the committable offset, by their first offset. They neither touch nor overlap.
    ahead: BTreeMap<u64, u64>,
}

/// A report that cannot be right: part of it has ended before, or it ends before it starts.
///
/// What of it is new has been recorded all the same, since it did end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("offsets {}..{} were reported as ended, but not all of them could", .0.start, .0.end)]
pub struct ImpossibleEnd(pub Range<Offset>);

impl OffsetTracker {
    /// Nothing has ended yet; the first task is the record at `start`.
    pub fn new(start: Offset) -> Self {
        Self { committable: start.0, ahead: BTreeMap::new() }
    }

    /// The next offset to read: everything from the start up to it has ended. It never decreases.
    pub fn committable(&self) -> Offset {
        Offset(self.committable)
    }

    /// Records that the tasks of `offsets` have ended.
    pub fn finish(&mut self, offsets: Range<Offset>) -> Result<(), ImpossibleEnd> {
        let (start, end) = (offsets.start.0, offsets.end.0);
        if start == self.committable && end >= start && self.ahead.is_empty() {
            self.committable = end;
            return Ok(());
        }
        if start == end {
            return Ok(());
        }
        if start > end || !self.insert(start, end) {
            return Err(ImpossibleEnd(offsets));
        }
        Ok(())
    }

    /// Adds `start..end`; says whether all of it was new.
    fn insert(&mut self, start: u64, end: u64) -> bool {
        let mut new = start >= self.committable;
        let (mut start, mut end) = (start.max(self.committable), end);
        if start >= end {
            return false;
        }
        // The runs that touch or overlap the new one: walked from its end downwards, so each is found in one step.
        while let Some((&run_start, &run_end)) = self.ahead.range(..=end).next_back() {
            if run_end < start {
                break;
            }
            new &= run_end == start || run_start == end;
            self.ahead.remove(&run_start);
            start = start.min(run_start);
            end = end.max(run_end);
        }
        if start == self.committable {
            self.committable = end;
        } else {
            self.ahead.insert(start, end);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> Range<Offset> {
        Offset(start)..Offset(end)
    }

    #[test]
    fn a_hole_holds_the_committable_offset_back_until_it_is_filled() {
        let mut tracker = OffsetTracker::new(Offset(5));
        assert_eq!(tracker.finish(range(7, 9)), Ok(()));
        assert_eq!(tracker.committable(), Offset(5));
        assert_eq!(tracker.finish(range(5, 7)), Ok(()));
        assert_eq!(tracker.committable(), Offset(9));
    }

    #[test]
    fn an_offset_that_ended_before_is_an_anomaly_and_moves_nothing_back() {
        let mut tracker = OffsetTracker::new(Offset(0));
        tracker.finish(range(0, 4)).unwrap();
        tracker.finish(range(6, 8)).unwrap();
        for again in [range(0, 4), range(3, 5), range(7, 9), range(2, 1)] {
            assert_eq!(tracker.finish(again.clone()), Err(ImpossibleEnd(again)));
        }
        assert_eq!(tracker.committable(), Offset(5));
    }

    #[test]
    fn a_report_of_nothing_changes_nothing() {
        let mut tracker = OffsetTracker::new(Offset(3));
        tracker.finish(range(3, 3)).unwrap();
        tracker.finish(range(9, 9)).unwrap();
        assert_eq!(tracker.committable(), Offset(3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn committable_is_the_first_offset_that_has_not_ended(
            ranges in prop::collection::vec((0_u64..40, 0_u64..6), 0..40)
        ) {
            let start = 3;
            let mut tracker = OffsetTracker::new(Offset(start));
            let mut ended = [false; 60];
            for (from, len) in ranges {
                let span = from as usize..(from + len) as usize;
                let fresh = from >= start && !ended[span.clone()].contains(&true);
                let verdict = tracker.finish(range(from, from + len));
                prop_assert_eq!(verdict.is_ok(), fresh || len == 0);
                ended[span].fill(true);
                let first_open = (start as usize..).find(|&offset| !ended[offset]).unwrap();
                prop_assert_eq!(tracker.committable(), Offset(first_open as u64));
            }
        }
    }
}
