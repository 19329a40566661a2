//! How far each partition is behind, looked at while bounds are set: for the front door, which refuses the tasks of those that are too far.

use crate::{
    log::TaskLog,
    metrics::{PARTITION_BACKLOG_AGE_SECONDS, PARTITION_BACKLOG_TASKS},
};
use metrics::{Gauge, gauge};
use partita_core::{Backlog, BacklogBounds, Behind, Partition};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{task::JoinHandle, time::Instant};

/// How often the log is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How old what is known may be: after that nothing is held against a partition.
const STALE: Duration = Duration::from_secs(30);

/// What is known, for any thread.
#[derive(Debug)]
pub(crate) struct Backlogs {
    behind: RwLock<(Instant, Vec<Option<Behind>>)>,
}

/// The looking, until this is dropped.
pub(crate) struct Looking(JoinHandle<()>);

impl Backlogs {
    /// Looks at the log from now on, on the calling thread's actix system. `None` where nothing is bounded.
    pub(crate) fn watch(log: Arc<dyn TaskLog>, bounds: BacklogBounds) -> Option<(Arc<Self>, Looking)> {
        if bounds == BacklogBounds::default() {
            return None;
        }
        let partitions = log.partitions() as usize;
        let backlogs = Arc::new(Self { behind: RwLock::new((Instant::now(), vec![None; partitions])) });
        let looking = actix_rt::spawn(look(backlogs.clone(), log, bounds));
        Some((backlogs, Looking(looking)))
    }

    /// By how much a partition is too far behind.
    pub(crate) fn of(&self, partition: Partition) -> Option<Behind> {
        let behind = self.behind.read().unwrap_or_else(PoisonError::into_inner);
        let (seen, behind) = &*behind;
        let behind = behind.get(partition.0 as usize).copied().flatten()?;
        (seen.elapsed() <= STALE).then_some(behind)
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn look(backlogs: Arc<Backlogs>, log: Arc<dyn TaskLog>, bounds: BacklogBounds) {
    let began = Instant::now();
    let mut partitions: Vec<_> = (0..log.partitions()).map(|number| Watched::new(&log, number)).collect();
    loop {
        match log.backlog().await {
            Ok(reaches) => {
                let now = began.elapsed();
                for reach in reaches {
                    if let Some(watched) = partitions.get_mut(reach.partition.0 as usize) {
                        watched.backlog.observe(reach.committed.unwrap_or(reach.first), reach.end, now);
                        watched.seen = now;
                    }
                }
                let behind = partitions.iter_mut().map(|watched| watched.judge(bounds, now)).collect();
                *backlogs.behind.write().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), behind);
            }
            Err(error) => tracing::debug!(%error, "the partitions' backlogs are not known"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Watched {
    partition: u32,
    backlog: Backlog,
    /// When the log knew of it.
    seen: Duration,
    tasks: Gauge,
    age: Gauge,
}

impl Watched {
    fn new(log: &Arc<dyn TaskLog>, partition: u32) -> Self {
        let gauge = |name: &'static str| gauge!(name, "topic" => log.topic().to_owned(), "partition" => partition.to_string());
        let (tasks, age) = (gauge(PARTITION_BACKLOG_TASKS), gauge(PARTITION_BACKLOG_AGE_SECONDS));
        Self { partition, backlog: Backlog::default(), seen: Duration::ZERO, tasks, age }
    }

    fn judge(&mut self, bounds: BacklogBounds, now: Duration) -> Option<Behind> {
        if now.saturating_sub(self.seen) > STALE {
            return None;
        }
        let was_behind = self.backlog.is_refusing();
        let behind = self.backlog.judge(bounds, now);
        self.tasks.set(self.backlog.tasks() as f64);
        self.age.set(self.backlog.age(now).as_secs_f64());
        let partition = self.partition;
        match (was_behind, behind) {
            (false, Some(Behind { tasks, age, .. })) => {
                tracing::warn!(
                    partition,
                    tasks,
                    ?age,
                    "the partition is too far behind: its tasks are refused"
                );
            }
            (true, None) => {
                tracing::info!(partition, "the partition has caught up: its tasks are taken again")
            }
            _ => {}
        }
        behind
    }
}
