//! Partita's decisions, pure: events in, actions out, time passed in. No I/O, no clock, no async, no Kafka.
//!
//! [`GroupMember`] decides about assignment, epochs, commits and shutdown; [`FlowControl`] about pausing; [`Admission`]
//! about taking a task, [`Backlog`] about partitions that are behind; [`retry`] about failed attempts; [`Parking`] about keys that are parked; [`Sequence`] about gaps in a
//! partition; [`Rate`] about callers that come too often; [`RequestState`] about requests that come again, [`InSync`] about whether what is not found is not there; [`Retention`] about tasks that the log may soon delete.

mod action;
mod admission;
mod backlog;
mod backpressure;
mod breaker;
mod commit;
mod event;
mod ids;
mod in_sync;
mod lease;
mod member;
mod offset_tracker;
mod parking;
mod partitioner;
mod rate;
mod request;
mod retention;
pub mod retry;
mod sequence;

pub use action::{Action, Counted, Exit};
pub use admission::{Admission, LogState, PartitionHealth, Refusal, RefusalCode};
pub use backlog::{Backlog, BacklogBounds, Behind};
pub use backpressure::{DeliveryLimits, FlowControl, Outstanding, PauseChange};
pub use breaker::{Breaker, BreakerPolicy, Ruling};
pub use commit::CommitSchedule;
pub use event::Event;
pub use ids::{CommitId, Epoch, Intent, Offset, Partition};
pub use in_sync::InSync;
pub use lease::{Beat, Contact, Lease};
pub use member::{GroupMember, MemberConfig, PartitionState, PartitionView};
pub use offset_tracker::{ImpossibleEnd, OffsetTracker};
pub use parking::{Claim, Entry, Mark, Noted, Parking, Position, Verdict, Weight};
pub use partitioner::{murmur2, partition_of};
pub use rate::{Rate, Used};
pub use request::{
    ClaimId, RequestClaim, RequestDigest, RequestNote, RequestState, RequestTimes, RequestVerdict,
};
pub use retention::{Kept, Retention};
pub use retry::{Failure, Next, ParkReason, RetryPolicy};
pub use sequence::{Arrival, Sequence};
