//! What the supervisor measures: rebalances, commits, restarts, and the gauges of the owned partitions.

use crate::{
    metrics as names,
    status::{Activity, PartitionStatus, PipelineStatus},
};
use metrics::{counter, gauge, histogram};
use partita_core::{CommitId, Counted, Intent, Partition};
use std::{collections::BTreeMap, sync::Arc};
use tokio::time::Instant;

pub(crate) struct Telemetry {
    topic: Arc<str>,
    commits: BTreeMap<CommitId, Instant>,
    revocations: BTreeMap<Intent, Instant>,
}

impl Telemetry {
    pub(crate) fn new(topic: &str) -> Self {
        Self { topic: topic.into(), commits: BTreeMap::new(), revocations: BTreeMap::new() }
    }

    pub(crate) fn rebalance(&self, event: &'static str) {
        counter!(names::REBALANCES_TOTAL, "event" => event).increment(1);
    }

    pub(crate) fn revoking(&mut self, intent: Intent) {
        self.revocations.insert(intent, Instant::now());
    }

    pub(crate) fn revoked(&mut self, intent: Intent) {
        if let Some(began) = self.revocations.remove(&intent) {
            histogram!(names::REBALANCE_DRAIN_DURATION_SECONDS).record(began.elapsed().as_secs_f64());
        }
    }

    pub(crate) fn committing(&mut self, commit: CommitId) {
        // One commit is in flight at a time: what is older was given up.
        self.commits.clear();
        self.commits.insert(commit, Instant::now());
    }

    pub(crate) fn committed(&mut self, commit: CommitId, ok: bool) {
        let outcome = if ok { "ok" } else { "failed" };
        counter!(names::COMMITS_TOTAL, "outcome" => outcome).increment(1);
        if let Some(began) = self.commits.remove(&commit) {
            histogram!(names::COMMIT_DURATION_SECONDS).record(began.elapsed().as_secs_f64());
        }
    }

    pub(crate) fn restart(&self) {
        counter!(names::ACTOR_RESTARTS_TOTAL, "reason" => "failed").increment(1);
    }

    pub(crate) fn count(&self, counted: Counted) {
        match counted {
            Counted::StaleReport | Counted::StaleCommit => counter!(names::STALE_REPORTS_TOTAL).increment(1),
            Counted::Violation(invariant) => {
                tracing::error!(invariant, "an invariant was about to break");
                let invariant = invariant.to_string();
                counter!(names::INVARIANT_VIOLATIONS_TOTAL, "invariant" => invariant).increment(1);
            }
        }
    }

    pub(crate) fn publish(&self, status: &PipelineStatus) {
        status.partitions().iter().for_each(|partition| self.show(partition));
    }

    fn show(&self, status: &PartitionStatus) {
        let gauge = |name| self.gauge(name, status.partition);
        gauge(names::PARTITION_ASSIGNED).set(1);
        gauge(names::PARTITION_QUEUE_TASKS).set(status.queue_tasks as f64);
        gauge(names::PARTITION_QUEUE_BYTES).set(status.queue_bytes as f64);
        let since = status.in_flight_since_ms.unwrap_or_default() as f64 / 1e3;
        gauge(names::PARTITION_IN_FLIGHT_START_TIMESTAMP_SECONDS).set(since);
        gauge(names::PARTITION_PARKED_KEYS).set(status.parked_keys as f64);
        gauge(names::PARTITION_PARKED_TASKS).set(status.parked_tasks as f64);
        if let Some(lag) = status.lag() {
            gauge(names::CONSUMER_LAG_RECORDS).set(lag as f64);
        }
        gauge(names::PARTITION_ENDANGERED_TASKS).set(status.endangered_tasks() as f64);
        self.show_activity(status.partition, Some(status.activity));
    }

    /// A gauge cannot be taken back: what is not owned any more shows 0.
    pub(crate) fn clear(&self, partition: Partition) {
        for name in [
            names::PARTITION_ASSIGNED,
            names::PARTITION_QUEUE_TASKS,
            names::PARTITION_QUEUE_BYTES,
            names::PARTITION_IN_FLIGHT_START_TIMESTAMP_SECONDS,
            names::CONSUMER_LAG_RECORDS,
            names::PARTITION_PARKED_KEYS,
            names::PARTITION_PARKED_TASKS,
            names::PARTITION_ENDANGERED_TASKS,
        ] {
            self.gauge(name, partition).set(0);
        }
        self.show_activity(partition, None);
    }

    fn show_activity(&self, partition: Partition, present: Option<Activity>) {
        for activity in Activity::ALL {
            let labels = [
                ("topic", self.topic.to_string()),
                ("partition", partition.to_string()),
                ("state", activity.label().to_owned()),
            ];
            gauge!(names::PARTITION_STATE, &labels).set(f64::from(u8::from(present == Some(activity))));
        }
    }

    fn gauge(&self, name: &'static str, partition: Partition) -> metrics::Gauge {
        gauge!(name, "topic" => self.topic.to_string(), "partition" => partition.to_string())
    }
}
