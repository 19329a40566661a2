//! How long a member may take it for granted that its partitions are still its own.

use std::time::Duration;

/// A member's view of its own session.
///
/// A group takes the partitions of a member that was silent for a session and gives them to others. A process that stood still
/// for so long (a frozen container, a debugger, a stop for lack of memory) learns of it only after it goes on, and would meanwhile go on
/// with its tasks beside their new owner. So the thread that talks to the group comes by regularly, and each time says until when
/// tasks may begin: for less than a session. After a gap it waits until the group has had the time to say no.
#[derive(Debug, Clone)]
pub struct Lease {
    term: Duration,
    last: Option<Duration>,
    wait_until: Duration,
}

/// What a visit to [`Lease::beat`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// Until when tasks may begin; `None` if none may.
    pub until: Option<Duration>,
    /// The process stood still for so long, and this is the first beat after it.
    pub stood_still: Option<Duration>,
}

impl Lease {
    /// How long a member that stood still waits. It sends a heartbeat at once and looks at its session each second (librdkafka's
    /// `rd_kafka_cgrp_serve`).
    pub const SETTLE: Duration = Duration::from_millis(1500);

    /// The longest term, far above what keeps the thread from coming by.
    pub const TERM: Duration = Duration::from_secs(2);

    /// For a group that waits `session` for a silent member.
    pub fn new(session: Duration) -> Self {
        Self { term: Self::TERM.min(session / 3), last: None, wait_until: Duration::ZERO }
    }

    /// The thread that talks to the group comes by. `now` is a monotonic clock's. One that stands still
    /// while the machine is suspended (Linux's) does not show that.
    pub fn beat(&mut self, now: Duration) -> Beat {
        let gap = self.last.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        self.last = Some(now);
        let stood_still = (gap > self.term).then_some(gap);
        if stood_still.is_some() {
            self.wait_until = now + Self::SETTLE;
        }
        Beat { until: (now >= self.wait_until).then(|| now + self.term), stood_still }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SESSION: Duration = Duration::from_secs(6);

    #[test]
    fn a_member_that_stood_still_waits_until_the_group_can_have_told_it() {
        let mut lease = Lease::new(SESSION);
        let at = Duration::from_millis;
        assert_eq!(lease.beat(at(0)), Beat { until: Some(at(2000)), stood_still: None });
        assert_eq!(lease.beat(at(1999)), Beat { until: Some(at(3999)), stood_still: None });
        assert_eq!(lease.beat(at(9000)), Beat { until: None, stood_still: Some(at(7001)) });
        assert_eq!(lease.beat(at(9000)), Beat { until: None, stood_still: None });
        assert_eq!(lease.beat(at(10_499)), Beat { until: None, stood_still: None });
        assert_eq!(lease.beat(at(10_500)), Beat { until: Some(at(12_500)), stood_still: None });
    }

    proptest! {
        /// Whenever two beats are further apart than a session, no task may begin from before that session's end until the
        /// settling after the second one is over; and a term always ends before the session that began with its beat.
        #[test]
        fn no_task_begins_between_the_end_of_a_session_and_the_end_of_the_settling(
            gaps in prop::collection::vec(0_u64..20_000, 1..50),
        ) {
            let mut lease = Lease::new(SESSION);
            let (mut now, mut until) = (Duration::ZERO, lease.beat(Duration::ZERO).until);
            let mut settled = Duration::ZERO;
            for gap in gaps.into_iter().map(Duration::from_millis) {
                let session_end = now + SESSION;
                now += gap;
                if now > session_end {
                    prop_assert!(until.is_none_or(|until| until < session_end));
                    settled = now + Lease::SETTLE;
                }
                let beat = lease.beat(now);
                if let Some(end) = beat.until {
                    prop_assert!(now >= settled && end < now + SESSION);
                    until = beat.until;
                }
            }
        }
    }
}
