//! The thread that reads the journal of requests, from where the book ends on. It makes the journal where there is none and one is needed.

use super::{
    super::{
        admin,
        settings::{Role, client_config},
        topic_id,
        watch::{End, NoGroup, offsets},
    },
    Requests,
    book::Book,
    note,
};
use crate::{config::KafkaConfig, log::IdempotencyKey};
use partita_core::{ClaimId, Partition};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Message},
};
use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(200);
/// How long the brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a failure.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Between two looks for a journal that nobody has needed so far.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The thread's whole life. `release` gives up a claim of this process that nobody waits for.
pub(super) fn run(requests: &Arc<Requests>, max_task: u64, release: &impl Fn(IdempotencyKey, ClaimId)) {
    while !requests.stop.load(Ordering::SeqCst) {
        let mut rest = TRY_AGAIN;
        match open(requests, max_task) {
            Ok(Some(tail)) => {
                if let Err(reason) = tail.follow(requests, release) {
                    tracing::error!(reason, "idempotent requests are refused");
                    requests.close_book(reason);
                }
            }
            Ok(None) => {
                requests.close_book(format!("topic {} does not exist", requests.topic));
                rest = LOOK_AGAIN;
            }
            Err(reason) => {
                tracing::warn!(reason, "the journal of requests cannot be read; it is tried again");
                requests.close_book(reason);
            }
        }
        requests.rest(rest);
    }
}

struct Tail {
    client: BaseConsumer<NoGroup>,
    /// Up to where each partition must have been read before what is known counts.
    ends: Vec<u64>,
}

/// Opens the journal and the book; `None` where there is none and nobody needs one.
fn open(requests: &Arc<Requests>, max_task: u64) -> Result<Option<Tail>, String> {
    let config = &requests.config;
    let client: BaseConsumer<NoGroup> = client_config(config, Role::Requests, max_task)
        .map_err(|error| error.to_string())?
        .create_with_context(NoGroup)
        .map_err(|error| error.to_string())?;
    let Some(there) = partitions(&client, &requests.topic)? else {
        if requests.wanted.load(Ordering::SeqCst) {
            make(config, max_task)?;
        } else {
            return Ok(None);
        }
        return Err(format!("topic {} was made a moment ago", requests.topic));
    };
    // Which one a request is in depends on the number, and that on the settings alone: all front doors have the same.
    let partitions = requests.partitions as usize;
    if there < partitions {
        return Err(format!(
            "topic {} has {there} partitions and needs {partitions}: add them",
            requests.topic
        ));
    }
    let id = match topic_id::fetch(client.client(), &requests.topic, PATIENCE)? {
        Some(id) => id,
        None => requests.topic.clone(),
    };
    let settled_after = requests.times.settled_after();
    let window = config.idempotency_window;
    let book = Book::open(&config.idempotency_dir, &id, partitions, window, settled_after);
    let mut book = book.map_err(|error| error.to_string())?;
    let ends = end(&client, &requests.topic, partitions, End::Last)?;
    book.begin_at(&end(&client, &requests.topic, partitions, End::First)?);
    let mut list = TopicPartitionList::new();
    for (partition, next) in book.next().iter().enumerate() {
        let start = rdkafka::Offset::Offset(*next as i64);
        list.add_partition_offset(&requests.topic, partition as i32, start)
            .map_err(|error| error.to_string())?;
    }
    client.assign(&list).map_err(|error| error.to_string())?;
    let tasks = end(&client, &config.topic, config.partitions as usize, End::Last)?;
    requests.open_book(book, &tasks);
    Ok(Some(Tail { client, ends }))
}

fn partitions(client: &BaseConsumer<NoGroup>, topic: &str) -> Result<Option<usize>, String> {
    let metadata = client.fetch_metadata(Some(topic), PATIENCE).map_err(|error| error.to_string())?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    Ok(found.map(|found| found.partitions().len()).filter(|count| *count > 0))
}

fn make(config: &KafkaConfig, max_task: u64) -> Result<(), String> {
    admin::create_requests_topic(config, max_task)
        .map_err(|error| format!("{error}; make it with `partita topics create`"))
}

/// One end of each partition.
fn end(
    client: &BaseConsumer<NoGroup>,
    topic: &str,
    partitions: usize,
    which: End,
) -> Result<Vec<u64>, String> {
    let all = (0..partitions as u32).map(Partition);
    let known = offsets(client, topic, all, which, PATIENCE)?;
    let mut ends = vec![None; partitions];
    for (partition, end) in known {
        ends[partition.0 as usize] = Some(end.0);
    }
    ends.into_iter().collect::<Option<_>>().ok_or_else(|| format!("the ends of topic {topic} are not known"))
}

impl Tail {
    /// Reads until it is to stop.
    fn follow(
        mut self,
        requests: &Requests,
        release: &impl Fn(IdempotencyKey, ClaimId),
    ) -> Result<(), String> {
        let began = Instant::now();
        self.look_whether_read(requests, began);
        while !requests.stop.load(Ordering::SeqCst) {
            // What the disk does not take is not read: it would all be in memory.
            if requests.with_book(|book| book.turn().map(|()| book.is_full()))? {
                thread::sleep(POLL);
                continue;
            }
            match self.client.poll(POLL) {
                Some(Ok(message)) => {
                    let read = read(requests, &message)?;
                    drop(message);
                    if let Some((key, claim)) = read {
                        release(key, claim);
                    }
                    self.look_whether_read(requests, began);
                }
                Some(Err(error)) => tracing::debug!(%error, "the journal of requests"),
                None => {}
            }
        }
        Ok(())
    }

    fn look_whether_read(&mut self, requests: &Requests, began: Instant) {
        if !self.ends.is_empty() && requests.has_read(&self.ends) {
            self.ends.clear();
            tracing::info!(topic = requests.topic, took = ?began.elapsed(), "the journal of requests was read");
        }
    }
}

/// Takes one record. Returns a claim of this process that nobody waits for.
fn read(
    requests: &Requests,
    message: &BorrowedMessage<'_>,
) -> Result<Option<(IdempotencyKey, ClaimId)>, String> {
    let place = (message.partition() as usize, message.offset().max(0) as u64);
    let at_ms = message.timestamp().to_millis().unwrap_or(0);
    let key = message.key().and_then(|key| key.try_into().ok()).map(IdempotencyKey);
    let note = message.payload().and_then(|value| note::decode(value, at_ms));
    requests.with_book(|book| match key.zip(note) {
        Some((key, note)) => {
            let released = book.read(place, key, note, Instant::now())?;
            Ok(released.map(|claim| (key, claim)))
        }
        // Somebody else's, or a newer partita's.
        None => book.skip(place).map(|()| None),
    })
}

/// Starts the thread.
pub(super) fn start(
    requests: Arc<Requests>,
    max_task: u64,
    release: impl Fn(IdempotencyKey, ClaimId) + Send + 'static,
) -> std::io::Result<()> {
    thread::Builder::new()
        .name("partita-kafka-requests".into())
        .spawn(move || run(&requests, max_task, &release))
        .map(drop)
}
