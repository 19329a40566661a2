//! The writer's metrics.

use crate::metrics as names;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Looked up once.
pub(super) struct Meters {
    pub(super) ok: Counter,
    pub(super) not_written: Counter,
    pub(super) unknown: Counter,
    pub(super) latency: Histogram,
    pub(super) deletion: Histogram,
    pub(super) queue_records: Gauge,
    pub(super) queue_bytes: Gauge,
}

impl Meters {
    pub(super) fn new(topic: &'static str) -> Self {
        let outcome = |outcome: &'static str| counter!(names::PRODUCER_DELIVERIES_TOTAL, "topic" => topic, "outcome" => outcome);
        Self {
            ok: outcome("ok"),
            not_written: outcome("not_written"),
            unknown: outcome("unknown"),
            latency: histogram!(names::PRODUCER_ACK_DURATION_SECONDS),
            deletion: histogram!(names::EMBEDDED_DELETION_DURATION_SECONDS),
            queue_records: gauge!(names::PRODUCER_QUEUE_MESSAGES),
            queue_bytes: gauge!(names::PRODUCER_QUEUE_BYTES),
        }
    }
}
