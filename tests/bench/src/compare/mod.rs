//! Runs bare and Partita by turns on the same records, and prints how they compare.
//!
//! Rates on a shared machine drift; the ratio of two runs made one after the other drifts little. So every row is a number
//! of pairs, each pair runs both sides, every second pair in the other order, and what counts is the median of the pairs'
//! ratios.

mod batches;
mod child;
mod doors;
mod rows;
mod table;
mod tokens;
mod workers;

pub use rows::{Backend, BatchRow, DoorRow, Format, Row, WorkerRow};
pub use table::{Line, Side};

use anyhow::{Context, Result, bail};
use clap::Parser;
use std::{io::Write, path::PathBuf, process::Command};
use tokens::Tokens;

/// Compares Partita with bare programs that do the same, in one run on this machine.
#[derive(Debug, Clone, Parser)]
#[command(name = "bench-compare", version)]
pub struct Cli {
    /// Comma-separated host:port of some brokers. The measured topics are made there, and deleted.
    #[arg(long, env = "PARTITA_BENCH_BOOTSTRAP")]
    bootstrap_servers: Option<String>,
    /// A script that starts a Kafka with `up` and prints its bootstrap servers, and stops it with `down`; instead of
    /// --bootstrap-servers.
    #[arg(long, value_name = "SCRIPT")]
    kafka: Option<PathBuf>,
    /// Only these rows, by name or by a part of it, comma-separated: worker/1KB, door-kafka, 10KB-64. Default: all.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// List the rows and end.
    #[arg(long)]
    list: bool,
    /// How often each side runs.
    #[arg(long, default_value_t = 3)]
    pairs: usize,
    /// Scales the number of records of the worker rows.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Seconds of load for each run of a front door.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Try each door with one and two HTTP threads, and with one and two producers, for each row, and compare the best
    /// of each. Without it each has one HTTP thread and one producer.
    #[arg(long)]
    tune: bool,
    /// Each task has an Idempotency-Key of its own. Partita looks it up and remembers it; the bare doors do not look at it.
    #[arg(long)]
    idempotency_keys: bool,
    /// Partita's doors with the threads and producers that they have by default, a thread for each core and two producers. The bare ones stay
    /// as they are.
    #[arg(long, conflicts_with = "tune")]
    as_configured: bool,
    /// A librdkafka property for the bare programs, as name=value.
    #[arg(long = "bare-property", value_parser = crate::worker::property)]
    bare_properties: Vec<(String, String)>,
    /// A librdkafka property for Partita, as name=value.
    #[arg(long = "partita-property", value_parser = crate::worker::property)]
    partita_properties: Vec<(String, String)>,
    /// The bare door of the rows over Kafka: a program's name or path. It takes the flags of `bare-door` and says where it
    /// listens as that does.
    #[arg(long, default_value = "bare-door")]
    bare_door: String,
    /// Which bare worker the worker rows are compared with.
    #[arg(long, default_value = "bare-worker")]
    bare_worker: String,
    /// Where the programs are. Default: beside this one.
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Where embedded logs are made, each in a new directory that is deleted. Should be on a real disk.
    #[arg(long, default_value = ".")]
    data_dir: PathBuf,
    /// Print JSON, one object a row.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print Markdown, with the command.
    #[arg(long)]
    markdown: bool,
}

/// What every row needs.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) bootstrap_servers: String,
    pub(crate) bin_dir: PathBuf,
    pub(crate) tokens: Tokens,
    pub(crate) cli: Cli,
}

impl Cli {
    /// Runs the rows.
    pub fn run(self) -> Result<()> {
        let rows = self.selected(rows::all());
        let mut out = std::io::stdout();
        if self.list {
            for row in &rows {
                writeln!(out, "{}", row.name())?;
            }
            return Ok(());
        }
        if rows.is_empty() {
            bail!("no row has a name with one of {:?}; --list shows them", self.rows);
        }
        if self.pairs == 0 {
            bail!("--pairs must be at least 1");
        }
        let kafka = self.kafka.clone();
        let outcome = self.setup().and_then(|setup| setup.measure(&rows));
        if let Some(script) = kafka {
            script_output(&script, "down")?;
        }
        outcome
    }

    /// A row's whole name selects that row alone; a part of a name selects every row that has it.
    fn selected(&self, rows: Vec<Row>) -> Vec<Row> {
        let names: Vec<String> = rows.iter().map(|row| row.name().to_owned()).collect();
        let wants = |name: &str| {
            self.rows.iter().any(|wanted| {
                if names.contains(wanted) { name == wanted } else { name.contains(wanted.as_str()) }
            })
        };
        rows.into_iter().filter(|row| self.rows.is_empty() || wants(row.name())).collect()
    }

    fn setup(self) -> Result<Setup> {
        let bootstrap_servers = match (&self.bootstrap_servers, &self.kafka) {
            (Some(servers), None) => servers.clone(),
            (None, Some(script)) => script_output(script, "up")?,
            _ => bail!("say either --bootstrap-servers or --kafka"),
        };
        let bin_dir = match &self.bin_dir {
            Some(dir) => dir.clone(),
            None => {
                let own = std::env::current_exe().context("finding this program's directory")?;
                own.parent().context("this program is in no directory")?.to_owned()
            }
        };
        Ok(Setup { bootstrap_servers, bin_dir, tokens: Tokens::new()?, cli: self })
    }
}

impl Setup {
    fn measure(&self, rows: &[Row]) -> Result<()> {
        let (mut lines, mut failed) = (Vec::new(), Vec::new());
        for row in rows {
            let measured = match row {
                Row::Worker(row) => workers::measure(self, row),
                Row::Door(row) => doors::measure(self, row),
                Row::Batch(row) => batches::measure(self, row),
            };
            let line = match measured {
                Ok(line) => line,
                // The other rows took long enough to be kept.
                Err(error) => {
                    self.say(&format!("{}: not measured: {error:#}", row.name()));
                    failed.push(row.name());
                    continue;
                }
            };
            self.say(&format!("{}: ratio {:.2}", line.name, line.ratio));
            if self.cli.json {
                writeln!(std::io::stdout(), "{}", serde_json::to_string(&line)?)?;
            }
            lines.push(line);
        }
        let mut out = std::io::stdout();
        if self.cli.markdown {
            write!(out, "{}", table::markdown(&lines))?;
        } else if !self.cli.json {
            writeln!(out, "{}", table::text(&lines))?;
        }
        if !failed.is_empty() {
            bail!("not measured: {}", failed.join(", "));
        }
        Ok(())
    }

    /// Tells whoever waits how far it is.
    pub(crate) fn say(&self, what: &str) {
        let _ = writeln!(std::io::stderr(), "{what}");
    }
}

fn script_output(script: &PathBuf, command: &str) -> Result<String> {
    let output = Command::new(script)
        .arg(command)
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("running {} {command}", script.display()))?;
    if !output.status.success() {
        bail!("{} {command} failed", script.display());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().last().unwrap_or_default().to_owned())
}

/// Runs `pair` for every pair: `first` says which side begins.
pub(crate) fn pairs<T>(count: usize, mut run: impl FnMut(bool) -> Result<T>) -> Result<Vec<(T, T)>> {
    (0..count)
        .map(|pair| {
            // Every second pair in the other order: what the first run leaves behind helps each side as often.
            if pair % 2 == 0 {
                let bare = run(true)?;
                Ok((bare, run(false)?))
            } else {
                let partita = run(false)?;
                Ok((run(true)?, partita))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(rows: &str) -> Vec<String> {
        let cli = Cli::parse_from(["bench-compare", "--rows", rows]);
        cli.selected(rows::all()).iter().map(|row| row.name().to_owned()).collect()
    }

    #[test]
    fn a_whole_name_selects_one_row_and_a_part_selects_all_that_have_it() {
        assert_eq!(selected("worker/1KB"), ["worker/1KB"]);
        assert_eq!(selected("KB-5ms,50MB"), ["worker/50MB", "worker/1KB-5ms"]);
        assert_eq!(selected("door-embedded").len(), 11);
        assert!(selected("nothing").is_empty());
    }
}
