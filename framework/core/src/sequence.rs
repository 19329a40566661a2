//! Whether a partition's records continue where they must.

use crate::Offset;

/// The offsets of one lane: consecutive from its start.
///
/// In a topic that is neither compacted nor transactional, consecutive records have consecutive offsets. One that is
/// missing was lost, by retention or by corruption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    expected: Offset,
}

/// What a record's offset means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Arrival {
    /// The next one: deliver it.
    Accept,
    /// Fetched before the lane's last seek, or delivered already: drop it.
    Stale,
    /// Records are missing: close the lane and report a discontinuity.
    Gap {
        /// The first offset that is missing.
        expected: Offset,
        /// The offset that came instead.
        found: Offset,
    },
}

impl Sequence {
    /// The first record to come is the one at `start`.
    pub fn new(start: Offset) -> Self {
        Self { expected: start }
    }

    /// The offset that has to come next: the lane's position.
    pub fn expected(&self) -> Offset {
        self.expected
    }

    /// Judges the record that came. Only an accepted one moves the position, so a gap stays a gap.
    pub fn accept(&mut self, found: Offset) -> Arrival {
        let expected = self.expected;
        match found.cmp(&expected) {
            std::cmp::Ordering::Less => Arrival::Stale,
            std::cmp::Ordering::Greater => Arrival::Gap { expected, found },
            std::cmp::Ordering::Equal => {
                self.expected = found.next();
                Arrival::Accept
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_offsets_pass_and_earlier_ones_are_stale() {
        let mut sequence = Sequence::new(Offset(4));
        let verdicts = [3, 4, 5, 4, 6].map(|offset| sequence.accept(Offset(offset)));
        use Arrival::{Accept, Stale};
        assert_eq!(verdicts, [Stale, Accept, Accept, Stale, Accept]);
        assert_eq!(sequence.expected(), Offset(7));
    }

    #[test]
    fn a_gap_is_never_stepped_over() {
        let mut sequence = Sequence::new(Offset(4));
        let gap = |found| Arrival::Gap { expected: Offset(4), found: Offset(found) };
        assert_eq!(sequence.accept(Offset(6)), gap(6));
        assert_eq!(sequence.accept(Offset(7)), gap(7));
        assert_eq!(sequence.accept(Offset(4)), Arrival::Accept);
    }
}
