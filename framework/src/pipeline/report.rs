//! `/admin/v1/status` and `/admin/v1/partitions`: what a pipeline says about itself, as JSON.

use super::{Role, Shared};
use crate::{config::LogKind, memory::MemoryPool, status::PartitionStatus};
use serde_json::{Value, json};

/// The whole process.
pub(super) fn status(shared: &Shared, role: Role, not_ready: &[String]) -> Value {
    let (log, memory) = (&shared.log, &shared.memory);
    let mut budget = serde_json::Map::from_iter([("budget".to_owned(), memory.total().into())]);
    budget.extend(memory.pools().map(|one| (one.name().to_owned(), pool(one))));
    let owned = shared.status.partitions();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "role": role_name(role),
        "ready": not_ready.is_empty(),
        "reasons": not_ready,
        "draining": shared.status.draining(),
        "log": {
            "kind": match shared.config.log.kind {
                LogKind::Embedded => "embedded",
                LogKind::Kafka => "kafka",
            },
            "topic": log.topic(),
            "topic_id": log.topic_id(),
            "partitions": log.partitions(),
        },
        "memory": budget,
        "workers": role.works().then(|| json!({
            "joined": shared.status.joined(),
            "partitions": owned.len(),
            "queue_tasks": owned.iter().map(|one| one.queue_tasks).sum::<u64>(),
            "queue_bytes": owned.iter().map(|one| one.queue_bytes).sum::<u64>(),
        })),
    })
}

/// The partitions that this process owns, in order.
pub(super) fn partitions(shared: &Shared) -> Value {
    let partitions: Vec<_> = shared.status.partitions().iter().map(partition).collect();
    json!({ "topic": shared.log.topic(), "partitions": partitions })
}

fn partition(one: &PartitionStatus) -> Value {
    json!({
        "partition": one.partition.0,
        "epoch": one.epoch.to_string(),
        "state": one.activity.label(),
        "committed": one.committed.map(|offset| offset.0),
        "committable": one.committable.0,
        "high_watermark": one.high_watermark.map(|offset| offset.0),
        "lag": one.lag(),
        "endangered_tasks": one.endangered_tasks(),
        "queue_tasks": one.queue_tasks,
        "queue_bytes": one.queue_bytes,
        "paused": one.paused,
        "in_flight_since_ms": one.in_flight_since_ms,
        "attempt": one.attempt,
        "waiting_for": one.waiting_for,
        "parked_keys": one.parked_keys,
        "parked_tasks": one.parked_tasks,
        "halted": one.halted,
    })
}

fn pool(pool: &MemoryPool) -> Value {
    json!({ "capacity": pool.capacity(), "reserved": pool.reserved() })
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::All => "all",
        Role::FrontDoor => "front-door",
        Role::Worker => "worker",
    }
}
