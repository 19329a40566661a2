//! How long so many replicas of partitions have been in sync, as far as was seen.
//!
//! Kafka shows readers a record once all replicas in sync have it, and moves that mark on only while as many of them are in sync as
//! `min.insync.replicas` asks for. So that a record is not found in a partition means that it is not there only where enough have been in
//! sync for long enough.

use crate::Partition;
use std::time::Duration;

/// What was seen. Times are from one beginning on.
#[derive(Debug, Default)]
pub struct InSync {
    /// For each partition: since when more than none, more than one, … were in sync.
    since: Vec<Vec<Duration>>,
    /// When that was seen last.
    seen: Duration,
}

/// Between two looks nothing is taken for granted that lie further apart.
const GAP: Duration = Duration::from_secs(5);

impl InSync {
    /// Partitions were seen with so many replicas in sync, in their order.
    pub fn seen(&mut self, now: Duration, counts: impl IntoIterator<Item = usize>) {
        if now.saturating_sub(self.seen) > GAP {
            self.lost();
        }
        self.seen = now;
        let mut seen = 0;
        for (index, count) in counts.into_iter().enumerate() {
            if index == self.since.len() {
                self.since.push(Vec::new());
            }
            self.since[index].resize(count, now);
            seen = index + 1;
        }
        self.since.truncate(seen);
    }

    /// Nothing could be seen.
    pub fn lost(&mut self) {
        self.since.clear();
    }

    /// Whether a partition has had so many replicas in sync since a time, or longer, until now.
    pub fn has_had(&self, partition: Partition, least: usize, since: Duration, now: Duration) -> bool {
        if now.saturating_sub(self.seen) > GAP {
            return false;
        }
        let of = self.since.get(partition.0 as usize);
        of.and_then(|of| of.get(least.max(1) - 1)).is_some_and(|from| *from <= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// It is said exactly where every look from that time on saw so many, or, where there was none since, the last one.
        #[test]
        fn what_is_said_was_seen_all_along(
            looks in prop::collection::vec(prop::option::of(0_usize..4), 1..30), least in 1_usize..4, since in 0_usize..30
        ) {
            let mut in_sync = InSync::default();
            for (at, look) in looks.iter().enumerate() {
                match look {
                    Some(count) => in_sync.seen(Duration::from_secs(at as u64), [3, *count]),
                    None => in_sync.lost(),
                }
            }
            let seen_since = &looks[since.min(looks.len() - 1)..];
            let expected = seen_since.iter().all(|look| look.is_some_and(|count| count >= least));
            let (since, now) = (Duration::from_secs(since as u64), Duration::from_secs(looks.len() as u64 - 1));
            prop_assert_eq!(in_sync.has_had(Partition(1), least, since, now), expected);
        }
    }

    #[test]
    fn a_partition_that_was_never_seen_has_had_none() {
        let mut in_sync = InSync::default();
        let (begin, now) = (Duration::ZERO, Duration::from_secs(1));
        in_sync.seen(begin, [1]);
        assert!(in_sync.has_had(Partition(0), 1, begin, now));
        assert!(!in_sync.has_had(Partition(0), 2, now, now));
        assert!(!in_sync.has_had(Partition(1), 1, now, now));
    }

    #[test]
    fn who_has_not_looked_for_long_knows_nothing() {
        let mut in_sync = InSync::default();
        in_sync.seen(Duration::ZERO, [1]);
        let late = GAP + Duration::from_millis(1);
        assert!(!in_sync.has_had(Partition(0), 1, Duration::ZERO, late));
        in_sync.seen(late, [1]);
        assert!(!in_sync.has_had(Partition(0), 1, Duration::ZERO, late));
        assert!(in_sync.has_had(Partition(0), 1, late, late));
    }
}
