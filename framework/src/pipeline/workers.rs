//! The workers of a pipeline: the consumer's thread, the arbiters, the supervisor.

use super::{Shared, running::workers_grace};
use crate::{
    Error,
    actor::{Dismiss, Events, Policy, Shutdown, Spawner, Supervisor, SupervisorSetup},
    config::Config,
    log::{ConsumerEvent, ConsumerHandle, ConsumerPort, TaskConsumer, Tenure},
};
use actix_rt::{Arbiter, ArbiterHandle};
use partita_core::{BreakerPolicy, Exit, MemberConfig};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Duration,
};
use tokio::sync::watch;

/// How long an answer to a commit is awaited.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Between the restarts of a partition's actor.
const RESTART_BACKOFF: Duration = Duration::from_millis(100);
const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Running workers.
#[derive(Debug)]
pub(crate) struct Workers {
    supervisor: actix::Addr<Supervisor>,
    exit: watch::Receiver<Option<Exit>>,
    arbiters: Vec<Arbiter>,
}

/// Starts workers on arbiters of their own, with the consumer on a thread of its own.
pub(crate) fn start(
    shared: &Shared,
    spawner: Spawner,
    consumer: Box<dyn TaskConsumer>,
) -> Result<Workers, Error> {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let threads = shared.config.worker.threads.unwrap_or_else(cores).max(1);
    let arbiters: Vec<Arbiter> = (0..threads).map(|_| Arbiter::new()).collect();
    let handles = arbiters.iter().map(Arbiter::handle).collect();
    let tenure = consumer.tenure();
    let attach = |events| attach_thread(consumer, events);
    let (supervisor, exit) = supervise(shared, spawner, handles, tenure, attach)?;
    Ok(Workers { supervisor, exit, arbiters })
}

/// Starts a supervisor over these arbiters and whatever consumer `attach` starts.
pub(crate) fn supervise<E>(
    shared: &Shared,
    spawner: Spawner,
    arbiters: Vec<ArbiterHandle>,
    tenure: Tenure,
    attach: impl FnOnce(Events) -> Result<ConsumerHandle, E>,
) -> Result<(actix::Addr<Supervisor>, watch::Receiver<Option<Exit>>), E> {
    let (exit, exited) = watch::channel(None);
    let setup = SupervisorSetup {
        member: member(&shared.config, &tenure),
        policy: policy(&shared.config),
        log: shared.log.clone(),
        decode: shared.memory.decode.clone(),
        index: shared.memory.parked.clone(),
        tenure,
        spawner,
        arbiters,
        status: shared.status.clone(),
        exit,
    };
    Ok((Supervisor::launch(setup, attach)?, exited))
}

impl Workers {
    /// Returns when they have ended, and how.
    pub(crate) async fn ended(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await.map(|exit| *exit) {
            Ok(Some(exit)) => exit,
            // The supervisor is gone without a word: its arbiter was stopped under it.
            Ok(None) | Err(_) => Exit::Fatal,
        }
    }

    /// Drains, commits and leaves the group.
    pub(crate) async fn stop(&self) -> Exit {
        self.supervisor.do_send(Shutdown);
        self.ended().await
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.supervisor.do_send(Dismiss);
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}

fn attach_thread(consumer: Box<dyn TaskConsumer>, events: Events) -> Result<ConsumerHandle, Error> {
    let (sender, commands) = crossbeam_channel::unbounded();
    let waker = consumer.waker();
    let last = events.clone();
    let port = ConsumerPort { events: Box::new(move |event| events(event)), commands };
    thread::Builder::new()
        .name("partita-consumer".into())
        .spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| consumer.run(port))).is_err() {
                last(ConsumerEvent::Fatal("the consumer's thread panicked".into()));
            }
        })
        .map_err(Error::Thread)?;
    Ok(ConsumerHandle { commands: sender, waker })
}

fn member(config: &Config, tenure: &Tenure) -> MemberConfig {
    MemberConfig {
        birth: tenure.birth(),
        commit_interval: config.commit.interval,
        commit_timeout: COMMIT_TIMEOUT,
        drain_timeout: config.worker.drain_timeout,
        shutdown_timeout: workers_grace(config),
        restart_backoff: RESTART_BACKOFF,
        restart_backoff_max: RESTART_BACKOFF_MAX,
    }
}

fn policy(config: &Config) -> Policy {
    Policy {
        retry: config.retry.policy(),
        // Refused when the configuration was read, where one is wrong.
        retry_by_type: config.retry.policies().unwrap_or_default().into(),
        breaker: BreakerPolicy { tasks: config.retry.breaker_tasks, window: config.retry.breaker_window },
        task_timeout: config.worker.task_timeout,
        drain_timeout: config.worker.drain_timeout,
        max_task: config.limits.max_task.as_u64(),
    }
}
