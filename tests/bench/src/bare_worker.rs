//! The worker that everything is compared with: one thread, `BaseConsumer::poll`, the handler inline, a commit a second.

use crate::{
    topic,
    worker::{Meter, WorkerArgs, WorkerReport, check, touch},
};
use anyhow::Result;
use rdkafka::{
    ClientContext, Message,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
};
use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Notes when the first assignment came.
#[derive(Default)]
pub struct Started(pub OnceLock<Meter>);

impl ClientContext for Started {}

impl ConsumerContext for Started {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance
            && partitions.count() > 0
        {
            let _ = self.0.set(Meter::start());
        }
    }
}

/// Reads the topic from end to end.
pub fn run(args: &WorkerArgs) -> Result<WorkerReport> {
    let expected = topic::record_count(&args.bootstrap_servers, &args.topic)?;
    let consumer: BaseConsumer<Started> = args.client_config().create_with_context(Started::default())?;
    consumer.subscribe(&[&args.topic])?;
    let deadline = args.deadline();
    let mut meter = None;
    let mut last_commit = Instant::now();
    loop {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            check(deadline, meter.as_ref().map_or(0, Meter::records), expected)?;
            continue;
        };
        let message = message?;
        let payload = message.payload().unwrap_or_default();
        touch(payload);
        let meter = meter.get_or_insert_with(|| *consumer.context().0.get_or_init(Meter::start));
        meter.count(payload.len());
        if meter.records() >= expected {
            drop(message);
            let report = meter.finish();
            consumer.commit_consumer_state(CommitMode::Sync)?;
            return Ok(report);
        }
        // The clock is not asked for each record: at a million a second that would show.
        if meter.records() % 256 == 0 && last_commit.elapsed() >= Duration::from_secs(1) {
            consumer.commit_consumer_state(CommitMode::Async)?;
            last_commit = Instant::now();
        }
    }
}
