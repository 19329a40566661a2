//! Partita's decisions, pure: events in, actions out, time passed in. No I/O, no clock, no async, no Kafka.

mod action;
mod backpressure;
mod event;
mod ids;
mod partitioner;

pub use action::{Action, Counted, Exit};
pub use backpressure::{DeliveryLimits, FlowControl, Outstanding, PauseChange};
pub use event::Event;
pub use ids::{CommitId, Epoch, Intent, Offset, Partition};
pub use partitioner::{murmur2, partition_of};
