//! Partita's whole worker path as a user runs it: consumer thread, batches, partition actors, a handler that does
//! nothing, commits; with jemalloc, as the `partita` binary has it.

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use partita::{Config, Pipeline, Role, Task, TaskContext, TaskError, TaskHandler, config::LogKind};
use partita_bench::{
    topic,
    worker::{Meter, WorkerArgs, WorkerReport, touch},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

#[path = "../../../../app/src/allocator.rs"]
mod allocator;

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(flatten)]
    worker: WorkerArgs,
    /// Record no metrics: what they cost.
    #[arg(long)]
    no_metrics: bool,
    /// Threads that run the partition actors. Default: Partita's own.
    #[arg(long)]
    threads: Option<usize>,
    /// `worker.queue_tasks`. Default: Partita's own.
    #[arg(long)]
    queue_tasks: Option<u64>,
}

/// What all handlers share. They come here at their first and their last record only.
struct Progress {
    ends: Vec<u64>,
    meter: Mutex<Option<Meter>>,
    report: watch::Sender<Option<WorkerReport>>,
}

impl Progress {
    fn with_meter(&self, change: impl FnOnce(&mut Meter)) {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        let meter = meter.get_or_insert_with(Meter::start);
        change(meter);
        if meter.records() == self.ends.iter().sum::<u64>() {
            self.report.send_if_modified(|report| report.replace(meter.finish()).is_none());
        }
    }
}

struct Noop {
    progress: Arc<Progress>,
    wait: Duration,
    end: u64,
    records: u64,
    bytes: u64,
}

impl TaskHandler for Noop {
    type Payload = Bytes;

    async fn handle(&mut self, task: Task<Bytes>, ctx: &TaskContext) -> Result<(), TaskError> {
        if !self.wait.is_zero() {
            tokio::time::sleep(self.wait).await;
        }
        touch(&task.payload);
        if self.records == 0 {
            self.progress.with_meter(Meter::note_first);
        }
        self.records += 1;
        self.bytes += task.size;
        if ctx.offset() + 1 == self.end {
            self.progress.with_meter(|meter| meter.add(self.records, self.bytes));
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if !cli.no_metrics {
        partita::prometheus::install()?;
    }
    let ends = topic::ends(&cli.worker.bootstrap_servers, &cli.worker.topic)?;
    let mut config = Config::default();
    config.log.kind = LogKind::Kafka;
    config.log.kafka.bootstrap_servers = cli.worker.bootstrap_servers.clone();
    config.log.kafka.topic = cli.worker.topic.clone();
    config.log.kafka.group = cli.worker.group.clone();
    config.log.kafka.partitions = ends.len() as u32;
    config.log.kafka.properties.extend(cli.worker.properties.iter().cloned());
    config.worker.threads = cli.threads;
    config.worker.queue_tasks = cli.queue_tasks.unwrap_or(config.worker.queue_tasks);
    // Any free port: nobody asks.
    config.admin.listen = ([127, 0, 0, 1], 0).into();
    let (report, mut reported) = watch::channel(None);
    let progress = Arc::new(Progress { ends, meter: Mutex::new(None), report });
    let wait = Duration::from_millis(cli.worker.handler_ms);
    let timeout = Duration::from_secs(cli.worker.timeout_s);
    let handlers = progress.clone();
    let pipeline = Pipeline::builder(config).role(Role::Worker).handler(move |assignment| {
        handlers.with_meter(|_| {});
        Noop {
            end: handlers.ends[assignment.partition() as usize],
            progress: handlers.clone(),
            wait,
            records: 0,
            bytes: 0,
        }
    });
    let until_done = reported.clone();
    actix_rt::System::new().block_on(pipeline.run_until(async move {
        let mut until_done = until_done;
        let _ = tokio::time::timeout(timeout, until_done.wait_for(Option::is_some)).await;
    }))?;
    let report = reported.borrow_and_update().clone();
    report
        .with_context(|| {
            let records =
                progress.meter.lock().unwrap_or_else(PoisonError::into_inner).map_or(0, |m| m.records());
            format!("only {records} records came before the timeout (--timeout-s)")
        })?
        .print()
}
