//! Properties of the whole log.

mod delivery;
mod durability;
mod faults;
mod idempotency;
mod opening;

use super::{EmbeddedLog, Opened};
use crate::{
    config::EmbeddedConfig,
    log::{
        AppendError, Batch, ConsumerCommand, ConsumerEvent, ConsumerHandle, ConsumerPort, Inbox, JournalRead,
        Lane, NewRecord, ParkedRecord, Receipt, Record, Start, TaskConsumer, TaskLog,
    },
};
use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use partita_core::{CommitId, DeliveryLimits, Epoch, Mark, Offset, Outstanding, Partition, Position};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Far longer than anything here takes: reaching it is a failure.
const LONG: Duration = Duration::from_secs(60);

fn config(dir: &Path, partitions: u32) -> EmbeddedConfig {
    EmbeddedConfig {
        dir: dir.to_owned(),
        partitions,
        retention: Duration::from_secs(3600),
        ..EmbeddedConfig::default()
    }
}

fn limits() -> DeliveryLimits {
    DeliveryLimits { partition_records: 1 << 20, partition_bytes: 1 << 30, total_bytes: 1 << 31 }
}

fn open(dir: &Path, partitions: u32) -> Opened {
    EmbeddedLog::open(&config(dir, partitions), limits()).unwrap()
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn record(key: &str, value: impl Into<Bytes>) -> NewRecord {
    NewRecord {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
        reservation: None,
        idempotency: None,
    }
}

fn append(log: &EmbeddedLog, partition: u32, value: impl Into<Bytes>) -> Result<Receipt, AppendError> {
    block_on(log.append(Partition(partition), record("key", value)))
}

/// Bytes that differ from place to place and from seed to seed.
fn bytes(seed: u64, size: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(size);
    out.into()
}

/// An inbox that keeps what it is given; what was not taken is outstanding.
#[derive(Default)]
struct Kept {
    state: Mutex<KeptState>,
}

#[derive(Default)]
struct KeptState {
    waiting: Vec<Record>,
    epochs: Vec<Epoch>,
    outstanding: Outstanding,
    peak: Outstanding,
}

impl Inbox for Kept {
    fn deliver(&self, mut batch: Batch) {
        let mut state = self.state.lock().unwrap();
        state.outstanding.records += batch.len() as u64;
        state.outstanding.bytes += batch.bytes();
        state.peak.records = state.peak.records.max(state.outstanding.records);
        state.peak.bytes = state.peak.bytes.max(state.outstanding.bytes);
        state.epochs.push(batch.epoch());
        for index in 0..batch.len() {
            let record = batch.take(index).unwrap();
            state.waiting.push(record);
        }
    }

    fn outstanding(&self) -> Outstanding {
        self.state.lock().unwrap().outstanding
    }
}

impl Kept {
    /// Takes up to `count` records out: they have ended.
    fn take(&self, count: usize) -> Vec<Record> {
        let mut state = self.state.lock().unwrap();
        let count = count.min(state.waiting.len());
        let taken: Vec<Record> = state.waiting.drain(..count).collect();
        state.outstanding.records -= taken.len() as u64;
        state.outstanding.bytes -= taken.iter().map(Record::weight).sum::<u64>();
        taken
    }

    /// Takes exactly `count` records, waiting for them.
    fn take_all(&self, count: usize) -> Vec<Record> {
        let mut taken = Vec::new();
        let end = Instant::now() + LONG;
        while taken.len() < count {
            assert!(Instant::now() < end, "{} of {count} records came", taken.len());
            taken.extend(self.take(count - taken.len()));
            std::thread::yield_now();
        }
        taken
    }

    fn peak(&self) -> Outstanding {
        self.state.lock().unwrap().peak
    }
}

/// A consumer's thread, and what it was offered.
struct Consuming {
    handle: ConsumerHandle,
    events: Receiver<ConsumerEvent>,
    thread: Option<JoinHandle<()>>,
    generation: u32,
    offered: Vec<(Partition, Offset)>,
    starts: Vec<Start>,
    epochs: u32,
}

impl Consuming {
    fn start(consumer: impl TaskConsumer) -> Self {
        let (commands, receiver) = crossbeam_channel::unbounded();
        let (sender, events) = crossbeam_channel::unbounded();
        let handle = ConsumerHandle { commands, waker: consumer.waker() };
        let port = ConsumerPort {
            events: Box::new(move |event| {
                let _ = sender.send(event);
            }),
            commands: receiver,
        };
        let thread = Some(std::thread::spawn(move || Box::new(consumer).run(port)));
        assert!(matches!(events.recv_timeout(LONG).unwrap(), ConsumerEvent::Joined));
        match events.recv_timeout(LONG).unwrap() {
            ConsumerEvent::Assigned { generation, partitions, .. } => {
                let offered = partitions.iter().map(|start| (start.partition, start.offset)).collect();
                Self { handle, events, thread, generation, offered, starts: partitions, epochs: 0 }
            }
            other => panic!("{other:?}"),
        }
    }

    fn lane(&mut self, partition: u32, start: u64, inbox: &Arc<Kept>) -> Lane {
        self.epochs += 1;
        let epoch = Epoch::new(self.generation, self.epochs);
        Lane { partition: Partition(partition), epoch, start: Offset(start), inbox: inbox.clone() }
    }

    /// Takes all that was offered, each partition into an inbox of its own.
    fn assign(&mut self) -> Vec<Arc<Kept>> {
        let inboxes: Vec<Arc<Kept>> = self.offered.iter().map(|_| Arc::default()).collect();
        let offered = self.offered.clone();
        let lanes = offered
            .iter()
            .zip(&inboxes)
            .map(|((partition, start), inbox)| self.lane(partition.0, start.0, inbox))
            .collect();
        self.handle.send(ConsumerCommand::CompleteAssign { intent: partita_core::Intent(0), lanes });
        inboxes
    }

    fn wait_for<T>(&self, mut wanted: impl FnMut(ConsumerEvent) -> Option<T>) -> T {
        let end = Instant::now() + LONG;
        loop {
            match self.events.recv_deadline(end) {
                Ok(event) => {
                    if let Some(found) = wanted(event) {
                        return found;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("the event did not come"),
                Err(RecvTimeoutError::Disconnected) => panic!("the consumer ended"),
            }
        }
    }

    fn commit(&self, offsets: &[(u32, u64)]) {
        let offsets = offsets.iter().map(|(p, o)| (Partition(*p), Offset(*o), Mark::default())).collect();
        self.commit_marked(offsets);
    }

    fn commit_marked(&self, offsets: Vec<(Partition, Offset, Mark)>) {
        self.handle.send(ConsumerCommand::Commit { commit: CommitId(1), offsets });
        let error = self.wait_for(|event| match event {
            ConsumerEvent::CommitDone { error, .. } => Some(error),
            _ => None,
        });
        assert_eq!(error, None);
    }

    fn close(mut self) {
        self.handle.send(ConsumerCommand::Close);
        self.wait_for(|event| matches!(event, ConsumerEvent::Closed).then_some(()));
        self.thread.take().unwrap().join().unwrap();
    }
}
