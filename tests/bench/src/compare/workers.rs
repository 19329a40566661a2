//! Worker rows: one topic, filled once, read from end to end by each side in turn, each time by a new group.

use super::{Line, Setup, WorkerRow, child, pairs, table::Run};
use crate::{
    fill::{Load, fill},
    topic,
    worker::WorkerReport,
};
use anyhow::{Result, ensure};

/// A topic that is deleted with this, and its parking topic with it.
pub(super) struct Topic<'a> {
    servers: &'a str,
    /// Its name.
    pub(super) name: String,
}

impl<'a> Topic<'a> {
    pub(super) fn create(servers: &'a str, partitions: u32) -> Result<Self> {
        let topic = Self { servers, name: format!("bench-{:08x}", rand::random::<u32>()) };
        topic::create(servers, &topic.name, partitions)?;
        topic::create(servers, &topic.parked(), partitions)?;
        Ok(topic)
    }

    /// As `partita topics create` makes it, with all that goes with it.
    pub(super) fn create_for_doors(setup: &'a Setup, partitions: u32) -> Result<Self> {
        let topic =
            Self { servers: &setup.bootstrap_servers, name: format!("bench-{:08x}", rand::random::<u32>()) };
        let mut command = child::program(setup, "partita");
        command.args(["topics", "create"]);
        for (setting, value) in [
            ("kind", "kafka"),
            ("kafka.bootstrap_servers", topic.servers),
            ("kafka.topic", &topic.name),
            ("kafka.partitions", &partitions.to_string()),
        ] {
            command.args(["--set", &format!("log.{setting}={value}")]);
        }
        let output = command.output()?;
        ensure!(output.status.success(), "topics create: {}", String::from_utf8_lossy(&output.stdout));
        Ok(topic)
    }

    fn parked(&self) -> String {
        format!("{}.parked", self.name)
    }
}

impl Drop for Topic<'_> {
    fn drop(&mut self) {
        let _ = topic::delete(self.servers, &self.name);
        let _ = topic::delete(self.servers, &self.parked());
        let _ = topic::delete(self.servers, &format!("{}.requests", self.name));
    }
}

pub(super) fn measure(setup: &Setup, row: &WorkerRow) -> Result<Line> {
    let servers = &setup.bootstrap_servers;
    let records = ((row.records as f64 * setup.cli.scale) as u64).max(u64::from(row.partitions));
    setup.say(&format!("{}: filling a topic with {records} records", row.name));
    let topic = Topic::create(servers, row.partitions)?;
    let load = Load {
        records,
        size: row.size,
        partitions: row.partitions,
        zstd_batches: row.zstd_batches,
        fill: row.fill(),
    };
    fill(servers, &topic.name, &load)?;
    let bare_program = if row.handler_ms > 0 { "bare-tokio" } else { &setup.cli.bare_worker };
    // The first read brings the records from the disk into the page cache, for both sides.
    run(setup, row, bare_program, &topic.name, records)?;
    let pairs = pairs(setup.cli.pairs, |bare| {
        let program = if bare { bare_program } else { "partita-worker" };
        let run = run(setup, row, program, &topic.name, records)?;
        setup.say(&format!("{}: {program} {:.0}/s, CPU {:.2} µs each", row.name, run.rate, run.cpu_us));
        Ok(run)
    })?;
    Ok(Line::new(row.name, (bare_program.to_owned(), "partita-worker".into()), &pairs))
}

fn run(setup: &Setup, row: &WorkerRow, program: &str, topic: &str, records: u64) -> Result<Run> {
    let mut command = child::program(setup, program);
    let group = format!("{topic}-{:08x}", rand::random::<u32>());
    command.args(["--bootstrap-servers", &setup.bootstrap_servers, "--topic", topic, "--group", &group]);
    command.args(["--handler-ms", &row.handler_ms.to_string()]);
    let properties =
        if program == "partita-worker" { &setup.cli.partita_properties } else { &setup.cli.bare_properties };
    for (name, value) in properties {
        command.args(["--property", &format!("{name}={value}")]);
    }
    let report: WorkerReport = child::report(command)?;
    ensure!(report.records == records, "{program} handled {} of {records} records", report.records);
    Ok(Run {
        rate: report.rate(),
        bytes_per_second: report.byte_rate(),
        cpu_us: report.cpu_us(),
        peak_rss: report.peak_rss,
        latency_ms: None,
    })
}
