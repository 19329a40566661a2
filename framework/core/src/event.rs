//! What happened: everything that `GroupMember` may be told.

use crate::{CommitId, Epoch, Intent, Offset, Partition};
use std::ops::Range;

/// One thing that happened to this member of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The log offers partitions. Nothing is delivered from them before `Action::CompleteAssign` answers the intent.
    Assigned {
        /// The number to answer with.
        intent: Intent,
        /// The group's generation; never smaller than in an earlier assignment.
        generation: u32,
        /// Each partition and the offset of the first record it will deliver.
        partitions: Vec<(Partition, Offset)>,
    },
    /// The log takes partitions back in good order: they are still owned until `Action::CompleteRevoke`.
    Revoking {
        /// The number to answer with.
        intent: Intent,
        /// What is taken. A partition that is not owned is allowed and ignored.
        partitions: Vec<Partition>,
    },
    /// Partitions are gone already; another member may own them. Nothing may be committed for them.
    Lost {
        /// What is gone.
        partitions: Vec<Partition>,
    },
    /// Tasks of `offsets` have reached their recorded end (done, parked or rejected).
    Finished {
        /// Whose tasks.
        partition: Partition,
        /// Under which assignment they ran.
        epoch: Epoch,
        /// The offsets, `start` inclusive, `end` exclusive.
        offsets: Range<Offset>,
    },
    /// What is to be stored with the partition's offset has changed, and its actor waits until it is.
    Claimed {
        /// Whose actor.
        partition: Partition,
        /// Under which assignment.
        epoch: Epoch,
    },
    /// The partition's actor has stopped: no task of this epoch runs or will start.
    Drained {
        /// Whose actor.
        partition: Partition,
        /// Under which assignment.
        epoch: Epoch,
    },
    /// The partition's actor cannot go on (its handler could not be made, or it broke outside a task).
    ActorFailed {
        /// Whose actor.
        partition: Partition,
        /// Under which assignment.
        epoch: Epoch,
    },
    /// The log found that the partition's records do not continue where they must. Nothing more is delivered.
    Discontinuity {
        /// Where.
        partition: Partition,
        /// Under which assignment.
        epoch: Epoch,
    },
    /// An operator wants the partition to be read from `to` on. Ignored where it is not owned, or is being given up.
    Rewound {
        /// Which partition.
        partition: Partition,
        /// The next offset to read.
        to: Offset,
    },
    /// Somebody waits for the end of a task. Ignored where its partition is not owned.
    CommitWanted {
        /// Which partition.
        partition: Partition,
        /// Which task.
        offset: Offset,
    },
    /// A commit was answered. A partition in none of the lists was not answered and counts as failed.
    CommitDone {
        /// Which commit.
        commit: CommitId,
        /// What the log now has.
        committed: Vec<Partition>,
    },
    /// Time passed; nothing else happened.
    Tick,
    /// Stop in good order: drain, commit, leave.
    Shutdown,
    /// The log's client is broken for good: stop everything, commit nothing.
    Fatal,
    /// The log's consumer has left the group and its thread has ended.
    Closed,
}
