//! Front door rows: the same load, from the same client program, against each side in turn, each time on a new log.

use super::{Backend, DoorRow, Line, Setup, child, child::Server, pairs, table::Run, workers::Topic};
use crate::usage;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::process::Command;

/// How many threads and producers a door has.
#[derive(Debug, Clone, Copy)]
struct Size {
    bare: bool,
    workers: usize,
    producers: usize,
}

impl Size {
    fn program(self, backend: Backend) -> String {
        let program = self.program_name(backend);
        let producers = if backend == Backend::Kafka {
            format!(" --producers {}", self.producers)
        } else {
            String::new()
        };
        format!("{program} --workers {}{producers}", self.workers)
    }

    fn program_name(self, backend: Backend) -> &'static str {
        match (self.bare, backend) {
            (true, Backend::Kafka) => "bare-door",
            (true, Backend::Embedded) => "bare-sqlite",
            (false, _) => "partita-door",
        }
    }
}

/// What is read of the load generator's report.
#[derive(Deserialize)]
struct LoadReport {
    acknowledged: u64,
    not_written: u64,
    unknown: u64,
    retries: u64,
    bytes: u64,
    seconds: f64,
    acknowledgement: Option<Percentiles>,
}

#[derive(Deserialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
}

pub(super) fn measure(setup: &Setup, row: &DoorRow) -> Result<Line> {
    let one = |bare| Size { bare, workers: 1, producers: 1 };
    let (bare, partita) = if setup.cli.tune {
        (best(setup, row, true)?, best(setup, row, false)?)
    } else {
        (one(true), one(false))
    };
    let rate = if row.open_loop { Some(run(setup, row, bare, None)?.rate / 2.0) } else { None };
    let pairs =
        pairs(setup.cli.pairs, |is_bare| run(setup, row, if is_bare { bare } else { partita }, rate))?;
    Ok(Line::new(&row.name, (bare.program(row.backend), partita.program(row.backend)), &pairs))
}

/// The fastest of the sizes that make sense for a side.
fn best(setup: &Setup, row: &DoorRow, bare: bool) -> Result<Size> {
    let producers: &[usize] = if row.backend == Backend::Kafka { &[1, 2] } else { &[1] };
    let mut best: Option<(f64, Size)> = None;
    for workers in [1, 2] {
        for &producers in producers {
            let size = Size { bare, workers, producers };
            let rate = run(setup, row, size, None)?.rate;
            if best.is_none_or(|(best, _)| rate > best) {
                best = Some((rate, size));
            }
        }
    }
    best.map(|(_, size)| size).context("no size was tried")
}

/// `rate`: tasks a second, sent when they are due.
fn run(setup: &Setup, row: &DoorRow, size: Size, rate: Option<f64>) -> Result<Run> {
    let program = size.program(row.backend);
    let mut command = child::program(setup, size.program_name(row.backend));
    command.args(["--workers", &size.workers.to_string()]);
    if !size.bare {
        command.arg("--tokens-file").arg(setup.tokens.file());
    }
    match row.backend {
        Backend::Kafka => {
            let topic = Topic::create(&setup.bootstrap_servers, row.partitions)?;
            command.args(["--bootstrap-servers", &setup.bootstrap_servers, "--topic", &topic.name]);
            command.args(["--producers", &size.producers.to_string()]);
            let properties =
                if size.bare { &setup.cli.bare_properties } else { &setup.cli.partita_properties };
            for (name, value) in properties {
                command.args(["--property", &format!("{name}={value}")]);
            }
            load(setup, row, &program, command, rate)
        }
        Backend::Embedded => {
            let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(&setup.cli.data_dir)?;
            command.arg("--dir").arg(dir.path()).args(["--partitions", &row.partitions.to_string()]);
            load(setup, row, &program, command, rate)
        }
    }
}

fn load(setup: &Setup, row: &DoorRow, program: &str, server: Command, rate: Option<f64>) -> Result<Run> {
    let server = Server::start(server)?;
    // A second of load first: connections, leaders, allocators.
    generate(setup, row, &server.address, 1, rate)?;
    let before = usage::of_process(server.pid())?;
    let report = generate(setup, row, &server.address, setup.cli.seconds, rate)?;
    let after = usage::of_process(server.pid())?;
    let run = Run {
        rate: report.acknowledged as f64 / report.seconds,
        bytes_per_second: report.bytes as f64 / report.seconds,
        cpu_us: (after.cpu - before.cpu).as_secs_f64() * 1e6 / report.acknowledged as f64,
        peak_rss: after.peak_rss,
        latency_ms: report.acknowledgement.map(|latency| (latency.p50, latency.p99)),
    };
    setup.say(&format!("{}: {program} {:.0}/s, retries {}", row.name, run.rate, report.retries));
    Ok(run)
}

fn generate(
    setup: &Setup,
    row: &DoorRow,
    address: &str,
    seconds: u64,
    rate: Option<f64>,
) -> Result<LoadReport> {
    let mut command = child::program(setup, "partita");
    command.args(["bench", "--json", "--no-verify", "--url", &format!("http://{address}")]);
    command.args(["--size", row.size, "--clients", &row.clients.to_string()]);
    // Many keys for each client: every partition has its share.
    command.args(["--keys", &(row.clients * 64).to_string()]);
    command.args(["--tasks", &u64::MAX.to_string(), "--duration", &format!("{seconds}s")]);
    // The bare doors do not look at it.
    command.env("PARTITA_TOKEN", setup.tokens.token());
    if let Some(rate) = rate {
        command.args(["--rate", &rate.to_string()]);
    }
    if setup.cli.idempotency_keys {
        command.arg("--idempotency-keys");
    }
    let report: LoadReport = child::report(command)?;
    ensure!(
        report.not_written + report.unknown == 0,
        "{} tasks were refused and {} have an unknown outcome: nothing to compare",
        report.not_written,
        report.unknown
    );
    Ok(report)
}
