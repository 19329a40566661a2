//! What follows a failed attempt: another one after a wait, or the end of the task in the parking topic.
//!
//! The wait is drawn between nothing and a ceiling that doubles ("full jitter"), after Marc Brooker, "Exponential Backoff
//! And Jitter", AWS Architecture Blog, 2015. Time and randomness are passed in.

use std::time::Duration;

/// How often and how eagerly a task is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts of a task before it is parked; 0 counts as 1.
    pub attempts: u32,
    /// The longest wait before the second attempt; it doubles with each further one.
    pub backoff: Duration,
    /// What the doubling stops at.
    pub backoff_max: Duration,
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The handler asks for another attempt.
    Retry,
    /// The handler wants the task put aside.
    Park,
    /// The handler says that the task can never succeed.
    Reject,
    /// Something the handler needs is away. Costs no attempt.
    Unavailable {
        /// When to try again, where it said so.
        retry_after: Option<Duration>,
        /// How many times in a row this task has waited for it already.
        waits: u32,
    },
    /// The handler panicked.
    Panic,
    /// The attempt took longer than it may.
    TimedOut,
    /// The record or its payload cannot be read.
    Undecodable,
    /// No handler takes the payload's type.
    UnknownType,
}

/// What to do with the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again after this time; it counts as a further attempt.
    Again {
        /// How long to wait.
        after: Duration,
    },
    /// Put the task aside; it may succeed later.
    Park {
        /// Why.
        reason: ParkReason,
    },
    /// Put the task aside; it can never succeed.
    Reject {
        /// Why.
        reason: ParkReason,
    },
    /// Try again after this time; it does not count as a further attempt.
    Wait {
        /// How long to wait.
        after: Duration,
    },
}

/// Why a task is put aside. Closed, because it is a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParkReason {
    /// The handler rejected it.
    Rejected,
    /// Its attempts are spent.
    Attempts,
    /// It cannot be read.
    Undecodable,
    /// No handler takes its type.
    UnknownType,
    /// The handler parked it.
    Parked,
    /// An earlier task of its key is parked.
    Behind,
}

impl ParkReason {
    /// Every reason there is.
    pub const ALL: [Self; 6] =
        [Self::Rejected, Self::Attempts, Self::Undecodable, Self::UnknownType, Self::Parked, Self::Behind];

    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Attempts => "attempts",
            Self::Undecodable => "undecodable",
            Self::UnknownType => "unknown_type",
            Self::Parked => "parked",
            Self::Behind => "behind",
        }
    }
}

/// What follows the failure of attempt number `attempt` (from 1). `jitter` is drawn from 0 to 1 for this call.
pub fn after_failure(policy: &RetryPolicy, attempt: u32, failure: Failure, jitter: f64) -> Next {
    let wait = |times| backoff(times, policy.backoff, policy.backoff_max, jitter);
    match failure {
        Failure::Retry | Failure::Panic | Failure::TimedOut => {
            if attempt < policy.attempts {
                Next::Again { after: wait(attempt) }
            } else {
                Next::Park { reason: ParkReason::Attempts }
            }
        }
        Failure::Park => Next::Park { reason: ParkReason::Parked },
        Failure::Reject => Next::Reject { reason: ParkReason::Rejected },
        // A deployment that reads it may still come, and no later task of the key may overtake it.
        Failure::Undecodable => Next::Park { reason: ParkReason::Undecodable },
        Failure::UnknownType => Next::Park { reason: ParkReason::UnknownType },
        // What was asked for is a lower bound; the jitter on top keeps partitions from coming back all at once.
        Failure::Unavailable { retry_after, waits } => Next::Wait {
            after: match retry_after {
                Some(asked) => asked.saturating_add(wait(1)),
                None => wait(waits.saturating_add(1)),
            },
        },
    }
}

/// The wait after failure number `attempt` (from 1): `jitter` (0 to 1) of a ceiling that doubles from `base` to `max`.
pub fn backoff(attempt: u32, base: Duration, max: Duration, jitter: f64) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    let ceiling = base.saturating_mul(1 << doublings).min(max);
    if jitter >= 1.0 { ceiling } else { ceiling.mul_f64(jitter.max(0.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 3,
        backoff: Duration::from_millis(100),
        backoff_max: Duration::from_millis(350),
    };

    #[test]
    fn the_ceiling_doubles_and_stops_at_its_maximum() {
        let ceilings =
            [1, 2, 3, 4, u32::MAX].map(|n| backoff(n, POLICY.backoff, POLICY.backoff_max, 1.0).as_millis());
        assert_eq!(ceilings, [100, 200, 350, 350, 350]);
    }

    #[test]
    fn the_wait_is_drawn_between_nothing_and_the_ceiling() {
        let waits = [0.0, 0.25, 0.5].map(|jitter| backoff(2, POLICY.backoff, POLICY.backoff_max, jitter));
        assert_eq!(waits.map(|wait| wait.as_millis()), [0, 50, 100]);
        let odd = [-1.0, f64::NAN, 7.0].map(|jitter| backoff(2, POLICY.backoff, POLICY.backoff_max, jitter));
        assert!(odd.iter().all(|&wait| wait <= Duration::from_millis(200)));
    }

    #[test]
    fn a_failing_task_is_tried_as_often_as_the_policy_says_and_then_parked() {
        for failure in [Failure::Retry, Failure::Panic, Failure::TimedOut] {
            for attempt in 1..3 {
                let next = after_failure(&POLICY, attempt, failure, 0.5);
                assert!(matches!(next, Next::Again { .. }), "{failure:?} {attempt}");
            }
            let last = after_failure(&POLICY, 3, failure, 0.5);
            assert_eq!(last, Next::Park { reason: ParkReason::Attempts });
        }
        let once = RetryPolicy { attempts: 0, ..POLICY };
        assert_eq!(after_failure(&once, 1, Failure::Retry, 0.5), Next::Park { reason: ParkReason::Attempts });
    }

    #[test]
    fn what_another_attempt_would_not_help_is_put_aside_at_its_first() {
        let park = |reason| Next::Park { reason };
        let cases = [
            (Failure::Reject, Next::Reject { reason: ParkReason::Rejected }),
            (Failure::Undecodable, park(ParkReason::Undecodable)),
            (Failure::UnknownType, park(ParkReason::UnknownType)),
            (Failure::Park, park(ParkReason::Parked)),
        ];
        for (failure, next) in cases {
            assert_eq!(after_failure(&POLICY, 1, failure, 0.5), next);
        }
    }

    #[test]
    fn an_unavailable_dependency_spends_no_attempt_however_long_it_is_away() {
        for waits in [0, 1, 1000] {
            let failure = Failure::Unavailable { retry_after: None, waits };
            let next = after_failure(&POLICY, 3, failure, 1.0);
            assert!(
                matches!(next, Next::Wait { after } if after >= POLICY.backoff && after <= POLICY.backoff_max)
            );
        }
    }

    #[test]
    fn a_dependency_that_names_a_time_is_not_asked_before_it() {
        let asked = Duration::from_secs(9);
        let failure = Failure::Unavailable { retry_after: Some(asked), waits: 4 };
        for jitter in [0.0, 0.3, 1.0] {
            let next = after_failure(&POLICY, 1, failure, jitter);
            assert!(
                matches!(next, Next::Wait { after } if after >= asked && after <= asked + POLICY.backoff)
            );
        }
    }
}
