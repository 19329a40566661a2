//! Which comparisons there are.

use crate::fill::Fill;

/// One comparison.
#[derive(Debug, Clone)]
pub enum Row {
    /// Consuming.
    Worker(WorkerRow),
    /// Accepting.
    Door(DoorRow),
    /// Accepting many at once.
    Batch(BatchRow),
}

impl Row {
    /// What `--rows` selects by.
    pub fn name(&self) -> &str {
        match self {
            Self::Worker(row) => row.name,
            Self::Door(row) => &row.name,
            Self::Batch(row) => &row.name,
        }
    }
}

/// Both sides read the same topic from end to end.
#[derive(Debug, Clone)]
pub struct WorkerRow {
    /// Its name.
    pub name: &'static str,
    /// The payload's size.
    pub size: usize,
    /// How many records, before `--scale`.
    pub records: u64,
    /// How many partitions.
    pub partitions: u32,
    /// Whether the topic's batches are compressed.
    pub zstd_batches: bool,
    /// What each record's handler waits.
    pub handler_ms: u64,
}

impl WorkerRow {
    /// What payloads are made of: those that are to be compressed must be compressible.
    pub fn fill(&self) -> Fill {
        if self.zstd_batches { Fill::Json } else { Fill::Random }
    }
}

/// Where a front door stores what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A topic.
    Kafka,
    /// A directory.
    Embedded,
}

/// Both sides take the same load.
#[derive(Debug, Clone)]
pub struct DoorRow {
    /// Its name.
    pub name: String,
    /// Where tasks are stored.
    pub backend: Backend,
    /// The body's size, as `partita bench --size` takes it.
    pub size: &'static str,
    /// How many clients at once.
    pub clients: u32,
    /// How many partitions.
    pub partitions: u32,
    /// Tasks are sent when they are due, half as many a second as the bare door takes at most. The ratio is that of the 99th percentiles of
    /// their answers. Otherwise each client sends its next task when it has an answer.
    pub open_loop: bool,
}

/// How many tasks of 1 KB are written down in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A CloudEvent a line.
    Lines,
    /// A JSON array of CloudEvents.
    Json,
    /// `partita.v1.TaskBatch`, each task with a source and an id, which are its name.
    Protobuf,
    /// The same without names.
    ProtobufUnnamed,
}

/// Tasks of 1 KB one at a time, and many in a request, to the same front door.
#[derive(Debug, Clone)]
pub struct BatchRow {
    /// Its name.
    pub name: String,
    /// Where tasks are stored.
    pub backend: Backend,
    /// How they are written.
    pub format: Format,
}

/// Every row, in the order of the tables.
pub(super) fn all() -> Vec<Row> {
    let worker = |name, size, records, partitions| WorkerRow {
        name,
        size,
        records,
        partitions,
        zstd_batches: false,
        handler_ms: 0,
    };
    let mut rows: Vec<Row> = [
        worker("worker/1KB", 1 << 10, 3_000_000, 64),
        worker("worker/10KB", 10 << 10, 400_000, 64),
        WorkerRow { zstd_batches: true, ..worker("worker/10KB-zstd", 10 << 10, 600_000, 64) },
        worker("worker/100KB", 100 << 10, 40_000, 64),
        worker("worker/10KB-768p", 10 << 10, 300_000, 768),
        worker("worker/50MB", 50_000_000, 80, 8),
        WorkerRow { handler_ms: 5, ..worker("worker/1KB-5ms", 1 << 10, 64_000, 64) },
    ]
    .map(Row::Worker)
    .into();
    for (backend, place) in [(Backend::Kafka, "kafka"), (Backend::Embedded, "embedded")] {
        for (size, clients, partitions, open_loop) in [
            ("1KiB", 1, 16, false),
            ("1KiB", 64, 16, false),
            ("1KiB", 256, 16, false),
            ("10KiB", 1, 16, false),
            ("10KiB", 64, 16, false),
            ("10KiB", 256, 16, false),
            ("10KiB", 256, 256, false),
            ("10KiB", 64, 16, true),
            ("100KiB", 64, 16, false),
            ("1MiB", 16, 16, false),
            ("20MiB", 4, 16, false),
        ] {
            let many = if partitions == 16 { String::new() } else { format!("-{partitions}p") };
            let open = if open_loop { "-open" } else { "" };
            let name = format!("door-{place}/{}-{clients}{many}{open}", size.replace("iB", "B"));
            rows.push(Row::Door(DoorRow { name, backend, size, clients, partitions, open_loop }));
        }
        for (format, called) in [
            (Format::Lines, "ndjson"),
            (Format::Json, "json"),
            (Format::Protobuf, "protobuf"),
            (Format::ProtobufUnnamed, "protobuf-unnamed"),
        ] {
            rows.push(Row::Batch(BatchRow { name: format!("batch-{place}/{called}"), backend, format }));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let rows = all();
        let names: BTreeSet<&str> = rows.iter().map(Row::name).collect();
        assert_eq!(names.len(), rows.len());
    }
}
