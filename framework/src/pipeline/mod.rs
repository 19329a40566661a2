//! A whole pipeline: the log, the workers, the listeners; built, started and stopped in order.
//!
//! ```no_run
//! # use partita::{Config, Pipeline, Task, TaskContext, TaskError, TaskHandler};
//! struct Greeter;
//!
//! impl TaskHandler for Greeter {
//!     type Payload = bytes::Bytes;
//!     async fn handle(&mut self, task: Task<bytes::Bytes>, ctx: &TaskContext) -> Result<(), TaskError> {
//!         println!("{} sent {} bytes", ctx.key_str(), task.size);
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), partita::Error> {
//! actix_rt::System::new().block_on(Pipeline::builder(Config::default()).handler(|_| Greeter).run())
//! # }
//! ```

mod backlogs;
mod listeners;
mod open;
mod report;
mod running;
mod submit;
pub(crate) mod workers;

pub use running::Running;
pub use submit::NewTask;

use crate::{
    Config, Error,
    actor::{Routes, Single, Spawner, spawner},
    admin::Ask,
    config::ConfigError,
    handler::{Assignment, TaskHandler},
    log::{TaskConsumer, TaskLog},
    memory::MemoryBudget,
    operations::Operations,
    status::PipelineStatus,
    task_state::TaskStates,
};
use listeners::Extras;
use open::Halves;
use std::{fmt, future::Future, sync::Arc};

/// Which half of the work a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Takes tasks over HTTP and handles them.
    #[default]
    All,
    /// Only takes tasks; other processes handle them.
    FrontDoor,
    /// Only handles tasks.
    Worker,
}

impl Role {
    /// Whether it listens for tasks.
    pub fn accepts(self) -> bool {
        self != Self::Worker
    }

    /// Whether it runs handlers.
    pub fn works(self) -> bool {
        self != Self::FrontDoor
    }
}

/// What every part of a running pipeline shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) log: Arc<dyn TaskLog>,
    pub(crate) memory: MemoryBudget,
    pub(crate) status: Arc<PipelineStatus>,
    pub(crate) task_states: Arc<TaskStates>,
}

impl Shared {
    /// What operators may ask.
    pub(crate) fn operations(&self) -> Operations {
        Operations {
            log: self.log.clone(),
            status: self.status.clone(),
            memory: self.memory.decode.clone(),
            max_task: self.config.limits.max_task.as_u64(),
        }
    }
}

/// Where pipelines begin.
#[derive(Debug)]
pub struct Pipeline;

impl Pipeline {
    /// A pipeline with these settings.
    pub fn builder(config: Config) -> PipelineBuilder {
        PipelineBuilder { config, role: Role::All, spawner: None, log: None, extras: Extras::default() }
    }
}

/// A pipeline that is not started yet.
pub struct PipelineBuilder {
    config: Config,
    role: Role,
    spawner: Option<Spawner>,
    log: Option<Halves>,
    extras: Extras,
}

impl PipelineBuilder {
    /// Handles every task with the handler that `factory` makes, one for each assigned partition.
    pub fn handler<H: TaskHandler>(
        mut self,
        factory: impl Fn(&Assignment) -> H + Send + Sync + 'static,
    ) -> Self {
        self.spawner = Some(spawner(Arc::new(move |assignment: &Assignment| Single(factory(assignment)))));
        self
    }

    /// Handles each task with the handler of its type.
    pub fn routes(mut self, routes: Routes) -> Self {
        self.spawner = Some(spawner(routes.factory()));
        self
    }

    /// Does only a half of the work, or all of it.
    pub fn role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// Uses a log of your own instead of the one that the settings name. A front door needs no consumer.
    pub fn log(mut self, log: Arc<dyn TaskLog>, consumer: Option<Box<dyn TaskConsumer>>) -> Self {
        self.log = Some((log, consumer));
        self
    }

    /// Serves these routes beside the front door's own, on the same listener. May be called again.
    pub fn front_door_routes(mut self, routes: crate::front_door::Routes) -> Self {
        self.extras.routes.push(routes);
        self
    }

    /// Serves this as `/metrics`: the page of the metrics recorder that the program has installed.
    pub fn metrics(mut self, page: Ask<String>) -> Self {
        self.extras.metrics = Some(page);
        self
    }

    /// Starts it on the calling thread's actix system and returns once it listens; it joins its group meanwhile.
    pub async fn start(self) -> Result<Running, Error> {
        actix_rt::System::try_current().ok_or(Error::NoSystem)?;
        let Self { config, role, spawner, log, extras } = self;
        if role.works() && spawner.is_none() {
            return Err(config_error("a pipeline with workers needs a handler: call `handler` or `routes`"));
        }
        let memory = MemoryBudget::divide(config.memory.budget.as_u64(), config.limits.max_task.as_u64())
            .map_err(ConfigError)?;
        let config = Arc::new(config);
        let (log, consumer) = match log {
            Some(own) => own,
            None => open::open(&config, &memory, role).await?,
        };
        let status = Arc::new(PipelineStatus::new(log.partitions()));
        let task_states = Arc::new(TaskStates::new(log.clone(), status.clone(), &memory));
        let shared = Shared { status, config, log, memory, task_states };
        // Listeners first: an address that is taken is found before any partition is.
        let listeners = listeners::open(&shared, role, extras).await?;
        let workers = match (role.works(), spawner, consumer) {
            (false, ..) => Ok(None),
            (true, Some(spawner), Some(consumer)) => workers::start(&shared, spawner, consumer).map(Some),
            (true, ..) => Err(config_error("a pipeline with workers needs a consumer of its log")),
        };
        let workers = match workers {
            Ok(workers) => workers,
            Err(error) => {
                listeners.close().await;
                return Err(error);
            }
        };
        Ok(Running::new(shared, workers, listeners))
    }

    /// Starts it and runs it until SIGTERM or Ctrl-C, then stops it in order. A second signal ends the process at once,
    /// with exit code 1.
    pub async fn run(self) -> Result<(), Error> {
        self.start().await?.run().await
    }

    /// Starts it and runs it until `stop`, then stops it in order.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        self.start().await?.run_until(stop).await
    }
}

impl fmt::Debug for PipelineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineBuilder").field("role", &self.role).finish_non_exhaustive()
    }
}

fn config_error(message: &str) -> Error {
    Error::Config(ConfigError(message.into()))
}
