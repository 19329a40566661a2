//! A breaker against parking everything: where too many tasks fail for good in a short time, it is more likely the handler than the
//! tasks, and the partition waits instead.
//!
//! The pattern is the circuit breaker of Michael Nygard, "Release It!", 2007. Closed, it counts. Open, it holds; once in each window one
//! task may be parked all the same, so that a single one that really cannot be handled does not hold its partition for ever; a task
//! that succeeds closes it.

use std::{collections::VecDeque, time::Duration};

/// When a breaker opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Tasks that may be parked within a window; 0: it never opens.
    pub tasks: u32,
    /// How long a window is.
    pub window: Duration,
}

/// The breaker of one partition. Times are from any beginning, and do not go back.
#[derive(Debug, Clone)]
pub struct Breaker {
    policy: BreakerPolicy,
    /// When tasks were parked, within the last window.
    parked: VecDeque<Duration>,
    /// Since when it is open, or when it last let one task go.
    open: Option<Duration>,
}

/// What becomes of a task that is to be parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Ruling {
    /// Park it.
    Park,
    /// Try it again until this time; ask again then.
    Hold {
        /// When one task may be parked all the same.
        until: Duration,
    },
}

impl Breaker {
    /// Closed.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { policy, parked: VecDeque::new(), open: None }
    }

    /// A task is to be parked at `now`. If the answer is to park it, it counts.
    pub fn rule(&mut self, now: Duration) -> Ruling {
        let BreakerPolicy { tasks, window } = self.policy;
        if tasks == 0 {
            return Ruling::Park;
        }
        if let Some(since) = self.open {
            if now < since + window {
                return Ruling::Hold { until: since + window };
            }
            self.open = Some(now);
            return Ruling::Park;
        }
        while self.parked.front().is_some_and(|&at| at + window <= now) {
            self.parked.pop_front();
        }
        if self.parked.len() < tasks as usize {
            self.parked.push_back(now);
            return Ruling::Park;
        }
        self.parked.clear();
        self.open = Some(now);
        Ruling::Hold { until: now + window }
    }

    /// A task succeeded.
    pub fn succeeded(&mut self) {
        self.open = None;
    }

    /// Whether it holds tasks.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn breaker() -> Breaker {
        Breaker::new(BreakerPolicy { tasks: 3, window: MINUTE })
    }

    #[test]
    fn it_opens_at_the_limit_lets_one_go_each_window_and_closes_with_a_success() {
        let mut breaker = breaker();
        for second in 0..3 {
            assert_eq!(breaker.rule(SECOND * second), Ruling::Park);
        }
        assert_eq!(breaker.rule(SECOND * 3), Ruling::Hold { until: SECOND * 63 });
        assert!(breaker.is_open());
        assert_eq!(breaker.rule(SECOND * 62), Ruling::Hold { until: SECOND * 63 });
        assert_eq!(breaker.rule(SECOND * 63), Ruling::Park);
        assert_eq!(breaker.rule(SECOND * 64), Ruling::Hold { until: SECOND * 123 });
        breaker.succeeded();
        assert!(!breaker.is_open());
        assert_eq!(breaker.rule(SECOND * 65), Ruling::Park);
    }

    #[test]
    fn tasks_that_fail_now_and_then_never_open_it() {
        let mut breaker = breaker();
        for minute in 0..1000 {
            assert_eq!(breaker.rule(MINUTE / 3 * minute), Ruling::Park);
        }
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_the_limit_parked_and_one_for_each_success(
            steps in prop::collection::vec((0..90_u64, prop::bool::weighted(0.1)), 0..200),
        ) {
            let (mut breaker, mut now) = (breaker(), Duration::ZERO);
            let (mut parked, mut successes): (Vec<Duration>, Vec<Duration>) = (Vec::new(), Vec::new());
            for (seconds, succeeds) in steps {
                now += SECOND * seconds as u32;
                if succeeds {
                    breaker.succeeded();
                    successes.push(now);
                } else if breaker.rule(now) == Ruling::Park {
                    parked.push(now);
                }
                let within = |times: &[Duration]| times.iter().filter(|&&at| at + MINUTE > now).count();
                // Each success may begin a count anew.
                prop_assert!(within(&parked) <= 3 * (1 + within(&successes)) + 1);
            }
        }
    }
}
