//! Straight to the log: a pipeline of this process's own, without HTTP, whose handler checks what it is given.
//!
//! Nothing of anybody else's is touched: over the embedded log the pipeline gets a new directory beside the configured one,
//! which is deleted, and over Kafka a group of its own, so that no task of the real group is passed over.

use super::{
    Args,
    ledger::{Found, Ledger, Verdict},
    payload::{HEADER, Maker, Payload},
    report::Report,
    send::{Attempt, Sink, histogram, send_all, unix_micros},
    verify::Verified,
};
use anyhow::{Context, Result};
use bytes::Bytes;
use hdrhistogram::Histogram;
use partita::{
    Config, Pipeline, Role, Task, TaskContext, TaskError, TaskHandler,
    config::LogKind,
    envelope::PayloadBuffer,
    log::{AppendError, NewRecord, TaskLog},
    memory::MemoryPool,
};
use partita_core::partition_of;
use partita_proto::v1::Envelope;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Runs the load through a pipeline in this process.
pub(crate) async fn run(args: &Args, mut config: Config, maker: Maker) -> Result<Report> {
    let _own = own_place(&mut config, maker.run())?;
    let seen = Arc::new(Seen::new(maker.clone(), config.log.kind));
    let handlers = seen.clone();
    let running = Pipeline::builder(config)
        .role(Role::Worker)
        .handler(move |_| Checker(handlers.clone()))
        .start()
        .await
        .context("starting a pipeline without a front door")?;
    let sinks = (0..args.clients)
        .map(|_| Direct { log: running.task_log(), intake: running.memory().intake })
        .collect();
    let progress = super::progress("sending", args.tasks, "tasks");
    let sent = send_all(args.plan(), maker.clone(), sinks, progress.clone()).await;
    progress.finish_and_clear();
    let wanted = sent.ledger.keys().map(|key| sent.ledger.acknowledged(key)).sum();
    seen.wait_for(wanted, args.settle).await;
    running.shutdown().await.context("stopping the pipeline")?;
    Ok(Report::new(maker.run(), &sent, Some(seen.judge(&sent.ledger))))
}

/// A directory that is deleted with this.
struct OwnDirectory(PathBuf);

impl Drop for OwnDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(dir = %self.0.display(), %error, "the benchmark's log was not deleted");
        }
    }
}

fn own_place(config: &mut Config, run: u64) -> Result<Option<OwnDirectory>> {
    match config.log.kind {
        LogKind::Embedded => {
            let mut name = config.log.embedded.dir.clone().into_os_string();
            name.push(format!("-bench-{run:016x}"));
            let dir = PathBuf::from(name);
            std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            config.log.embedded.dir.clone_from(&dir);
            Ok(Some(OwnDirectory(dir)))
        }
        LogKind::Kafka => {
            config.log.kafka.group = format!("{}-bench-{run:016x}", config.log.kafka.group);
            Ok(None)
        }
    }
}

struct Direct {
    log: Arc<dyn TaskLog>,
    intake: MemoryPool,
}

impl Sink for Direct {
    async fn send(&mut self, key: &str, payload: &Payload) -> Attempt {
        let Some(reservation) = self.intake.try_reserve(payload.len() as u64) else {
            return Attempt::NotWritten { what: "out of memory.budget".into(), after: None };
        };
        let head = Envelope {
            created_at_ms: unix_micros() / 1000,
            payload_size: payload.len() as u64,
            ..Envelope::default()
        };
        let mut buffer = PayloadBuffer::new(&head, payload.len());
        buffer.extend(&payload.header);
        buffer.extend(&payload.filler);
        let record = NewRecord {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: buffer.seal(&head),
            reservation: Some(reservation),
            idempotency: None,
        };
        match self.log.append(partition_of(key.as_bytes(), self.log.partitions()), record).await {
            Ok(receipt) => Attempt::Acknowledged { partition: receipt.partition.0, offset: receipt.offset.0 },
            Err(AppendError::NotWritten { code, .. }) => {
                Attempt::NotWritten { what: format!("not written: {code:?}"), after: None }
            }
            Err(AppendError::Unknown { .. }) => Attempt::Unknown { what: "outcome unknown".into() },
        }
    }
}

/// What the handlers were given, of this run.
struct Seen {
    maker: Maker,
    /// Whether the log holds nothing but this run.
    alone: bool,
    state: Mutex<State>,
}

struct State {
    tasks: usize,
    keys: HashMap<u32, Vec<Found>>,
    damaged: Vec<String>,
    end_to_end: Histogram<u64>,
}

impl Seen {
    fn new(maker: Maker, kind: LogKind) -> Self {
        let state = State { tasks: 0, keys: HashMap::new(), damaged: Vec::new(), end_to_end: histogram() };
        Self { maker, alone: kind == LogKind::Embedded, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, payload: &[u8], ctx: &TaskContext) {
        let ours = self.alone || ctx.key().starts_with(self.maker.key_prefix().as_bytes());
        if !ours {
            return;
        }
        let now = unix_micros();
        let identity = payload.first_chunk::<HEADER>().and_then(|header| self.maker.check(header).ok());
        let whole = identity.filter(|identity| {
            payload[HEADER..] == self.maker.filler(identity.key, identity.sequence)
                && ctx.key() == self.maker.key_name(identity.key).as_bytes()
        });
        let (partition, offset) = (ctx.partition(), ctx.offset());
        let mut state = self.state();
        match whole {
            Some(identity) => {
                state.end_to_end.saturating_record(now.saturating_sub(identity.sent_us).max(1));
                let found = Found { sequence: identity.sequence, partition, offset };
                state.keys.entry(identity.key).or_default().push(found);
                state.tasks += 1;
            }
            None => state.damaged.push(format!("the task {partition}-{offset} is damaged")),
        }
    }

    async fn wait_for(&self, wanted: usize, settle: Duration) {
        let deadline = Instant::now() + settle;
        while self.state().tasks < wanted && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn judge(&self, ledger: &Ledger) -> Verified {
        let state = self.state();
        let mut verdict = Verdict { damaged: state.damaged.len() as u64, ..Verdict::default() };
        for damage in &state.damaged {
            verdict.find(damage.clone());
        }
        for key in ledger.keys() {
            let found = state.keys.get(&key).map_or(&[][..], Vec::as_slice);
            verdict.judge(&self.maker.key_name(key), ledger.tasks(key), found);
        }
        Verified { verdict, end_to_end: state.end_to_end.clone() }
    }
}

struct Checker(Arc<Seen>);

impl TaskHandler for Checker {
    type Payload = Bytes;

    async fn handle(&mut self, task: Task<Bytes>, ctx: &TaskContext) -> Result<(), TaskError> {
        self.0.note(&task.payload, ctx);
        Ok(())
    }
}
