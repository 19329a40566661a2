//! What to do about it: everything that `GroupMember` may ask for.

use crate::{CommitId, Epoch, Intent, Offset, Partition};

/// One thing to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the partition's actor. Its first task is the record at `start`.
    Start {
        /// Whose actor.
        partition: Partition,
        /// The new assignment.
        epoch: Epoch,
        /// The first offset it will be given.
        start: Offset,
    },
    /// Let the task in hand finish, start no other, then report `Event::Drained`.
    Drain {
        /// Whose actor.
        partition: Partition,
        /// Under which assignment.
        epoch: Epoch,
    },
    /// Cancel the task in hand and forget the actor; what it still reports is stale.
    Stop {
        /// Whose actor.
        partition: Partition,
        /// Under which assignment.
        epoch: Epoch,
    },
    /// Answer an assignment: deliver these partitions to the actors started for them.
    CompleteAssign {
        /// Which request is answered.
        intent: Intent,
        /// The partitions to deliver, with their epochs and first offsets.
        lanes: Vec<(Partition, Epoch, Offset)>,
    },
    /// Answer a revocation: the partitions may go to another member.
    CompleteRevoke {
        /// Which request is answered.
        intent: Intent,
    },
    /// Deliver nothing more of this partition under this epoch.
    CloseLane {
        /// Which partition.
        partition: Partition,
        /// Under which assignment.
        epoch: Epoch,
    },
    /// Deliver this owned partition again from `start`, to the actor just started under `epoch`.
    Reopen {
        /// Which partition.
        partition: Partition,
        /// The new epoch.
        epoch: Epoch,
        /// Where to seek.
        start: Offset,
    },
    /// Store these offsets as next to read. Answered by `Event::CommitDone`.
    Commit {
        /// The number to answer with.
        commit: CommitId,
        /// For each partition the next offset to read.
        offsets: Vec<(Partition, Offset)>,
    },
    /// Leave the group and end the consumer's thread. Answered by `Event::Closed`.
    Close,
    /// Everything has ended.
    Exit(Exit),
    /// Something was refused; count it.
    Count(Counted),
}

/// How the member ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Drained, committed, left.
    Clean,
    /// It left, but something was cut short: a drain past its deadline, a last commit that failed. Tasks will be redelivered.
    CutShort,
    /// After `Event::Fatal`, or the consumer's thread ended by itself.
    Fatal,
}

/// What is counted rather than obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counted {
    /// A report of another epoch.
    StaleReport,
    /// An answer to a commit that is not in flight.
    StaleCommit,
    /// An invariant of INVARIANTS.md was about to break; the number is the invariant's.
    Violation(u8),
}
