//! What is looked up beside the stream of tasks: the parking topic, partition `p` of which is the journal of partition `p` of the task
//! topic; how far partitions reach; and whether a claim to append was carried out.
//!
//! Asked when a partition is assigned whose journal is not empty, by what operators do, and for what became of tasks: one client on one thread serves the
//! questions of a `Lookup` in turn, made at the first, and holds little more than the record it is at. Searches for claims may take long, and have
//! a `Lookup` of their own.

use super::{
    admin::parking_topic,
    headers::header,
    producer::PARKED_HEADER,
    requests::{CLAIM_HEADER, claim_id},
    settings::{Role, client_config},
    watch::{End, NoGroup, offsets},
};
use crate::config::KafkaConfig;
use crate::log::{
    BacklogFuture, CommittedFuture, Extent, ExtentFuture, JournalFuture, JournalPage, JournalRead,
    JournalRecord, Reach, ReadError,
};
use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use futures_util::future::BoxFuture;
use partita_core::{ClaimId, Offset, Partition, Position};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Message},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// A page ends at this many records.
const PAGE: usize = 4096;
/// How long the brokers may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one poll waits.
const POLL: Duration = Duration::from_millis(500);
/// How old an answer may be that is given again: many may wait for tasks of one partition.
const FRESH: Duration = Duration::from_millis(100);
/// How long it stays where it is, for the next question.
const LINGER: Duration = Duration::from_millis(100);

/// The way to the thread that looks things up.
pub(super) struct Lookup {
    config: KafkaConfig,
    max_task: u64,
    questions: Mutex<Option<Sender<Question>>>,
}

/// What is to be looked up, and who is told.
type Question = Box<dyn FnOnce(&mut Reader) + Send>;

/// What a search for a claim's record has come to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Searched {
    /// It is here.
    Found(Offset),
    /// It is not there: what the log took later is shown.
    Absent,
    /// It is not in front of this offset, which is as far as the log is shown.
    NotYet(Offset),
}

/// A task's record that is looked for by the claim it was appended under.
#[derive(Clone, Copy)]
pub(super) struct Sought {
    pub(super) partition: Partition,
    pub(super) from: Offset,
    /// Records that the log took before or after are not looked at.
    pub(super) since_ms: i64,
    pub(super) until_ms: i64,
    pub(super) claim: ClaimId,
}

impl Lookup {
    pub(super) fn new(config: &KafkaConfig, max_task: u64) -> Self {
        Self { config: config.clone(), max_task, questions: Mutex::default() }
    }

    pub(super) fn journal(&self, partition: Partition, from: Position, read: JournalRead) -> JournalFuture {
        self.ask(move |reader, _| reader.page(partition, from, read))
    }

    pub(super) fn extent(&self, partition: Partition, time_ms: Option<i64>) -> ExtentFuture {
        self.ask(move |reader, _| reader.extent(partition, time_ms))
    }

    /// The next offset to read of a partition, as the group has committed it.
    pub(super) fn committed(&self, partition: Partition) -> CommittedFuture {
        self.ask(move |reader, _| reader.committed(partition))
    }

    /// How far every partition is.
    pub(super) fn backlog(&self) -> BacklogFuture {
        self.ask(|reader, _| reader.backlog())
    }

    /// Where the record of a claim is.
    pub(super) fn find_claim(&self, sought: Sought) -> BoxFuture<'static, Result<Searched, ReadError>> {
        self.ask(move |reader, is_unwanted| reader.find(sought, is_unwanted))
    }

    /// What `admin::needed_and_answering` says.
    pub(super) fn needed_and_answering(
        &self,
        partition: Partition,
    ) -> BoxFuture<'static, Result<(usize, usize), ReadError>> {
        let (config, max_task) = (self.config.clone(), self.max_task);
        self.ask(move |_, _| {
            let said = super::admin::needed_and_answering(&config, max_task, partition);
            said.ok_or_else(|| ReadError("no broker says which replicas are in sync".into()))
        })
    }

    /// Has the thread look. `look` is told whether nobody waits any more.
    fn ask<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Reader, &dyn Fn() -> bool) -> Result<T, ReadError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ReadError>> {
        let (answer, answered) = oneshot::channel();
        let asked = self.hand_over(Box::new(move |reader| {
            // Who asked may be gone: a partition that was revoked meanwhile.
            if !answer.is_closed() {
                let found = look(reader, &|| answer.is_closed());
                let _ = answer.send(found);
            }
        }));
        Box::pin(async move {
            asked?;
            answered.await.unwrap_or_else(|_| Err(ReadError("the thread that reads has ended".into())))
        })
    }

    /// Gives the question to the thread, which is started for it where there is none.
    fn hand_over(&self, mut question: Question) -> Result<(), ReadError> {
        let mut questions = self.questions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(sender) = questions.as_ref() {
            match sender.send(question) {
                Ok(()) => return Ok(()),
                Err(refused) => question = refused.0,
            }
        }
        let client: BaseConsumer<NoGroup> = client_config(&self.config, Role::Lookup, self.max_task)
            .map_err(unread)?
            .create_with_context(NoGroup)
            .map_err(unread)?;
        let (sender, receiver) = unbounded();
        let (tasks, topic) = (self.config.topic.clone(), parking_topic(&self.config.topic));
        let partitions = self.config.partitions;
        let reader =
            Reader { client, tasks, partitions, topic, assigned: false, at: None, committed: HashMap::new() };
        thread::Builder::new()
            .name("partita-kafka-lookup".into())
            .spawn(move || serve(reader, &receiver))
            .map_err(unread)?;
        let _ = sender.send(question);
        *questions = Some(sender);
        Ok(())
    }
}

fn unread(error: impl ToString) -> ReadError {
    ReadError(error.to_string())
}

/// The client, and where it is.
struct Reader {
    client: BaseConsumer<NoGroup>,
    /// The task topic.
    tasks: String,
    partitions: u32,
    /// The parking topic.
    topic: String,
    /// It has a partition, and asks its broker for more of it.
    assigned: bool,
    /// What it would read next, if it may simply read on.
    at: Option<(Partition, Position)>,
    /// What was committed, and when that was asked.
    committed: HashMap<Partition, (Instant, Option<Offset>)>,
}

/// Answers until nobody can ask any more.
fn serve(mut reader: Reader, questions: &Receiver<Question>) {
    loop {
        let question = match questions.recv_timeout(LINGER) {
            Ok(question) => question,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                reader.rest();
                let Ok(question) = questions.recv() else { return };
                question
            }
        };
        question(&mut reader);
    }
}

impl Reader {
    /// Lets go of its partition: it would go on asking for more of it.
    fn rest(&mut self) {
        self.at = None;
        if std::mem::take(&mut self.assigned)
            && let Err(error) = self.client.unassign()
        {
            tracing::debug!(%error, "the reader of the parking topic could not let go of a partition");
        }
    }

    /// Reads on where it is, or goes where the question is about.
    fn go(&mut self, partition: Partition, from: Position) -> Result<(), ReadError> {
        if self.at == Some((partition, from)) {
            return Ok(());
        }
        self.assign(&self.topic.clone(), partition, from.0)
    }

    fn assign(&mut self, topic: &str, partition: Partition, from: u64) -> Result<(), ReadError> {
        self.assigned = true;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition.0 as i32, rdkafka::Offset::Offset(from as i64))
            .and_then(|()| self.client.assign(&list))
            .map_err(unread)
    }

    /// Looks through the task topic for the record of a claim.
    fn find(&mut self, sought: Sought, is_unwanted: &dyn Fn() -> bool) -> Result<Searched, ReadError> {
        let Sought { partition, from, since_ms, until_ms, claim } = sought;
        let extent = self.extent(partition, Some(until_ms)).map_err(unread)?;
        let since = self.extent(partition, Some(since_ms)).map_err(unread)?;
        // Whichever is later: nothing was appended to this partition under a name for long, perhaps.
        let since = since.at.unwrap_or(since.end).0;
        let (from, until) = (from.0.max(extent.first.0).max(since), extent.at.unwrap_or(extent.end).0);
        let nothing = if extent.at.is_some() { Searched::Absent } else { Searched::NotYet(extent.end) };
        self.at = None;
        if from >= until {
            return Ok(nothing);
        }
        let tasks = self.tasks.clone();
        self.assign(&tasks, partition, from)?;
        let mut heard = Instant::now();
        let mut last_error = "no answer from its leader".to_owned();
        while heard.elapsed() < PATIENCE && !is_unwanted() {
            match self.client.poll(POLL) {
                Some(Ok(message))
                    if message.topic() == tasks && message.partition() == partition.0 as i32 =>
                {
                    heard = Instant::now();
                    let offset = message.offset().max(0) as u64;
                    if header(&message, CLAIM_HEADER).and_then(claim_id) == Some(claim) {
                        return Ok(Searched::Found(Offset(offset)));
                    }
                    if offset + 1 >= until {
                        return Ok(nothing);
                    }
                }
                // Of a question before.
                Some(Ok(_)) => {}
                // A leader of a moment ago may not know yet how far its partition is stored.
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => last_error = error.to_string(),
            }
        }
        Err(ReadError(format!("partition {partition} of {tasks}: {last_error}")))
    }

    fn extent(&self, partition: Partition, time_ms: Option<i64>) -> Result<Extent, ReadError> {
        let number = partition.0 as i32;
        let (first, end) = self.client.fetch_watermarks(&self.tasks, number, PATIENCE).map_err(unread)?;
        let mut extent =
            Extent { first: Offset(first.max(0) as u64), end: Offset(end.max(0) as u64), at: None };
        if let Some(time_ms) = time_ms {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&self.tasks, number, rdkafka::Offset::Offset(time_ms))
                .map_err(unread)?;
            let found = self.client.offsets_for_times(list, PATIENCE).map_err(unread)?;
            let offset = found.elements().first().map(|element| element.offset());
            if let Some(rdkafka::Offset::Offset(offset)) = offset {
                extent.at = Some(Offset(offset.max(0) as u64));
            }
        }
        Ok(extent)
    }

    fn committed(&mut self, partition: Partition) -> Result<Option<Offset>, ReadError> {
        let now = Instant::now();
        if let Some((asked, offset)) = self.committed.get(&partition)
            && now.duration_since(*asked) < FRESH
        {
            return Ok(*offset);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.tasks, partition.0 as i32);
        let found = self.client.committed_offsets(list, PATIENCE).map_err(unread)?;
        let offset = match found.elements().first().map(|element| (element.error(), element.offset())) {
            Some((Err(error), _)) => return Err(unread(error)),
            Some((Ok(()), rdkafka::Offset::Offset(offset))) => Some(Offset(offset.max(0) as u64)),
            _ => None,
        };
        self.committed.insert(partition, (now, offset));
        Ok(offset)
    }

    fn backlog(&self) -> Result<Vec<Reach>, ReadError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.tasks, 0, self.partitions as i32 - 1);
        let found = self.client.committed_offsets(list, PATIENCE).map_err(unread)?;
        let found = found.elements();
        // What is committed there is not known.
        let unknown: HashSet<_> = found
            .iter()
            .filter(|element| element.error().is_err())
            .map(|element| Partition(element.partition() as u32))
            .collect();
        let committed: HashMap<_, _> = found
            .iter()
            .filter_map(|element| match element.offset() {
                rdkafka::Offset::Offset(offset) => Some((element.partition() as u32, offset.max(0) as u64)),
                _ => None,
            })
            .collect();
        let all = || (0..self.partitions).map(Partition).filter(|partition| !unknown.contains(partition));
        let ends = offsets(&self.client, &self.tasks, all(), End::Last, PATIENCE).map_err(ReadError)?;
        // Where nothing is committed, all that is there waits.
        let fresh = all().filter(|partition| !committed.contains_key(&partition.0));
        let firsts: HashMap<_, _> = if committed.len() < ends.len() {
            offsets(&self.client, &self.tasks, fresh, End::First, PATIENCE)
                .map_err(ReadError)?
                .into_iter()
                .collect()
        } else {
            HashMap::new()
        };
        let reach = |(partition, end): (Partition, Offset)| {
            let committed = committed.get(&partition.0).copied().map(Offset);
            let first = firsts.get(&partition).copied();
            let first = first.or(committed)?;
            Some(Reach { partition, committed, first, end })
        };
        Ok(ends.into_iter().filter_map(reach).collect())
    }

    fn page(
        &mut self,
        partition: Partition,
        from: Position,
        read: JournalRead,
    ) -> Result<JournalPage, ReadError> {
        self.go(partition, from)?;
        self.at = None;
        let mut page = JournalPage { next: from, ..JournalPage::default() };
        let mut heard = Instant::now();
        let mut last_error = "no answer from its leader".to_owned();
        while page.records.len() < PAGE && !page.at_end {
            match self.client.poll(POLL) {
                Some(Ok(message))
                    if message.topic() == self.topic && message.partition() == partition.0 as i32 =>
                {
                    heard = Instant::now();
                    if !page.takes(message.payload_len() as u64, read) {
                        // It was taken from the client, so reading on from it needs another assignment.
                        return Ok(page);
                    }
                    let record = record(&message, read);
                    // One from before this question's start was fetched for another.
                    if record.position >= page.next {
                        page.next = record.position.next();
                        page.records.push(record);
                    }
                    if read == JournalRead::Values(0) && !page.records.is_empty() {
                        break;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(at))) if at == partition.0 as i32 => {
                    // A leader of a moment ago may not know yet how far its partition is stored; it says so when it is asked.
                    let (_, end) = self.client.fetch_watermarks(&self.topic, at, PATIENCE).map_err(unread)?;
                    page.at_end = page.next.0 as i64 >= end;
                }
                // Of a question before.
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => last_error = error.to_string(),
            }
            if heard.elapsed() >= PATIENCE {
                return Err(ReadError(format!("partition {partition} of {}: {last_error}", self.topic)));
            }
        }
        // After an end it would not be told of the end again.
        self.at = (!page.at_end).then_some((partition, page.next));
        Ok(page)
    }
}

fn record(message: &BorrowedMessage<'_>, read: JournalRead) -> JournalRecord {
    let header = header(message, PARKED_HEADER);
    let value = message.payload().unwrap_or_default();
    JournalRecord {
        position: Position(message.offset().max(0) as u64),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: Bytes::copy_from_slice(message.key().unwrap_or_default()),
        parked: Bytes::copy_from_slice(header.unwrap_or_default()),
        size: value.len() as u64,
        value: match read {
            JournalRead::Notes => Bytes::new(),
            JournalRead::Values(_) => Bytes::copy_from_slice(value),
        },
    }
}
