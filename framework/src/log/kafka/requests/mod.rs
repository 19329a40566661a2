//! Idempotent appends over Kafka, by a journal that all front doors read: topic `<topic>.requests`. What its records mean is
//! [`partita_core::RequestState`]'s; `note` writes them down, `book` is what was read, `tail` reads, and `append` goes through the steps
//! of one append.

mod append;
mod book;
mod note;
mod tail;

pub(super) use append::{Append, CLAIM_HEADER, release};
pub(super) use note::claim_id;

use super::admin::{requests_partitions, requests_topic};
use crate::{
    config::KafkaConfig,
    log::{AppendError, IdempotencyKey, NotWritten},
};
use book::Book;
use partita_core::{ClaimId, Offset, Partition, RequestTimes};
use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

/// From a claim to the append under it.
const CLAIM_TIME: Duration = Duration::from_secs(10);
/// Between the end of an append's time and the certainty that its record is shown to readers, or does not come any more.
const MARGIN: Duration = Duration::from_secs(60);
/// What of that it may take until a record is shown that is there: a replica that stands still holds it back until it does not count as
/// in sync any more, `replica.lag.time.max.ms` (30 s) and half of that again later.
const SHOWN_WITHIN: Duration = Duration::from_secs(45);
/// How long a request waits for the journal to be read before it is refused.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// One for each log.
pub(super) struct Requests {
    config: KafkaConfig,
    /// The journal.
    topic: String,
    times: RequestTimes,
    /// The first half of the names of this process's claims.
    process: u64,
    claims: AtomicU64,
    /// How many partitions of the journal are used.
    partitions: u32,
    book: Mutex<Result<Book, String>>,
    /// Whether the book has all that the journal had when it was opened.
    read: watch::Sender<bool>,
    /// The task topic's records are not beyond these offsets yet, as far as is known.
    ends: Box<[AtomicU64]>,
    /// There was an idempotent append.
    wanted: AtomicBool,
    started: AtomicBool,
    stop: AtomicBool,
    bell: (Mutex<bool>, Condvar),
}

impl Requests {
    pub(super) fn new(config: &KafkaConfig) -> Self {
        let times = RequestTimes { claim: CLAIM_TIME, append: config.append_timeout, margin: MARGIN };
        Self {
            config: config.clone(),
            topic: requests_topic(&config.topic),
            times,
            process: rand::random(),
            claims: AtomicU64::new(0),
            partitions: requests_partitions(config),
            book: Mutex::new(Err("it was not opened yet".into())),
            read: watch::Sender::new(false),
            ends: (0..config.partitions).map(|_| AtomicU64::new(0)).collect(),
            wanted: AtomicBool::new(false),
            started: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            bell: Default::default(),
        }
    }

    /// Ends the thread soon.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.ring();
    }

    fn ring(&self) {
        *self.bell.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.1.notify_all();
    }

    /// Waits for so long, or until something is wanted.
    fn rest(&self, time: Duration) {
        let rung = self.bell.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.bell.1.wait_timeout_while(rung, time, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }

    fn open_book(&self, book: Book, ends: &[u64]) {
        for (known, end) in self.ends.iter().zip(ends) {
            known.fetch_max(*end, Ordering::SeqCst);
        }
        self.set_book(Ok(book));
    }

    fn set_book(&self, book: Result<Book, String>) {
        let mut place = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let former = std::mem::replace(&mut *place, book);
        drop(place);
        // Its end waits for a thread that writes.
        drop(former);
    }

    fn close_book(&self, reason: String) {
        self.read.send_replace(false);
        self.set_book(Err(reason));
    }

    /// Whether the journal was read up to these ends; then it counts.
    fn has_read(&self, ends: &[u64]) -> bool {
        let has = self.with_book(|book| Ok(book.next().iter().zip(ends).all(|(next, end)| next >= end)));
        let has = has.unwrap_or(false);
        if has {
            self.read.send_replace(true);
        }
        has
    }

    fn with_book<T>(&self, body: impl FnOnce(&mut Book) -> Result<T, String>) -> Result<T, String> {
        match &mut *self.book.lock().unwrap_or_else(PoisonError::into_inner) {
            Ok(book) => body(book),
            Err(reason) => Err(reason.clone()),
        }
    }

    /// Waits until the journal was read.
    async fn ready(&self) -> Result<(), AppendError> {
        if *self.read.borrow() {
            return Ok(());
        }
        if !self.wanted.swap(true, Ordering::SeqCst) {
            self.ring();
        }
        let mut read = self.read.subscribe();
        let waited = tokio::time::timeout(READ_WITHIN, read.wait_for(|read| *read)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => {
                let why = self.with_book(|_| Ok(())).err();
                let why = why.unwrap_or_else(|| "it has not been read to its end yet".into());
                Err(refused(NotWritten::NotReady, format!("the journal of requests, {}: {why}", self.topic)))
            }
        }
    }

    fn new_claim(&self) -> ClaimId {
        let number = self.claims.fetch_add(1, Ordering::Relaxed);
        ClaimId(u128::from(self.process) << 64 | u128::from(number))
    }

    /// What a request is called in the journal: under another topic of tasks, also one of the same name, it is another.
    fn journal_key(&self, topic_id: &str, key: IdempotencyKey) -> IdempotencyKey {
        IdempotencyKey::of(&[topic_id.as_bytes(), &key.0])
    }

    /// The journal's partition for a request: all its records are in one.
    fn partition_of(&self, key: &IdempotencyKey) -> Partition {
        let word = u32::from_be_bytes([key.0[0], key.0[1], key.0[2], key.0[3]]);
        Partition(word % self.partitions)
    }

    /// The end of a task partition as far as is known: a record that is appended now is not before it.
    fn end_of(&self, partition: Partition) -> Offset {
        Offset(self.ends.get(partition.0 as usize).map_or(0, |end| end.load(Ordering::SeqCst)))
    }

    fn note_end(&self, partition: Partition, end: Offset) {
        if let Some(known) = self.ends.get(partition.0 as usize) {
            known.fetch_max(end.0, Ordering::SeqCst);
        }
    }
}

impl Requests {
    /// Starts the thread, once.
    pub(super) fn start_once(
        self: &Arc<Self>,
        max_task: u64,
        release: impl Fn(IdempotencyKey, ClaimId) + Send + 'static,
    ) {
        if !self.started.swap(true, Ordering::SeqCst)
            && let Err(error) = tail::start(self.clone(), max_task, release)
        {
            self.close_book(format!("its thread could not be started: {error}"));
        }
    }
}

fn refused(code: NotWritten, reason: String) -> AppendError {
    AppendError::NotWritten { code, reason }
}
