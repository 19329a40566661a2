//! The end: drain, commit, leave, within one deadline.

use super::{GroupMember, Input};
use crate::{Action, Exit};
use std::time::Duration;

/// How far the member's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The ordinary one.
    Serving,
    /// No actor starts a task any more; those that run are awaited.
    Draining(Deadlines),
    /// All actors have ended; their offsets are being committed.
    Committing(Deadlines),
    /// The consumer was told to leave; its answer is awaited until then.
    Closing(Duration),
    /// `Action::Exit` was given.
    Ended,
}

/// When each phase of a shutdown is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadlines {
    drain: Duration,
    commit: Duration,
    end: Duration,
}

impl Deadlines {
    /// Draining gets three fifths of the time, the last commits a fifth, leaving the group the rest; what one does not
    /// need is left to the next.
    fn within(total: Duration, now: Duration) -> Self {
        let fifth = total / 5;
        Self { drain: now + fifth * 3, commit: now + fifth * 4, end: now + total }
    }
}

impl Phase {
    pub(super) fn next_deadline(self) -> Option<Duration> {
        match self {
            Self::Serving | Self::Ended => None,
            Self::Draining(deadlines) => Some(deadlines.drain),
            Self::Committing(deadlines) => Some(deadlines.commit),
            Self::Closing(end) => Some(end),
        }
    }
}

impl GroupMember {
    pub(super) fn shutdown(&mut self, now: Duration, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Serving => {
                self.phase = Phase::Draining(Deadlines::within(self.config.shutdown_timeout, now));
                self.feed_all(Input::GiveUp, out);
            }
            Phase::Draining(_) | Phase::Committing(_) | Phase::Closing(_) | Phase::Ended => {}
        }
    }

    /// The client is broken, or its thread ended unasked: nothing can be committed any more.
    pub(super) fn fatal(&mut self, out: &mut Vec<Action>) {
        if self.phase != Phase::Ended {
            self.end(Exit::Fatal, out);
        }
    }

    pub(super) fn closed(&mut self, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Closing(_) => self.end(self.how_it_ended(), out),
            Phase::Serving | Phase::Draining(_) | Phase::Committing(_) => self.end(Exit::Fatal, out),
            Phase::Ended => {}
        }
    }

    /// Draining → Committing, when all have ended or their time is up.
    pub(super) fn end_shutdown_drain(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Phase::Draining(deadlines) = self.phase else { return };
        let all_over = self.owned.values().all(|assignment| assignment.life.is_over());
        if !all_over && now < deadlines.drain {
            return;
        }
        if !all_over {
            self.cut_short = true;
            self.feed_all(Input::Overdue, out);
        }
        self.phase = Phase::Committing(deadlines);
    }

    /// Whether the last commits have had their time.
    pub(super) fn is_out_of_commit_time(&self, now: Duration) -> bool {
        matches!(self.phase, Phase::Committing(deadlines) if now >= deadlines.commit)
    }

    /// Committing → Closing → Ended.
    pub(super) fn leave(&mut self, now: Duration, out: &mut Vec<Action>) {
        if let Phase::Committing(deadlines) = self.phase {
            let settled = self.owned.keys().all(|&partition| self.commits.is_settled(partition));
            if settled || now >= deadlines.commit {
                self.cut_short |= !settled;
                self.give_up_everything(now, out);
                self.phase = Phase::Closing(deadlines.end);
                out.push(Action::Close);
            }
        }
        if let Phase::Closing(end) = self.phase
            && now >= end
        {
            self.end(Exit::CutShort, out);
        }
    }

    fn how_it_ended(&self) -> Exit {
        if self.cut_short { Exit::CutShort } else { Exit::Clean }
    }

    fn end(&mut self, exit: Exit, out: &mut Vec<Action>) {
        self.phase = Phase::Ended;
        self.give_up_everything(self.now, out);
        out.push(Action::Exit(exit));
    }

    /// Stops and forgets every partition and answers every revocation.
    fn give_up_everything(&mut self, now: Duration, out: &mut Vec<Action>) {
        while let Some((&partition, _)) = self.owned.first_key_value() {
            self.forget(partition, out);
        }
        self.complete_revocations(now, true, out);
    }
}
