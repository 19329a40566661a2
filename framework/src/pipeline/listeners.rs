//! The HTTP listeners of a pipeline: the front door and the operators' port.

use super::{
    Role, Shared,
    backlogs::{Backlogs, Looking},
    report,
};
use crate::{
    Error,
    admin::{self, AdminHandle, AdminSources, Ask},
    front_door::{FrontDoor, FrontDoorHandle, FrontDoorOptions, LogHealthNow, Routes},
    log::LogHealth,
    metrics::{MEMORY_BUDGET_BYTES, MEMORY_RESERVED_BYTES, READY},
};
use partita_core::{BacklogBounds, Partition, PartitionHealth};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// How long a body that was begun may take to become whole once the process stops.
const LAST_BODIES: Duration = Duration::from_secs(2);

/// What the program adds to the listeners.
#[derive(Clone, Default)]
pub(crate) struct Extras {
    /// Routes beside the front door's own.
    pub(crate) routes: Vec<Routes>,
    /// The page of metrics.
    pub(crate) metrics: Option<Ask<String>>,
}

/// Open listeners.
pub(crate) struct Listeners {
    front_door: Option<FrontDoorHandle>,
    _looking: Option<Looking>,
    admin: AdminHandle,
}

/// Opens what the role needs.
pub(crate) async fn open(shared: &Shared, role: Role, extras: Extras) -> Result<Listeners, Error> {
    let admin = admin::start(shared.config.admin.listen, sources(shared, role, extras.metrics))?;
    if !role.accepts() {
        return Ok(Listeners { front_door: None, _looking: None, admin });
    }
    let door = &shared.config.front_door;
    let bounds = BacklogBounds { tasks: door.backlog_tasks, age: door.backlog_age };
    let (backlogs, looking) = Backlogs::watch(shared.log.clone(), bounds).unzip();
    match FrontDoor::new(options(shared, extras.routes, backlogs)).and_then(FrontDoor::start) {
        Ok(front_door) => Ok(Listeners { front_door: Some(front_door), _looking: looking, admin }),
        Err(error) => {
            admin.stop().await;
            Err(error)
        }
    }
}

fn options(shared: &Shared, routes: Vec<Routes>, backlogs: Option<Arc<Backlogs>>) -> FrontDoorOptions {
    let (log, status) = (shared.log.clone(), shared.status.clone());
    let log_health: LogHealthNow = {
        let status = status.clone();
        // The reading half may notice first that the log is away.
        Arc::new(move || match log.health() {
            LogHealth::Ready => status.away().map_or(LogHealth::Ready, LogHealth::Away),
            other => other,
        })
    };
    FrontDoorOptions {
        config: shared.config.front_door.clone(),
        max_task: shared.config.limits.max_task.as_u64(),
        log: shared.log.clone(),
        log_health,
        intake: shared.memory.intake.clone(),
        partition_health: Arc::new(move |partition: Partition| match &backlogs {
            _ if status.is_stuck(partition) => PartitionHealth::Stuck,
            Some(backlogs) => backlogs.of(partition).map_or(PartitionHealth::Open, PartitionHealth::Behind),
            None => PartitionHealth::Open,
        }),
        task_states: Some(shared.task_states.clone()),
        routes,
    }
}

fn sources(shared: &Shared, role: Role, metrics: Option<Ask<String>>) -> AdminSources {
    let not_ready: Ask<Vec<String>> = {
        let shared = shared.clone();
        Arc::new(move || shared.status.unready(shared.log.health(), role.works()))
    };
    let (of_page, of_status, of_partitions) = (shared.clone(), shared.clone(), shared.clone());
    let (ready_for_page, ready_for_status) = (not_ready.clone(), not_ready.clone());
    AdminSources {
        metrics: Arc::new(move || {
            set_gauges(&of_page, ready_for_page().is_empty());
            metrics.as_ref().map_or_else(|| "# this program has no page of metrics\n".into(), |page| page())
        }),
        not_ready,
        status: Arc::new(move || report::status(&of_status, role, &ready_for_status())),
        partitions: Arc::new(move || report::partitions(&of_partitions)),
        operations: shared.operations(),
        token: shared.config.admin.token.clone(),
    }
}

/// What is only known by asking is asked for at each scrape.
fn set_gauges(shared: &Shared, ready: bool) {
    metrics::gauge!(READY).set(if ready { 1.0 } else { 0.0 });
    metrics::gauge!(MEMORY_BUDGET_BYTES).set(shared.memory.total() as f64);
    for pool in shared.memory.pools() {
        metrics::gauge!(MEMORY_RESERVED_BYTES, "use" => pool.name()).set(pool.reserved() as f64);
    }
}

impl Listeners {
    /// Where tasks are taken.
    pub(crate) fn front_door(&self) -> Option<SocketAddr> {
        self.front_door.as_ref().map(FrontDoorHandle::address)
    }

    /// Where operators ask.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Takes no more tasks, and returns when those that were begun are answered.
    pub(crate) async fn stop_intake(&self) {
        if let Some(front_door) = &self.front_door {
            front_door.drain(LAST_BODIES).await;
        }
    }

    /// Closes what is still open.
    pub(crate) async fn close(self) {
        if let Some(front_door) = &self.front_door {
            front_door.stop().await;
        }
        self.admin.stop().await;
    }
}
