//! Front door rows: the same load, from the same client program, against each side in turn, each time on a new log.

use super::{Backend, DoorRow, Line, Setup, child, child::Server, pairs, table::Run, workers::Topic};
use crate::usage;
use anyhow::{Context, Result, ensure};
use partita::Config;
use serde::Deserialize;
use tempfile::TempDir;

/// How many threads and producers a door has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) bare: bool,
    pub(super) workers: usize,
    pub(super) producers: usize,
}

impl Size {
    fn program(self, setup: &Setup, backend: Backend) -> String {
        let program = self.program_name(setup, backend);
        let producers = if backend == Backend::Kafka {
            format!(" --producers {}", self.producers)
        } else {
            String::new()
        };
        format!("{program} --workers {}{producers}", self.workers)
    }

    fn program_name(self, setup: &Setup, backend: Backend) -> &str {
        match (self.bare, backend) {
            (true, Backend::Kafka) => &setup.cli.bare_door,
            (true, Backend::Embedded) => "bare-sqlite",
            (false, _) => "partita-door",
        }
    }
}

/// What is read of a load generator's report.
#[derive(Debug, Default, Deserialize)]
pub(super) struct LoadReport {
    pub(super) acknowledged: u64,
    pub(super) not_written: u64,
    pub(super) unknown: u64,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    pub(super) acknowledgement: Option<Percentiles>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Percentiles {
    p50: f64,
    p99: f64,
}

pub(super) fn measure(setup: &Setup, row: &DoorRow) -> Result<Line> {
    let one = |bare| Size { bare, workers: 1, producers: 1 };
    let (bare, partita) = if setup.cli.tune {
        (best(setup, row, true)?, best(setup, row, false)?)
    } else if setup.cli.as_configured {
        let cores = std::thread::available_parallelism()?.get();
        (
            one(true),
            Size { bare: false, workers: cores, producers: Config::default().log.kafka.producers as usize },
        )
    } else {
        (one(true), one(false))
    };
    let rate = if row.open_loop { Some(run(setup, row, bare, None)?.rate / 2.0) } else { None };
    let pairs =
        pairs(setup.cli.pairs, |is_bare| run(setup, row, if is_bare { bare } else { partita }, rate))?;
    let programs = (bare.program(setup, row.backend), partita.program(setup, row.backend));
    let by = if row.open_loop {
        |run: &Run| run.latency_ms.map_or(f64::NAN, |both| both.1)
    } else {
        |run: &Run| run.rate
    };
    Ok(Line::by(by, &row.name, programs, &pairs))
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

/// A door that runs, over a log that is deleted with it.
pub(super) struct Door<'a> {
    pub(super) server: Server,
    _topic: Option<Topic<'a>>,
    _dir: TempDir,
}

impl<'a> Door<'a> {
    pub(super) fn start(setup: &'a Setup, backend: Backend, partitions: u32, size: Size) -> Result<Self> {
        let mut command = child::program(setup, size.program_name(setup, backend));
        command.args(["--workers", &size.workers.to_string()]);
        if !size.bare {
            command.arg("--tokens-file").arg(setup.tokens.file());
        }
        let dir = tempfile::Builder::new().prefix("bench-").tempdir_in(&setup.cli.data_dir)?;
        let topic = match backend {
            Backend::Kafka => {
                if !size.bare {
                    command.arg("--idempotency-dir").arg(dir.path());
                }
                let topic = Topic::create_for_doors(setup, partitions)?;
                command.args(["--bootstrap-servers", &setup.bootstrap_servers, "--topic", &topic.name]);
                command.args(["--producers", &size.producers.to_string()]);
                let properties =
                    if size.bare { &setup.cli.bare_properties } else { &setup.cli.partita_properties };
                for (name, value) in properties {
                    command.args(["--property", &format!("{name}={value}")]);
                }
                Some(topic)
            }
            Backend::Embedded => {
                command.arg("--dir").arg(dir.path()).args(["--partitions", &partitions.to_string()]);
                None
            }
        };
        Ok(Self { server: Server::start(command)?, _topic: topic, _dir: dir })
    }
}

/// What a second of load before and the load itself show; `load` runs for so many seconds, and says how many tasks and bytes were stored in
/// which time, and how long their answers took.
pub(super) fn measured(
    setup: &Setup,
    server: &Server,
    load: impl Fn(&str, u64) -> Result<LoadReport>,
) -> Result<Run> {
    // Connections, leaders, allocators.
    load(&server.address, 1)?;
    let before = usage::of_process(server.pid())?;
    let report = load(&server.address, setup.cli.seconds)?;
    let after = usage::of_process(server.pid())?;
    Ok(Run {
        rate: report.acknowledged as f64 / report.seconds,
        bytes_per_second: report.bytes as f64 / report.seconds,
        cpu_us: (after.cpu - before.cpu).as_secs_f64() * 1e6 / report.acknowledged as f64,
        peak_rss: after.peak_rss,
        latency_ms: report.acknowledgement.map(|latency| (latency.p50, latency.p99)),
    })
}

/// `rate`: tasks a second, sent when they are due.
fn run(setup: &Setup, row: &DoorRow, size: Size, rate: Option<f64>) -> Result<Run> {
    let door = Door::start(setup, row.backend, row.partitions, size)?;
    let load = Load { size: row.size, clients: row.clients, rate, named: setup.cli.idempotency_keys };
    let run = measured(setup, &door.server, |address, seconds| load.generate(setup, address, seconds))?;
    setup.say(&format!("{}: {} {:.0}/s", row.name, size.program(setup, row.backend), run.rate));
    Ok(run)
}

/// What `partita bench` sends.
pub(super) struct Load {
    pub(super) size: &'static str,
    pub(super) clients: u32,
    /// Tasks a second, sent when they are due.
    pub(super) rate: Option<f64>,
    /// Each has an Idempotency-Key.
    pub(super) named: bool,
}

impl Load {
    pub(super) fn generate(&self, setup: &Setup, address: &str, seconds: u64) -> Result<LoadReport> {
        let mut command = child::program(setup, "partita");
        command.args(["bench", "--json", "--no-verify", "--url", &format!("http://{address}")]);
        command.args(["--size", self.size, "--clients", &self.clients.to_string()]);
        // Many keys for each client: every partition has its share.
        command.args(["--keys", &(self.clients * 64).to_string()]);
        command.args(["--tasks", &u64::MAX.to_string(), "--duration", &format!("{seconds}s")]);
        // The bare doors do not look at it.
        command.env("PARTITA_TOKEN", setup.tokens.token());
        if let Some(rate) = self.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        if self.named {
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
}
