//! How long a member may take it for granted that its partitions are still its own.

use std::time::Duration;

/// A member's view of its own session.
///
/// A group takes the partitions of a member that was silent for a session and gives them to others. A process that stood still
/// for so long (a frozen container, a debugger, a stop for lack of memory) learns of it only after it goes on, and would meanwhile go on
/// with its tasks beside their new owner. So the thread that talks to the group comes by regularly, and each time says until when
/// tasks may begin: for less than a session. After a gap it waits until the group has had the time to say no.
///
/// A client that does not itself give its partitions up when the group falls silent needs [`Contact`] besides.
#[derive(Debug, Clone)]
pub struct Lease {
    term: Duration,
    last: Option<Duration>,
    wait_until: Duration,
    needs_contact: bool,
    contact: Option<Contact>,
    /// The last contact's time is over.
    out_of_contact: bool,
}

/// An answer of the group: whoever gets through to it is heard by it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// When it was asked.
    pub asked: Duration,
    /// How long the group waits for a silent member.
    pub session: Duration,
    /// How often the client tells the group that it is there: it may have last been heard so long before the question.
    pub heartbeat: Duration,
}

impl Contact {
    /// Between the end of what a contact proves and that of the session: for a heartbeat that is late after the connection was mended.
    const RESERVE: Duration = Duration::from_secs(1);

    /// Until when the group cannot have given the member's partitions away.
    fn holds_until(&self) -> Duration {
        self.asked + self.session.saturating_sub(self.heartbeat + Self::RESERVE)
    }
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

    /// For a group that waits `session` for a silent member, and a client that gives its partitions up by then.
    pub fn new(session: Duration) -> Self {
        Self {
            term: Self::TERM.min(session / 3),
            last: None,
            wait_until: Duration::ZERO,
            needs_contact: false,
            contact: None,
            out_of_contact: false,
        }
    }

    /// For a client that keeps its partitions however long the group is silent: no task begins without a [`Contact`].
    pub fn with_contact() -> Self {
        Self { needs_contact: true, ..Self::new(Self::TERM * 3) }
    }

    /// The group has answered.
    pub fn heard(&mut self, contact: Contact) {
        // Also where nobody came by in between.
        self.out_of_contact |= self.contact.is_some_and(|last| last.holds_until() < contact.asked);
        self.contact = Some(contact);
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
        let reach = self.reach(now);
        let until = (now >= self.wait_until).then_some(now + self.term);
        Beat { until: until.zip(reach).map(|(until, reach)| until.min(reach)), stood_still }
    }

    /// How far the last contact reaches. After a time without, the member's next heartbeats are waited for: they say whether it still is one.
    fn reach(&mut self, now: Duration) -> Option<Duration> {
        if !self.needs_contact {
            return Some(Duration::MAX);
        }
        let contact = self.contact?;
        let reach = contact.holds_until();
        if reach <= now {
            self.out_of_contact = true;
            return None;
        }
        if std::mem::take(&mut self.out_of_contact) {
            self.wait_until = self.wait_until.max(now + contact.heartbeat + Self::SETTLE);
        }
        (now >= self.wait_until).then_some(reach)
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

    #[test]
    fn a_member_out_of_contact_begins_nothing_until_its_heartbeats_can_have_been_answered() {
        let at = Duration::from_millis;
        let contact = |asked| Contact { asked: at(asked), session: SESSION, heartbeat: at(500) };
        let mut lease = Lease::with_contact();
        let until = |lease: &mut Lease, now| lease.beat(at(now)).until;
        assert_eq!(until(&mut lease, 0), None, "it has never been heard");
        lease.heard(contact(0));
        assert_eq!(until(&mut lease, 100), Some(at(2100)));
        for now in (200..4500).step_by(100) {
            assert_eq!(until(&mut lease, now), Some(at((now + 2000).min(4500))));
        }
        assert_eq!(until(&mut lease, 4500), None);
        assert_eq!(until(&mut lease, 6000), None);
        lease.heard(contact(6000));
        assert_eq!(until(&mut lease, 6100), None);
        lease.heard(contact(8000));
        assert_eq!(until(&mut lease, 8099), None);
        assert_eq!(until(&mut lease, 8100), Some(at(10_100)));
    }

    proptest! {
        /// Heartbeats and questions go over one connection: what is cut off arrives up to 0.9 s after the cut. The group ends a session
        /// that long after the last heartbeat; no task may begin from then on, until a heartbeat after that is answered.
        #[test]
        fn no_task_begins_beyond_a_session_that_the_group_has_ended(
            cuts in prop::collection::vec((10_u64..200, 0_u64..200), 1..8),
            phase in 0_u64..25,
            delay in 0_u64..10,
        ) {
            let (heartbeat, ms) = (2500, Duration::from_millis);
            let mut lease = Lease::with_contact();
            let (mut now, mut heard, mut ended, mut until) = (0, 0, None::<u64>, None);
            // It is a member: it was heard.
            lease.heard(Contact { asked: ms(now), session: SESSION, heartbeat: ms(heartbeat) });
            // When a heartbeat that was cut off arrives, if one is.
            let mut late = None;
            for (open, cut) in cuts {
                for (length, reachable) in [(open, true), (cut, false)] {
                    let end = now + length * 100;
                    while now < end {
                        if reachable && now % 500 == 0 {
                            lease.heard(Contact { asked: ms(now), session: SESSION, heartbeat: ms(heartbeat) });
                        }
                        if now - heard > SESSION.as_millis() as u64 {
                            ended.get_or_insert(now);
                        }
                        if now % heartbeat == phase * 100 {
                            late.get_or_insert(if reachable { now } else { end + delay * 100 });
                        }
                        if reachable && late.take_if(|late| *late <= now).is_some() {
                            // Where it is no member any more the answer says so, and it joins anew.
                            (heard, ended) = (now, None);
                        }
                        if let Some(beat) = lease.beat(ms(now)).until {
                            until = Some(beat);
                        }
                        let may_begin = until.is_some_and(|until| ms(now) < until);
                        prop_assert!(!(may_begin && ended.is_some()), "at {now}, ended at {ended:?}");
                        now += 100;
                    }
                }
            }
        }

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
