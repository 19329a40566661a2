//! The actors: one for each assigned partition, and the supervisor that starts them and commits for them.
//!
//! Nothing outside this folder knows actix's actors. A batch's way: `partition` (mailbox) → `lane` (FIFO) → `runner` (one
//! task at a time: `task`) → `report` (finished ranges) → `supervisor` (commits).

mod attempt;
mod lane;
mod meter;
mod parked;
mod parking;
mod partition;
mod redrive;
mod report;
mod routes;
mod runner;
mod supervisor;
mod task;
mod telemetry;
mod work;

pub use routes::Routes;

pub(crate) use lane::{InHand, Phase, Progress};
pub(crate) use parked::{Listed, ParkedTasks, Selection};
pub(crate) use partition::{Spawner, spawner};
#[cfg(test)]
pub(crate) use report::Report;
pub(crate) use runner::Policy;
pub(crate) use supervisor::{Dismiss, Events, Shutdown, Supervisor, SupervisorSetup};
pub(crate) use work::Single;
