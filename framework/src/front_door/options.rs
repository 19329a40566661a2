//! What a front door is made of.

use super::admission::{LogHealthNow, PartitionHealthOf};
use crate::{config::FrontDoorConfig, log::TaskLog, memory::MemoryPool, task_state::TaskStates};
use actix_web::web;
use std::sync::Arc;

/// Routes beside the front door's own, on the same listener.
pub type Routes = Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>;

/// What a front door needs.
#[derive(Clone)]
pub struct FrontDoorOptions {
    /// `[front_door]`
    pub config: FrontDoorConfig,
    /// `limits.max_task`
    pub max_task: u64,
    /// Where tasks go.
    pub log: Arc<dyn TaskLog>,
    /// What this process knows of the log. Often [`TaskLog::health`], and whatever else it noticed: what is not ready refuses tasks.
    pub log_health: LogHealthNow,
    /// What bodies are reserved from.
    pub intake: MemoryPool,
    /// What the workers of this process know against a partition; where it has none, every partition is open.
    pub partition_health: PartitionHealthOf,
    /// Where the states of tasks are asked for; without it no task is known by its id.
    pub task_states: Option<Arc<TaskStates>>,
    /// What else the listener serves.
    pub routes: Vec<Routes>,
}
