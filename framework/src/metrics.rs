//! The one catalogue of metrics. Code names a metric by its constant here; METRICS.md is generated from it, and the
//! dashboards may name nothing outside it.
//!
//! The library only speaks to the `metrics` facade: the program that embeds it installs the recorder it likes.

/// What a metric is, which decides its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A histogram of 1 ms to 10 s.
    Latency,
    /// A histogram of 1 ms to 15 min.
    TaskTime,
    /// A histogram of 1 ms to 1 h.
    EndToEnd,
    /// A histogram of 256 B to 256 MiB.
    Size,
}

impl Kind {
    /// The upper bounds of a histogram's buckets; empty for the others.
    pub fn buckets(self) -> &'static [f64] {
        const TIMES: [f64; 20] = [
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
            900.0, 1800.0, 2700.0, 3600.0,
        ];
        const SIZES: [f64; 11] = [
            256.0,
            1024.0,
            4096.0,
            16384.0,
            65536.0,
            262144.0,
            1048576.0,
            4194304.0,
            16777216.0,
            67108864.0,
            268435456.0,
        ];
        match self {
            Self::Counter | Self::Gauge => &[],
            Self::Latency => &TIMES[..13],
            Self::TaskTime => &TIMES[..17],
            Self::EndToEnd => &TIMES,
            Self::Size => &SIZES,
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, with the prefix.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($($constant:ident, $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: &str = $name;)*

        /// Every metric there is.
        pub const CATALOGUE: &[Metric] =
            &[$(Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help }),*];
    };
}

catalogue! {
    HTTP_REQUESTS_TOTAL, "partita_http_requests_total", Counter, ["route", "method", "code"], "Requests answered by the front door.";
    HTTP_REQUEST_DURATION_SECONDS, "partita_http_request_duration_seconds", Latency, ["route"], "From the request's head to its answer, the body's arrival included.";
    HTTP_REQUEST_BODY_BYTES, "partita_http_request_body_bytes", Size, [], "Payload sizes of accepted tasks, without any compression.";
    HTTP_REQUESTS_IN_FLIGHT, "partita_http_requests_in_flight", Gauge, [], "Requests that are being received or answered.";
    HTTP_REJECTED_TOTAL, "partita_http_rejected_total", Counter, ["reason"], "Tasks that were refused, by problem code.";
    TASKS_ACCEPTED_TOTAL, "partita_tasks_accepted_total", Counter, [], "Tasks that were stored durably and answered 202.";
    TASKS_REPEATED_TOTAL, "partita_tasks_repeated_total", Counter, [], "Tasks that had been stored before under their idempotency key: answered 202 with the first receipt.";
    BACKPRESSURE_ACTIVE, "partita_backpressure_active", Gauge, ["reason"], "1 while the front door refuses tasks for this reason.";
    PRODUCER_DELIVERIES_TOTAL, "partita_producer_deliveries_total", Counter, ["topic", "outcome"], "Appends to the log by outcome: ok, not_written, unknown.";
    PRODUCER_ACK_DURATION_SECONDS, "partita_producer_ack_duration_seconds", Latency, [], "From an append's call to its durable receipt.";
    PRODUCER_QUEUE_MESSAGES, "partita_producer_queue_messages", Gauge, [], "Appends that wait for their receipt.";
    PRODUCER_QUEUE_BYTES, "partita_producer_queue_bytes", Gauge, [], "Bytes of appends that wait for their receipt.";
    EMBEDDED_DELETION_DURATION_SECONDS, "partita_embedded_deletion_duration_seconds", Latency, [], "One step of the deletion of old records from the embedded log: appends wait for as long.";
    CONSUMER_RECORDS_TOTAL, "partita_consumer_records_total", Counter, ["topic"], "Records delivered to partition actors.";
    CONSUMER_BYTES_TOTAL, "partita_consumer_bytes_total", Counter, ["topic"], "Bytes of keys and values delivered to partition actors.";
    CONSUMER_LAG_RECORDS, "partita_consumer_lag_records", Gauge, ["topic", "partition"], "High watermark minus committed offset. Absent while it is not known.";
    CONSUMER_LAST_POLL_TIMESTAMP_SECONDS, "partita_consumer_last_poll_timestamp_seconds", Gauge, [], "When the consumer thread last polled, as Unix time.";
    KAFKA_ERRORS_TOTAL, "partita_kafka_errors_total", Counter, ["code"], "Errors that the Kafka client reported, by librdkafka's code.";
    TASKS_PROCESSED_TOTAL, "partita_tasks_processed_total", Counter, ["topic", "outcome"], "Tasks that reached their end: done, parked or rejected.";
    TASK_DURATION_SECONDS, "partita_task_duration_seconds", TaskTime, ["outcome"], "One attempt of a task in its handler.";
    TASK_END_TO_END_SECONDS, "partita_task_end_to_end_seconds", EndToEnd, [], "From the front door's acceptance to the task's end.";
    TASK_RETRIES_TOTAL, "partita_task_retries_total", Counter, ["reason"], "Attempts that failed and were followed by another: error, panic, timeout, unavailable.";
    PARTITION_QUEUE_TASKS, "partita_partition_queue_tasks", Gauge, ["topic", "partition"], "Tasks delivered to the partition's actor that have not ended.";
    PARTITION_QUEUE_BYTES, "partita_partition_queue_bytes", Gauge, ["topic", "partition"], "Bytes of the tasks in the partition's queue.";
    PARTITION_IN_FLIGHT_START_TIMESTAMP_SECONDS, "partita_partition_in_flight_start_timestamp_seconds", Gauge, ["topic", "partition"], "When the task in hand was started, as Unix time; 0 while idle.";
    PARTITION_STATE, "partita_partition_state", Gauge, ["topic", "partition", "state"], "1 for the partition's present state (running, draining, retrying, unavailable, tripped, parking_full, halted), 0 for the others.";
    PARTITION_PARKED_KEYS, "partita_partition_parked_keys", Gauge, ["topic", "partition"], "Keys of the partition that are parked.";
    PARTITION_PARKED_TASKS, "partita_partition_parked_tasks", Gauge, ["topic", "partition"], "Tasks of the partition that are parked, those behind a parked one included.";
    PARTITION_ENDANGERED_TASKS, "partita_partition_endangered_tasks", Gauge, ["topic", "partition"], "Tasks of the partition that have not ended and that the topic's retention may soon delete: older than half of retention.ms, or, where retention.bytes has begun to delete, in the older half of the partition. Looked at once a minute.";
    PARTITION_BACKLOG_TASKS, "partita_partition_backlog_tasks", Gauge, ["topic", "partition"], "Tasks of the partition that have not ended, whoever works on it, as a front door sees it that bounds them.";
    PARTITION_BACKLOG_AGE_SECONDS, "partita_partition_backlog_age_seconds", Gauge, ["topic", "partition"], "For how long the oldest task of the partition that has not ended has waited at least, as a front door sees it that bounds it.";
    PARTITION_ASSIGNED, "partita_partition_assigned", Gauge, ["topic", "partition"], "1 while this process owns the partition.";
    REBALANCES_TOTAL, "partita_rebalances_total", Counter, ["event"], "Assignments, revocations and losses of partitions.";
    REBALANCE_DRAIN_DURATION_SECONDS, "partita_rebalance_drain_duration_seconds", TaskTime, [], "From a revocation to its completion.";
    COMMITS_TOTAL, "partita_commits_total", Counter, ["outcome"], "Commit requests by outcome: ok, failed.";
    COMMIT_DURATION_SECONDS, "partita_commit_duration_seconds", Latency, [], "From a commit request to its answer.";
    ACTOR_RESTARTS_TOTAL, "partita_actor_restarts_total", Counter, ["reason"], "Partition actors started again under a new epoch.";
    STALE_REPORTS_TOTAL, "partita_stale_reports_total", Counter, [], "Reports of another epoch, ignored.";
    PARKED_TASKS_TOTAL, "partita_parked_tasks_total", Counter, ["reason"], "Tasks stored in the parking topic or table: rejected, attempts, undecodable, unknown_type, parked, behind (a parked task of their key).";
    PARKED_TASKS_ENDED_TOTAL, "partita_parked_tasks_ended_total", Counter, ["outcome"], "Parked tasks that reached their end: done or rejected after a redrive, or dropped.";
    MEMORY_BUDGET_BYTES, "partita_memory_budget_bytes", Gauge, [], "memory.budget.";
    MEMORY_RESERVED_BYTES, "partita_memory_reserved_bytes", Gauge, ["use"], "Bytes reserved now, by use: intake (requests with their bodies), decode (decompressed payloads), parked (the index of parked tasks), states (what is remembered of tasks that did not simply succeed, to be asked for).";
    INVARIANT_VIOLATIONS_TOTAL, "partita_invariant_violations_total", Counter, ["invariant"], "Invariants of INVARIANTS.md that were seen broken. Must stay 0.";
    READY, "partita_ready", Gauge, [], "1 while /readyz answers 200.";
    BUILD_INFO, "partita_build_info", Gauge, ["version"], "Always 1.";
}

/// METRICS.md.
pub fn markdown() -> String {
    use std::fmt::Write;
    let mut page = String::from(
        "# Metrics\n\nGenerated from `framework/src/metrics.rs` by `PARTITA_UPDATE=1 cargo test -p partita --test metrics_page`.\n\n\
         Served by the admin listener at `/metrics`, for Prometheus. `partition` is a label on gauges only; when a partition goes\n\
         away its gauges go to 0. No key, task id or error text is ever a label.\n\n\
         | metric | kind | labels | tells |\n|---|---|---|---|\n",
    );
    for metric in CATALOGUE {
        let kind = match metric.kind {
            Kind::Counter => "counter".to_owned(),
            Kind::Gauge => "gauge".to_owned(),
            histogram => {
                let bounds = histogram.buckets();
                format!(
                    "histogram, {} buckets from {} to {}",
                    bounds.len(),
                    bounds[0],
                    bounds[bounds.len() - 1]
                )
            }
        };
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(page, "| `{}` | {kind} | {labels} | {} |", metric.name, metric.help);
    }
    page
}

/// Tells the installed recorder what each metric is.
pub fn describe() {
    for metric in CATALOGUE {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            _ => metrics::describe_histogram!(metric.name, metric.help),
        }
    }
}
