//! What every worker program shares: its arguments, its measurement and its report.

use crate::usage::{self, Usage};
use anyhow::{Result, bail};
use clap::Args;
use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};
use std::{
    hint::black_box,
    io::Write,
    time::{Duration, Instant},
};

/// What to consume.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// Comma-separated host:port of some brokers.
    #[arg(long)]
    pub bootstrap_servers: String,
    /// The topic to read from its first record to its last.
    #[arg(long)]
    pub topic: String,
    /// The consumer group; a new one reads everything.
    #[arg(long)]
    pub group: String,
    /// A librdkafka property, as name=value. May be given several times.
    #[arg(long = "property", short = 'X', value_parser = property)]
    pub properties: Vec<(String, String)>,
    /// Milliseconds that the handler waits for each record without occupying its thread.
    #[arg(long, default_value_t = 0)]
    pub handler_ms: u64,
    /// Give up after so many seconds without the last record.
    #[arg(long, default_value_t = 180)]
    pub timeout_s: u64,
}

/// Reads `name=value`.
pub fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not name=value")),
    }
}

impl WorkerArgs {
    /// The consumer settings that every bare worker starts from: manual commits, first record first.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// When to give up.
    pub fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.timeout_s)
    }
}

/// What a worker measured, from its assignment to the end of its last record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Records handled.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// From the assignment to the last record.
    pub seconds: f64,
    /// From the assignment to the first record.
    pub first_record_seconds: f64,
    /// Processor time of all threads in that time.
    pub cpu_seconds: f64,
    /// The largest resident size of the process.
    pub peak_rss: u64,
}

impl WorkerReport {
    /// Records a second, after the first: what a group does before it fetches (find offsets, wait for an empty fetch) takes
    /// as long for a short topic as for a long one and would blur the comparison.
    pub fn rate(&self) -> f64 {
        (self.records - 1) as f64 / (self.seconds - self.first_record_seconds)
    }

    /// Bytes a second, likewise.
    pub fn byte_rate(&self) -> f64 {
        self.rate() * self.bytes as f64 / self.records as f64
    }

    /// Processor microseconds a record.
    pub fn cpu_us(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.records as f64
    }

    /// Writes the report to standard output, as one line of JSON.
    pub fn print(&self) -> Result<()> {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(self)?)?;
        Ok(())
    }
}

/// Measures from the assignment on.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    started: Instant,
    usage: Usage,
    first: Option<Duration>,
    records: u64,
    bytes: u64,
}

impl Meter {
    /// Starts at the assignment.
    pub fn start() -> Self {
        Self { started: Instant::now(), usage: usage::own(), first: None, records: 0, bytes: 0 }
    }

    /// Counts a record. To be called when its handler has ended.
    pub fn count(&mut self, bytes: usize) {
        self.note_first();
        self.add(1, bytes as u64);
    }

    /// Notes that a record was handled, if none was before.
    pub fn note_first(&mut self) {
        if self.first.is_none() {
            self.first = Some(self.started.elapsed());
        }
    }

    /// Counts records that were handled since.
    pub fn add(&mut self, records: u64, bytes: u64) {
        self.records += records;
        self.bytes += bytes;
    }

    /// How many records were counted.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Ends the measurement at the last record.
    pub fn finish(&self) -> WorkerReport {
        let seconds = self.started.elapsed().as_secs_f64();
        let now = usage::own();
        WorkerReport {
            records: self.records,
            bytes: self.bytes,
            seconds,
            first_record_seconds: self.first.unwrap_or_default().as_secs_f64(),
            cpu_seconds: (now.cpu - self.usage.cpu).as_secs_f64(),
            peak_rss: now.peak_rss,
        }
    }
}

/// The no-op handler: reads both ends of a payload, so that it cannot be optimised away.
pub fn touch(payload: &[u8]) {
    black_box((payload.first(), payload.last(), payload.len()));
}

/// Fails if `deadline` has passed, with how far the worker got.
pub fn check(deadline: Instant, records: u64, expected: u64) -> Result<()> {
    if Instant::now() > deadline {
        bail!("only {records} of {expected} records came before the timeout (--timeout-s)");
    }
    Ok(())
}
