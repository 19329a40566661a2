//! `partita send`: files as tasks, or lines as events, until each is known to be stored. Begun again it goes on, and stores nothing twice.

mod lines;
mod progress;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use partita_client::{Client, Task};
use sha2::{Digest, Sha256};
use std::{
    io::Read,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// `partita send …`
#[derive(Debug, Parser)]
pub(crate) struct Args {
    /// Files, each a task; `-` is standard input. With --lines, files of CloudEvents as JSON, one a line
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The key of all the tasks: they are handled in the order of the files
    #[arg(long, required_unless_present = "lines", conflicts_with = "lines")]
    key: Option<String>,
    /// Each line is an event that names its key itself
    #[arg(long)]
    lines: bool,
    /// The front door
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// What the front door asks for, where it asks for a token
    #[arg(long, env = "PARTITA_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The payloads' media type, for files
    #[arg(long, conflicts_with = "lines")]
    content_type: Option<String>,
    /// The name of the payloads' type, for files
    #[arg(long = "type", conflicts_with = "lines")]
    type_name: Option<String>,
    /// Send files again that were sent before; without it the same file under the same key is stored once
    #[arg(long, conflicts_with = "lines")]
    again: bool,
    /// How long a task, or a part of the lines, is tried
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    give_up: Duration,
    /// With --lines: note here how far it has come, and go on from there after a run that was cut short
    #[arg(long, requires = "lines", value_name = "FILE")]
    resume: Option<PathBuf>,
}

/// Sends it all. 1 where something was refused or is not known to be stored.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut client = Client::new(&args.url)?.patience(args.give_up);
    if let Some(token) = &args.token {
        client = client.token(token)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &args.key {
            Some(key) => files(args, &client, key).await,
            None => lines::run(args, &client).await,
        }
    })
}

async fn files(args: &Args, client: &Client, key: &str) -> Result<ExitCode> {
    let bar = bar(args.files.len() as u64, "{pos} of {len} files, {per_sec}");
    for path in &args.files {
        let payload = read(path)?;
        // The same name for the same file, so that an interrupted run can simply be begun again.
        let mut name = format!(
            "send:{}",
            hex::encode(
                Sha256::new_with_prefix(path.as_os_str().as_encoded_bytes())
                    .chain_update(b"\0")
                    .chain_update(&payload)
                    .finalize()
            )
        );
        if args.again {
            name += &format!(":{:032x}", rand::random::<u128>());
        }
        let task = Task {
            payload,
            content_type: args.content_type.clone(),
            type_name: args.type_name.clone(),
            idempotency_key: Some(name),
        };
        let receipt = client.send(key, task).await.with_context(|| format!("{}", path.display()))?;
        let before = if receipt.repeated { " (stored before)" } else { "" };
        bar.suspend(|| {
            println(&format!("{}-{} {}{before}", receipt.partition, receipt.offset, path.display()))
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Bytes> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).context("standard input")?;
    } else {
        bytes = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
    }
    Ok(bytes.into())
}

/// Shown on a terminal only.
fn bar(len: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr());
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A reader that has seen enough (`| head`) is no failure.
fn println(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
