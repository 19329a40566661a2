//! How far a partition is behind: how many of its tasks have not ended, and for how long the oldest has waited.
//!
//! Both are read off the log, from where a partition ends and what is committed, so that it makes no difference which process works on
//! it, or whether any does: a partition without a worker, a halted one and a slow one are all behind.

use crate::Offset;
use std::{collections::VecDeque, time::Duration};

/// Ends are remembered at most this often, and at most so many.
const SPACING: Duration = Duration::from_secs(1);
const MOST_ENDS: usize = 512;

/// How long senders are told to wait at least and at most.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);

/// What a partition may be behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BacklogBounds {
    /// Tasks that have not ended.
    pub tasks: Option<u64>,
    /// How long the oldest of them has waited.
    pub age: Option<Duration>,
}

/// A partition that is behind by more than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behind {
    /// Tasks that have not ended.
    pub tasks: u64,
    /// For how long the oldest of them has waited at least.
    pub age: Duration,
    /// When it may have caught up, by how fast it was lately.
    pub retry_after: Duration,
}

/// One partition's backlog.
#[derive(Debug, Clone, Default)]
pub struct Backlog {
    committed: Offset,
    end: Offset,
    /// Where the partition was first seen to end beyond what is committed, and when; rising.
    ends: VecDeque<(Offset, Duration)>,
    /// Tasks that end in a second, lately.
    rate: f64,
    looked: Option<Duration>,
    is_refusing: bool,
}

impl Backlog {
    /// Takes a look at the partition. `now` never goes back.
    pub fn observe(&mut self, committed: Offset, end: Offset, now: Duration) {
        if let Some(before) = self.looked.replace(now) {
            let passed = now.saturating_sub(before).as_secs_f64();
            if passed > 0.0 {
                let ended = committed.0.saturating_sub(self.committed.0) as f64 / passed;
                // Half of what is known is forgotten in ten seconds.
                let kept = 0.5_f64.powf(passed / 10.0);
                self.rate = self.rate * kept + ended * (1.0 - kept);
            }
        }
        // An operator may have gone back: what was seen of the ends is not known for those tasks.
        self.committed = committed;
        self.end = end.max(committed);
        while self.ends.front().is_some_and(|(end, _)| *end <= committed) {
            self.ends.pop_front();
        }
        let is_news = self.ends.back().map_or(self.end > committed, |(last, at)| {
            *last < self.end && now.saturating_sub(*at) >= SPACING
        });
        if is_news {
            self.ends.push_back((self.end, now));
        }
        if self.ends.len() > MOST_ENDS {
            let mut keep = false;
            // Of two the later one: no task is taken for older than it is.
            self.ends.retain(|_| {
                keep = !keep;
                !keep
            });
        }
    }

    /// Tasks that have not ended.
    pub fn tasks(&self) -> u64 {
        self.end.0 - self.committed.0
    }

    /// For how long the oldest of them has waited at least.
    pub fn age(&self, now: Duration) -> Duration {
        self.ends.front().map_or(Duration::ZERO, |(_, seen)| now.saturating_sub(*seen))
    }

    /// Whether it is behind by more than it may be; from then on until it has caught up by a tenth.
    pub fn judge(&mut self, bounds: BacklogBounds, now: Duration) -> Option<Behind> {
        let (tasks, age) = (self.tasks(), self.age(now));
        let share = if self.is_refusing { 0.9 } else { 1.0 };
        let many = bounds.tasks.is_some_and(|bound| tasks as f64 > bound as f64 * share);
        let old = bounds.age.is_some_and(|bound| age > bound.mul_f64(share));
        self.is_refusing = many || old;
        let retry_after = || self.retry_after(bounds.tasks.filter(|_| !old));
        self.is_refusing.then(|| Behind { tasks, age, retry_after: retry_after() })
    }

    /// Whether it was by then, the last time it was judged.
    pub fn is_refusing(&self) -> bool {
        self.is_refusing
    }

    /// `may_stay`: so many of its tasks do not have to end first; of one that is too old, about all that are there now do.
    fn retry_after(&self, may_stay: Option<u64>) -> Duration {
        let allowed = may_stay.map_or(0.0, |bound| bound as f64 * 0.9);
        let excess = (self.tasks() as f64 - allowed).max(1.0);
        let seconds = if self.rate > 0.0 { excess / self.rate } else { f64::MAX };
        Duration::try_from_secs_f64(seconds.ceil()).unwrap_or(LATEST).clamp(SOONEST, LATEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const AGE: BacklogBounds = BacklogBounds { tasks: None, age: Some(s(100)) };
    const TASKS: BacklogBounds = BacklogBounds { tasks: Some(1000), age: None };

    proptest! {
        /// Against every task's own time of arrival.
        #[test]
        fn no_task_is_taken_for_older_than_it_is(
            looks in prop::collection::vec((1..20_u64, 0..50_u64, 0..60_u64), 1..800)
        ) {
            let (mut backlog, mut now) = (Backlog::default(), Duration::ZERO);
            let (mut arrivals, mut committed) = (Vec::new(), 0);
            for (passed, came, ended) in looks {
                now += s(passed);
                arrivals.extend((0..came).map(|_| now));
                committed = (committed + ended).min(arrivals.len() as u64);
                backlog.observe(Offset(committed), Offset(arrivals.len() as u64), now);
                let oldest = arrivals.get(committed as usize).map_or(Duration::ZERO, |at| now - *at);
                prop_assert!(backlog.age(now) <= oldest);
                prop_assert_eq!(backlog.tasks(), arrivals.len() as u64 - committed);
                prop_assert!(backlog.ends.len() <= MOST_ENDS);
                if backlog.ends.len() < MOST_ENDS / 2 {
                    // The task that was seen first in the same look as a later end counts from that.
                    prop_assert!(backlog.age(now) + s(20) >= oldest, "{:?} of {oldest:?}", backlog.age(now));
                }
            }
        }
    }

    #[test]
    fn a_partition_that_nobody_works_on_is_refused_when_its_oldest_task_has_waited_too_long() {
        let mut backlog = Backlog::default();
        backlog.observe(Offset(5), Offset(5), s(0));
        backlog.observe(Offset(5), Offset(6), s(10));
        assert_eq!(backlog.judge(AGE, s(110)), None);
        backlog.observe(Offset(5), Offset(90), s(111));
        let behind = backlog.judge(AGE, s(111)).unwrap();
        assert_eq!(behind, Behind { tasks: 85, age: s(101), retry_after: LATEST });
        backlog.observe(Offset(6), Offset(90), s(112));
        assert_eq!(backlog.judge(AGE, s(112)), None, "the next one came later");
    }

    #[test]
    fn of_two_bounds_the_one_that_is_exceeded_says_how_long_to_wait() {
        let mut backlog = Backlog::default();
        let both = BacklogBounds { tasks: Some(100_000), age: Some(s(100)) };
        for second in 0..=200 {
            backlog.observe(Offset(second), Offset(second.max(150) + 40), s(second));
        }
        assert_eq!(backlog.judge(both, s(200)), None);
        for second in 201..=310 {
            backlog.observe(Offset(200), Offset(240), s(second));
        }
        backlog.observe(Offset(201), Offset(240), s(311));
        let behind = backlog.judge(both, s(311)).unwrap();
        assert!(behind.retry_after > s(30), "39 tasks, hardly one in a second: {behind:?}");
    }

    #[test]
    fn it_is_refused_until_it_has_caught_up_by_a_tenth_and_told_when_that_may_be() {
        let mut backlog = Backlog::default();
        backlog.observe(Offset(0), Offset(1000), s(0));
        assert_eq!(backlog.judge(TASKS, s(0)), None);
        for second in 1..=100 {
            backlog.observe(Offset(second * 10), Offset(1001 + second * 10), s(second));
        }
        let behind = backlog.judge(TASKS, s(100)).unwrap();
        assert_eq!((behind.tasks, behind.retry_after), (1001, s(11)), "101 too many at 10 a second");
        backlog.observe(Offset(1000), Offset(1950), s(101));
        assert!(backlog.judge(TASKS, s(101)).is_some());
        backlog.observe(Offset(1000), Offset(1899), s(102));
        assert_eq!(backlog.judge(TASKS, s(102)), None);
        backlog.observe(Offset(1000), Offset(1950), s(103));
        assert_eq!(backlog.judge(TASKS, s(103)), None);
    }
}
