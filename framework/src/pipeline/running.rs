//! A pipeline that runs, and its end: each step waits for the one before, all of them within one deadline.

use super::{Shared, listeners::Listeners, workers::Workers};
use crate::{
    Config, Error, log::TaskLog, memory::MemoryBudget, operations::Operations, status::PipelineStatus,
    task_state::TaskStates,
};
use partita_core::Exit;
use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;

/// A started pipeline.
pub struct Running {
    pub(super) shared: Shared,
    workers: Option<Workers>,
    listeners: Mutex<Option<Listeners>>,
    front_door: Option<SocketAddr>,
    admin: SocketAddr,
}

impl Running {
    pub(crate) fn new(shared: Shared, workers: Option<Workers>, listeners: Listeners) -> Self {
        let (front_door, admin) = (listeners.front_door(), listeners.admin());
        Self { shared, workers, listeners: Mutex::new(Some(listeners)), front_door, admin }
    }

    /// Where tasks are taken, with the port that was chosen where 0 was asked for; none for a worker.
    pub fn front_door(&self) -> Option<SocketAddr> {
        self.front_door
    }

    /// What operators may ask, for the program itself.
    pub fn operations(&self) -> Operations {
        self.shared.operations()
    }

    /// Where operators ask.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Runs until SIGTERM or Ctrl-C, then stops in order. A second signal ends the process at once, with exit code 1.
    pub async fn run(&self) -> Result<(), Error> {
        self.run_until(signal()).await
    }

    /// Runs until `stop`, then stops in order.
    pub async fn run_until(&self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        tokio::select! {
            ended = self.wait() => return ended,
            () = stop => {}
        }
        self.shutdown().await
    }

    /// What it says about itself.
    pub fn status(&self) -> Arc<PipelineStatus> {
        self.shared.status.clone()
    }

    /// What became of tasks, as `GET /v1/tasks/{partition}-{offset}` tells it.
    pub fn task_states(&self) -> Arc<TaskStates> {
        self.shared.task_states.clone()
    }

    /// The log, for appending tasks without HTTP.
    pub fn task_log(&self) -> Arc<dyn TaskLog> {
        self.shared.log.clone()
    }

    /// The memory that tasks are reserved from.
    pub fn memory(&self) -> MemoryBudget {
        self.shared.memory.clone()
    }

    /// Returns when the workers have ended: by `shutdown`, or because the log's client failed for good. A front door
    /// alone never ends by itself.
    pub async fn wait(&self) -> Result<(), Error> {
        match &self.workers {
            Some(workers) => self.verdict(workers.ended().await),
            None => std::future::pending().await,
        }
    }

    /// Stops in order: not ready, no more tasks taken, those begun answered, handlers drained, offsets committed, the
    /// group left. Within `shutdown.deadline`; what does not fit is cut short, and its tasks are handled again later.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.shared.status.set_draining();
        tracing::info!("stopping");
        let deadline = self.shared.config.shutdown.deadline;
        let ended = timeout(deadline, self.stop_in_order()).await.unwrap_or_else(|_| {
            tracing::warn!(?deadline, "stopping took too long and was cut short");
            Ok(())
        });
        tracing::info!("stopped");
        ended
    }

    async fn stop_in_order(&self) -> Result<(), Error> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listeners) = &listeners {
            let grace = intake_grace(&self.shared.config);
            if timeout(grace, listeners.stop_intake()).await.is_err() {
                tracing::warn!(?grace, "some requests were not answered in time");
            }
        }
        let exit = match &self.workers {
            Some(workers) => workers.stop().await,
            None => Exit::Clean,
        };
        // Only now: a task in hand may still have had to be put aside.
        self.shared.log.close().await;
        if let Some(listeners) = listeners {
            listeners.close().await;
        }
        self.verdict(exit)
    }

    fn verdict(&self, exit: Exit) -> Result<(), Error> {
        match exit {
            Exit::Clean => Ok(()),
            Exit::CutShort => {
                tracing::warn!("the workers were cut short; their tasks in hand will be handled again");
                Ok(())
            }
            Exit::Fatal => Err(Error::Fatal(self.shared.status.fatal().unwrap_or_default())),
        }
    }
}

/// The share of `shutdown.deadline` that the requests already begun get.
fn intake_grace(config: &Config) -> Duration {
    config.shutdown.deadline / 4
}

/// The share of `shutdown.deadline` that the workers get.
pub(super) fn workers_grace(config: &Config) -> Duration {
    config.shutdown.deadline * 7 / 10
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("status", &self.shared.status).finish_non_exhaustive()
    }
}

/// Returns at the first SIGTERM or Ctrl-C; from then on the next one ends the process at once.
async fn signal() {
    one_signal().await;
    actix_rt::spawn(async {
        one_signal().await;
        tracing::error!("a second signal: ending at once");
        std::process::exit(1);
    });
}

async fn one_signal() {
    use tokio::signal::{
        ctrl_c,
        unix::{SignalKind, signal},
    };
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be listened for");
            let _ = ctrl_c().await;
        }
    }
}
