//! One owned partition: what its actor may be doing, and what follows from what it reports.

use crate::{Epoch, Offset, OffsetTracker};
use std::time::Duration;

/// One assignment of one partition.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) epoch: Epoch,
    pub(super) start: Offset,
    pub(super) life: Life,
    pub(super) tracker: OffsetTracker,
    /// Failures of its actors since one of them ended a task.
    pub(super) failures: u32,
}

impl Assignment {
    pub(super) fn new(epoch: Epoch, start: Offset) -> Self {
        Self { epoch, start, life: Life::Running, tracker: OffsetTracker::new(start), failures: 0 }
    }
}

/// Where an assignment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Its actor works and its lane delivers.
    Running,
    /// Its lane is closed for good; the actor works off what it has.
    Halted,
    /// Its lane is closed for good and there is no actor any more.
    HaltedIdle,
    /// There is no actor; the next one starts at this time.
    Restarting(Duration),
    /// The actor ends its task in hand and starts no other.
    Draining,
    /// The actor has ended by itself; all it did is reported.
    Drained,
    /// The actor was stopped on the way out; what it still reports does not count.
    Stopped,
}

/// What may happen to an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// The actor ended tasks.
    Finished,
    /// The actor says that it has ended.
    Drained,
    /// The actor cannot go on; another may start at this time.
    Failed(Duration),
    /// The log's records do not continue.
    Discontinuity,
    /// The partition is to be given up in good order.
    GiveUp,
    /// Giving up took too long.
    Overdue,
    /// The time of the next actor has come.
    RestartDue,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    /// The report is stale: count it.
    Refuse,
    /// Record the ended tasks.
    Track,
    CloseLane,
    /// Close the lane, drain the actor.
    Drain,
    Stop,
    /// Close the lane, stop the actor.
    CloseAndStop,
    /// Start an actor under a new epoch where the last one's work ends.
    Start,
}

impl Life {
    /// Whether no actor works for the assignment and none will.
    pub(super) fn is_over(self) -> bool {
        match self {
            Self::Drained | Self::Stopped => true,
            Self::Running | Self::Halted | Self::HaltedIdle | Self::Restarting(_) | Self::Draining => false,
        }
    }

    /// Whether an actor may be working.
    pub(super) fn has_actor(self) -> bool {
        match self {
            Self::Running | Self::Halted | Self::Draining => true,
            Self::HaltedIdle | Self::Restarting(_) | Self::Drained | Self::Stopped => false,
        }
    }

    /// Whether it may begin anew: it is not on its way out.
    pub(super) fn may_begin_anew(self) -> bool {
        match self {
            Self::Running | Self::Halted | Self::HaltedIdle | Self::Restarting(_) => true,
            Self::Draining | Self::Drained | Self::Stopped => false,
        }
    }

    /// The whole transition table.
    pub(super) fn on(self, input: Input) -> (Life, Effect) {
        use Effect as E;
        use Input as I;
        use Life as L;
        match (self, input) {
            (L::Running | L::Halted | L::Draining | L::Drained, I::Finished) => (self, E::Track),
            (L::HaltedIdle | L::Restarting(_) | L::Stopped, I::Finished) => (self, E::Refuse),

            // An actor that ends unasked has failed, whatever it calls it: the caller gives it a restart time.
            (L::Running, I::Drained) => (self, E::Refuse),
            (L::Halted, I::Drained) => (L::HaltedIdle, E::Nothing),
            (L::Draining, I::Drained) => (L::Drained, E::Nothing),
            (L::HaltedIdle | L::Restarting(_) | L::Drained | L::Stopped, I::Drained) => (self, E::Refuse),

            (L::Running, I::Failed(again)) => (L::Restarting(again), E::CloseAndStop),
            (L::Halted, I::Failed(_)) => (L::HaltedIdle, E::Stop),
            (L::Draining, I::Failed(_)) => (L::Stopped, E::Stop),
            (L::HaltedIdle | L::Restarting(_) | L::Drained | L::Stopped, I::Failed(_)) => (self, E::Refuse),

            (L::Running, I::Discontinuity) => (L::Halted, E::CloseLane),
            (L::Restarting(_), I::Discontinuity) => (L::HaltedIdle, E::Nothing),
            (L::Halted | L::HaltedIdle | L::Draining | L::Drained | L::Stopped, I::Discontinuity) => {
                (self, E::Nothing)
            }

            (L::Running | L::Halted, I::GiveUp) => (L::Draining, E::Drain),
            (L::HaltedIdle | L::Restarting(_), I::GiveUp) => (L::Stopped, E::Nothing),
            (L::Draining | L::Drained | L::Stopped, I::GiveUp) => (self, E::Nothing),

            (L::Running, I::Overdue) => (L::Stopped, E::CloseAndStop),
            (L::Halted | L::Draining, I::Overdue) => (L::Stopped, E::Stop),
            (L::HaltedIdle | L::Restarting(_), I::Overdue) => (L::Stopped, E::Nothing),
            (L::Drained | L::Stopped, I::Overdue) => (self, E::Nothing),

            (L::Restarting(_), I::RestartDue) => (L::Running, E::Start),
            (
                L::Running | L::Halted | L::HaltedIdle | L::Draining | L::Drained | L::Stopped,
                I::RestartDue,
            ) => (self, E::Nothing),
        }
    }
}
