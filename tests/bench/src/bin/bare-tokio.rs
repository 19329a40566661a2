//! A worker written by hand on tokio: one polling thread, one task for each partition, an async handler in order.
//!
//! The polling thread never waits for a partition: one that has too much waiting is paused until half of it is done.

use anyhow::Result;
use bytes::Bytes;
use clap::Parser;
use partita_bench::{
    bare_worker::Started,
    topic,
    worker::{Meter, WorkerArgs, WorkerReport, check, touch},
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Records of one partition that may wait before it is paused.
const QUEUE: i64 = 4096;

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(flatten)]
    worker: WorkerArgs,
    /// Threads of the runtime.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

struct Lane {
    send: UnboundedSender<(i64, Bytes)>,
    delivered: i64,
    /// The offset after the last record handled.
    handled: Arc<AtomicI64>,
    committed: i64,
    paused: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(cli.threads).enable_all().build()?;
    run(&cli.worker, &runtime)?.print()
}

fn run(args: &WorkerArgs, runtime: &tokio::runtime::Runtime) -> Result<WorkerReport> {
    let expected = topic::record_count(&args.bootstrap_servers, &args.topic)?;
    let consumer: BaseConsumer<Started> = args.client_config().create_with_context(Started::default())?;
    consumer.subscribe(&[&args.topic])?;
    let deadline = args.deadline();
    let (done, finished) = std::sync::mpsc::channel();
    let handler = Duration::from_millis(args.handler_ms);
    let mut lanes: HashMap<i32, Lane> = HashMap::new();
    let mut meter: Option<Meter> = None;
    let mut last_look = Instant::now();
    let mut last_commit = Instant::now();
    loop {
        if let Some(message) = consumer.poll(Duration::from_millis(5)) {
            let message = message?;
            let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
            let lane = lanes.entry(message.partition()).or_insert_with(|| {
                let handled = Arc::new(AtomicI64::new(message.offset()));
                let (send, receive) = unbounded_channel();
                runtime.spawn(handle(receive, handled.clone(), done.clone(), handler));
                Lane {
                    send,
                    delivered: message.offset(),
                    handled,
                    committed: message.offset(),
                    paused: false,
                }
            });
            lane.delivered = message.offset() + 1;
            let _ = lane.send.send((message.offset(), payload));
        }
        for size in finished.try_iter() {
            meter.get_or_insert_with(|| *consumer.context().0.get_or_init(Meter::start)).count(size);
        }
        if let Some(meter) = meter.filter(|meter| meter.records() >= expected) {
            let report = meter.finish();
            commit(&consumer, &args.topic, &mut lanes, CommitMode::Sync)?;
            return Ok(report);
        }
        if last_look.elapsed() > Duration::from_millis(10) {
            last_look = Instant::now();
            check(deadline, meter.map_or(0, |meter| meter.records()), expected)?;
            pause_and_resume(&consumer, &args.topic, &mut lanes)?;
        }
        if last_commit.elapsed() >= Duration::from_secs(1) {
            last_commit = Instant::now();
            commit(&consumer, &args.topic, &mut lanes, CommitMode::Async)?;
        }
    }
}

async fn handle(
    mut records: UnboundedReceiver<(i64, Bytes)>,
    handled: Arc<AtomicI64>,
    done: std::sync::mpsc::Sender<usize>,
    handler: Duration,
) {
    while let Some((offset, payload)) = records.recv().await {
        if !handler.is_zero() {
            tokio::time::sleep(handler).await;
        }
        touch(&payload);
        handled.store(offset + 1, Ordering::Release);
        let _ = done.send(payload.len());
    }
}

fn pause_and_resume(
    consumer: &BaseConsumer<Started>,
    topic: &str,
    lanes: &mut HashMap<i32, Lane>,
) -> Result<()> {
    let (mut pause, mut resume) = (TopicPartitionList::new(), TopicPartitionList::new());
    for (&partition, lane) in lanes {
        let waiting = lane.delivered - lane.handled.load(Ordering::Acquire);
        if !lane.paused && waiting >= QUEUE {
            lane.paused = true;
            pause.add_partition(topic, partition);
        } else if lane.paused && waiting <= QUEUE / 2 {
            lane.paused = false;
            resume.add_partition(topic, partition);
        }
    }
    if pause.count() > 0 {
        consumer.pause(&pause)?;
    }
    if resume.count() > 0 {
        consumer.resume(&resume)?;
    }
    Ok(())
}

fn commit(
    consumer: &BaseConsumer<Started>,
    topic: &str,
    lanes: &mut HashMap<i32, Lane>,
    mode: CommitMode,
) -> Result<()> {
    let mut offsets = TopicPartitionList::new();
    for (&partition, lane) in lanes {
        let handled = lane.handled.load(Ordering::Acquire);
        if handled > lane.committed {
            lane.committed = handled;
            offsets.add_partition_offset(topic, partition, Offset::Offset(handled))?;
        }
    }
    if offsets.count() > 0 {
        consumer.commit(&offsets, mode)?;
    }
    Ok(())
}
