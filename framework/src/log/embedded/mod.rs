//! The embedded log: one SQLite file in WAL mode, written by one thread in group commits and synced before anything is
//! acknowledged.
//!
//! ```text
//! append -> queue -> writer (one transaction, one sync) -> receipts
//!                       \-> published (the end, the last records) -> consumer -> inboxes
//! patience: answers those who wait for a disk that does not
//! checkpointer: moves the WAL into the database beside the writer, and keeps the WAL's file long enough
//! ```
//!
//! One process uses a directory at a time. Offsets are contiguous from 0 in each partition and known in memory, so a receipt
//! needs no query.

mod checkpoint;
mod consumer;
mod lanes;
mod lookup;
mod patience;
mod plan;
mod published;
mod queue;
mod reader;
mod requests;
mod retention;
mod schema;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod wal;
mod writer;

pub use consumer::EmbeddedConsumer;

use super::{
    AppendFuture, BacklogFuture, CommittedFuture, ExtentFuture, JournalFuture, JournalRead, LogHealth,
    NewRecord, NotWritten, ParkedRecord, PayloadHash, Reach, ReadError, Reply, TaskLog, lock::DirLock,
};
use crate::{Error, config::EmbeddedConfig};
use futures_util::future::BoxFuture;
use lookup::Lookup;
use partita_core::{DeliveryLimits, Offset, Partition, Position};
use published::Published;
use queue::{Write, refused};
use shared::Shared;
use std::{
    fs,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// The task topic's name in the embedded log.
pub const TOPIC: &str = "partita.tasks";

/// An embedded log that was opened: both halves.
pub struct Opened {
    /// The writing half.
    pub log: Arc<EmbeddedLog>,
    /// The reading half.
    pub consumer: EmbeddedConsumer,
}

/// The writing half of the embedded log.
///
/// The directory is free for another opening when this and the consumer have been dropped.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    topic_id: String,
    digest_key: [u8; 32],
    partitions: u32,
    lookup: Arc<Lookup>,
    _threads: Arc<Threads>,
}

impl EmbeddedLog {
    /// Opens the log in `config.dir`, making it where there is none. `limits` are the consumer's.
    ///
    /// The metrics recorder must be installed before.
    pub fn open(config: &EmbeddedConfig, limits: DeliveryLimits) -> Result<Opened, Error> {
        if config.partitions == 0 {
            return Err(Error::Log("log.embedded.partitions must be at least 1".into()));
        }
        fs::create_dir_all(&config.dir).map_err(|error| {
            Error::Log(format!("cannot make {}: {error}; check log.embedded.dir", config.dir.display()))
        })?;
        let lock = DirLock::acquire(&config.dir, "log.embedded.dir")?;
        let (connection, found) = schema::open_writer(config)?;
        let unusable = |error: rusqlite::Error| {
            Error::Log(format!("cannot open the embedded log in {}: {error}", config.dir.display()))
        };
        let checkpoints = checkpoint::open(&config.dir).map_err(unusable)?;
        let reader = schema::open_reader(&config.dir).map_err(unusable)?;
        let requests = requests::Requests::open(&connection, config, &found)?;
        let shared = Arc::new(Shared::new(Published::new(found.tail.seq, found.tail.ends.clone())));
        let due = Arc::new(checkpoint::Due::default());
        let start = writer::Start {
            connection,
            shared: shared.clone(),
            due: due.clone(),
            tail: found.tail,
            next_chunk: found.next_chunk,
            committed: found.offsets.clone(),
            retention: config.retention,
            requests,
            topic: TOPIC,
        };
        let room = wal::Room::open(&config.dir);
        let threads = Arc::new(Threads::start(start, checkpoints, room, due, config.append_timeout, lock)?);
        let consumer = EmbeddedConsumer::new(consumer::Parts {
            shared: shared.clone(),
            reader,
            generation: found.generation,
            committed: found.offsets,
            journals: found.journals,
            limits,
            threads: threads.clone(),
        });
        let log = Self {
            shared,
            topic_id: found.topic_id,
            digest_key: found.digest_key,
            partitions: config.partitions,
            lookup: Arc::new(Lookup::new(config.dir.clone())),
            _threads: threads,
        };
        Ok(Opened { log: Arc::new(log), consumer })
    }

    fn write(&self, write: Write) {
        let refusal = match self.health() {
            _ if write.partition.0 >= self.partitions => Some(refused(
                NotWritten::Away,
                format!("partition {} does not exist: the log has {}", write.partition, self.partitions),
            )),
            LogHealth::Ready => None,
            LogHealth::Full(reason) => Some(refused(NotWritten::Full, reason)),
            LogHealth::Away(reason) | LogHealth::Mismatch(reason) => Some(refused(NotWritten::Away, reason)),
        };
        match refusal {
            Some(error) => write.reply.send(Err(error)),
            None => self.shared.queue.push_write(write),
        }
    }
}

impl TaskLog for EmbeddedLog {
    fn topic(&self) -> &str {
        TOPIC
    }

    fn topic_id(&self) -> &str {
        &self.topic_id
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn submit(&self, partition: Partition, record: NewRecord, reply: Reply) {
        let NewRecord { key, value, reservation, idempotency } = record;
        let since = Instant::now();
        self.write(Write { partition, key, value, parked: None, idempotency, reservation, reply, since });
    }

    fn payload_hash(&self) -> PayloadHash {
        PayloadHash::keyed(&self.digest_key)
    }

    /// Positions count all partitions together.
    fn park(&self, partition: Partition, record: ParkedRecord) -> AppendFuture {
        let (reply, outcome) = Reply::one();
        let ParkedRecord { key, value, parked } = record;
        let (parked, since) = (Some(parked), Instant::now());
        let (idempotency, reservation) = (None, None);
        self.write(Write { partition, key, value, parked, idempotency, reservation, reply, since });
        Box::pin(outcome)
    }

    fn journal(&self, partition: Partition, from: Position, read: JournalRead) -> JournalFuture {
        let lookup = self.lookup.clone();
        let page = tokio::task::spawn_blocking(move || lookup.journal(partition, from, read));
        Box::pin(async move { page.await.unwrap_or_else(|error| Err(ReadError(error.to_string()))) })
    }

    fn extent(&self, partition: Partition, time_ms: Option<i64>) -> ExtentFuture {
        let end = self.shared.published.view().ends.get(partition.0 as usize).copied().unwrap_or_default();
        let lookup = self.lookup.clone();
        let extent = tokio::task::spawn_blocking(move || lookup.extent(partition, Offset(end), time_ms));
        Box::pin(async move { extent.await.unwrap_or_else(|error| Err(ReadError(error.to_string()))) })
    }

    fn committed(&self, partition: Partition) -> CommittedFuture {
        let lookup = self.lookup.clone();
        let committed = tokio::task::spawn_blocking(move || lookup.committed(partition));
        Box::pin(async move { committed.await.unwrap_or_else(|error| Err(ReadError(error.to_string()))) })
    }

    fn backlog(&self) -> BacklogFuture {
        let ends = self.shared.published.view().ends.clone();
        let lookup = self.lookup.clone();
        let reaches = tokio::task::spawn_blocking(move || {
            let mut committed = lookup.all_committed()?;
            let reach = |(partition, end)| {
                let partition = Partition(partition as u32);
                let committed = committed.remove(&partition);
                Reach { partition, committed, first: Offset(0), end: Offset(end) }
            };
            Ok(ends.into_iter().enumerate().map(reach).collect())
        });
        Box::pin(async move { reaches.await.unwrap_or_else(|error| Err(ReadError(error.to_string()))) })
    }

    fn health(&self) -> LogHealth {
        if self.shared.in_hand.is_late() { patience::health() } else { self.shared.health.get() }
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.shared.queue.close();
        self.shared.note_drained();
        let mut drained = self.shared.drained.subscribe();
        let shared = self.shared.clone();
        Box::pin(async move {
            let _ = drained.wait_for(|drained| *drained).await;
            drop(shared);
        })
    }
}

/// The log's threads, ended and waited for when the last half is dropped; then the directory is unlocked.
struct Threads {
    shared: Arc<Shared>,
    due: Arc<checkpoint::Due>,
    watch: Arc<patience::Watch>,
    running: Vec<JoinHandle<()>>,
    _lock: DirLock,
}

impl Threads {
    fn start(
        start: writer::Start,
        checkpoints: rusqlite::Connection,
        room: wal::Room,
        due: Arc<checkpoint::Due>,
        append_timeout: Duration,
        lock: DirLock,
    ) -> Result<Self, Error> {
        let shared = start.shared.clone();
        let watch = Arc::new(patience::Watch::default());
        let (running, topic) = (Vec::new(), start.topic);
        let mut threads =
            Self { shared: shared.clone(), due: due.clone(), watch: watch.clone(), running, _lock: lock };
        threads.spawn("log-writer", move || writer::run(start))?;
        threads.spawn("log-patience", {
            let shared = shared.clone();
            move || watch.run(&shared, append_timeout, topic)
        })?;
        threads.spawn("log-checkpoint", move || checkpoint::run(&checkpoints, room, &shared, &due))?;
        Ok(threads)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let thread = thread::Builder::new().name(name.into()).spawn(body).map_err(Error::Thread)?;
        self.running.push(thread);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.queue.stop();
        self.due.stop();
        self.watch.stop();
        for thread in self.running.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the embedded log panicked");
            }
        }
    }
}
