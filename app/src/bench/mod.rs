//! `partita bench`: puts a load on a front door, or straight on a log, and holds what comes back against what was acknowledged.
//!
//! A task is sent again until its outcome is known or it is given up, and a key's next task waits for that: so the order
//! in which a key's tasks were acknowledged is the order they must come back in, whatever fails in between.

mod direct;
mod http;
mod ledger;
mod payload;
mod report;
mod send;
mod verify;

use crate::cli::ConfigArgs;
use anyhow::{Context, Result};
use http::{Address, Http};
use indicatif::{ProgressBar, ProgressStyle};
use partita::config::ConfigError;
use payload::{Fill, Maker, Sizes};
use report::Report;
use send::{Plan, send_all};
use std::{io::Write, process::ExitCode, time::Duration};

/// What to send where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// The front door, as http://127.0.0.1:8080. Without it, tasks go straight to a log as the settings name it, and a pipeline
    /// in this process handles them.
    #[arg(long)]
    url: Option<String>,
    /// What the front door asks for, where it asks for a token: to write, and to read unless with --no-verify.
    #[arg(long, env = "PARTITA_TOKEN", hide_env_values = true)]
    token: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
    /// How many tasks.
    #[arg(long, short = 'n', default_value_t = 10_000)]
    tasks: u64,
    /// Stop sending after this time, tasks left or not (10s, 5m).
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// The payloads' size, or a range in which every doubling is equally likely (10KB, 10KB..5MB).
    #[arg(long, default_value = "10KB", value_parser = Sizes::parse)]
    size: Sizes,
    /// Over how many keys.
    #[arg(long, default_value_t = 200)]
    keys: u32,
    /// How many clients at once; each has keys of its own.
    #[arg(long, default_value_t = 16)]
    clients: u32,
    /// Tasks a second, sent when they are due however long the answers take; latency counts from then. Without it each
    /// client sends its next task when it has an answer.
    #[arg(long)]
    rate: Option<f64>,
    /// What payloads are made of.
    #[arg(long, value_enum, default_value_t = Fill::Random)]
    fill: Fill,
    /// How long one attempt may take.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Each task has an Idempotency-Key of its own: one that is sent again is stored once.
    #[arg(long, requires = "url")]
    idempotency_keys: bool,
    /// How long one task is tried, over restarts of the server, before it is given up.
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    give_up: Duration,
    /// Do not read back: for a front door whose handler is not the recorder.
    #[arg(long)]
    no_verify: bool,
    /// How long to wait for what was acknowledged to be handled.
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the load and prints the report. Fails where a promise was broken.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    args.check()?;
    let maker = Maker::new(rand::random(), args.size.clone(), args.fill);
    let report = match &args.url {
        Some(url) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(through_http(&args, url, maker))?
        }
        None => {
            let config = args.config.load()?.config;
            actix_rt::System::new().block_on(direct::run(&args, config, maker))?
        }
    };
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(out, "{}", report.text())?;
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Args {
    fn check(&self) -> Result<()> {
        if self.clients == 0 || self.keys < self.clients {
            let why = format!(
                "{} keys are too few for {} clients: each client needs a key of its own (raise --keys or lower --clients)",
                self.keys, self.clients
            );
            return Err(ConfigError(why).into());
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            return Err(ConfigError("--rate must be above 0".into()).into());
        }
        Ok(())
    }

    fn plan(&self) -> Plan {
        Plan {
            tasks: self.tasks,
            duration: self.duration,
            rate: self.rate,
            clients: self.clients,
            keys: self.keys,
            give_up: self.give_up,
        }
    }
}

async fn through_http(args: &Args, url: &str, maker: Maker) -> Result<Report> {
    let address = Address::resolve(url, args.token.as_deref()).await?;
    let run = maker.run();
    let sinks = (0..args.clients)
        .map(|_| Http::new(address.clone(), args.timeout).idempotent(args.idempotency_keys))
        .collect();
    let progress = progress("sending", args.tasks, "tasks");
    let sent = send_all(args.plan(), maker.clone(), sinks, progress.clone()).await;
    progress.finish_and_clear();
    if args.no_verify {
        return Ok(Report::new(run, &sent, None));
    }
    let progress = self::progress("reading back", sent.ledger.keys().count() as u64, "keys");
    let verified = verify::verify(&address, &maker, &sent.ledger, args.settle, &progress)
        .await
        .context("reading back what was acknowledged (--no-verify skips this)")?;
    progress.finish_and_clear();
    Ok(Report::new(run, &sent, Some(verified)))
}

/// A bar on a terminal, nothing elsewhere.
fn progress(what: &'static str, length: u64, unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let style = format!("{{msg}} [{{wide_bar}}] {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}}");
    if let Ok(style) = ProgressStyle::with_template(&style) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}
