//! What a developer implements: [`TaskHandler`], and what it is given: [`Task`] and [`TaskContext`].

use bytes::Bytes;
use partita_core::{Epoch, Offset, Partition};
use prost::Message;
use std::{
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio_util::sync::CancellationToken;

/// The work that is done for each task.
///
/// One instance serves one partition: it gets that partition's tasks strictly in order, one at a time, so it needs no
/// locks, and its futures need not be `Send`. A panic is caught, counts as a failed attempt, and the instance is made
/// anew.
pub trait TaskHandler: 'static {
    /// What a task carries: any prost message, or [`Bytes`] for the payload as it was sent.
    type Payload: Message + Default + 'static;

    /// Handles one task. `Ok` is its end; the error says what becomes of it otherwise. A task may be handled more than once: after
    /// a crash, the last tasks that were not committed come again.
    fn handle(
        &mut self,
        task: Task<Self::Payload>,
        ctx: &TaskContext,
    ) -> impl Future<Output = Result<(), TaskError>>;

    /// The partition was assigned; called before its first task. An error is retried with backoff.
    fn assigned(&mut self, assignment: &Assignment) -> impl Future<Output = Result<(), TaskError>> {
        let _ = assignment;
        async { Ok(()) }
    }

    /// The partition goes away in good order: no task runs or will. Return before `deadline`.
    fn revoked(&mut self, deadline: Instant) -> impl Future<Output = ()> {
        let _ = deadline;
        async {}
    }
}

/// One task.
#[derive(Debug, Clone)]
pub struct Task<P> {
    /// The id given by the sender, else `{partition}-{offset}`.
    pub id: String,
    /// The payload's type name, where the sender gave one.
    pub type_name: Option<String>,
    /// The payload's content type, where the sender gave one.
    pub content_type: Option<String>,
    /// The payload's size in bytes, as it was sent and without any compression.
    pub size: u64,
    /// The payload.
    pub payload: P,
}

/// Where a task stands, and what its handler may ask.
#[derive(Debug, Clone)]
pub struct TaskContext {
    pub(crate) assignment: Assignment,
    pub(crate) key: Bytes,
    pub(crate) offset: Offset,
    pub(crate) attempt: u32,
    pub(crate) created_at: SystemTime,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cancelled: CancellationToken,
}

/// One assignment of one partition.
#[derive(Debug, Clone)]
pub struct Assignment {
    pub(crate) topic: Arc<str>,
    pub(crate) topic_id: Arc<str>,
    pub(crate) partition: Partition,
    pub(crate) epoch: Epoch,
}

impl Assignment {
    /// The task topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The topic's identity.
    pub fn topic_id(&self) -> &str {
        &self.topic_id
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition.0
    }

    /// The assignment's number: a later owner's is always greater, also where the group's generations begin anew, as when it changes
    /// its protocol. Only a group whose committed offsets are gone begins with smaller ones.
    pub fn epoch(&self) -> u64 {
        self.epoch.0
    }
}

/// What a conditional write compares, key by key: a store that keeps the fence of a key's last write, and takes another only where it
/// is [newer](Fence::is_newer_than), absorbs redeliveries and refuses a former owner. Not over keys: a redriven task keeps its offset,
/// and other keys have gone on meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The topic's identity.
    pub topic_id: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// The assignment's number.
    pub epoch: u64,
    /// The task's offset.
    pub offset: u64,
}

impl Fence {
    /// Whether what was written under `last` gives way to what is written under this one: this is of a later task, and of no former
    /// owner. A redelivery has a greater epoch, and is not newer. Of another topic or partition every fence is: numbers begin anew there.
    pub fn is_newer_than(&self, last: &Self) -> bool {
        (&self.topic_id, self.partition) != (&last.topic_id, last.partition)
            || (self.epoch >= last.epoch && self.offset > last.offset)
    }
}

impl TaskContext {
    /// The task's key, as it was sent.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The key as text; the front door takes no key that is not UTF-8.
    pub fn key_str(&self) -> &str {
        std::str::from_utf8(&self.key).unwrap_or("\u{fffd}")
    }

    /// The task topic.
    pub fn topic(&self) -> &str {
        self.assignment.topic()
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.assignment.partition()
    }

    /// The assignment's number.
    pub fn epoch(&self) -> u64 {
        self.assignment.epoch()
    }

    /// The task's offset.
    pub fn offset(&self) -> u64 {
        self.offset.0
    }

    /// Which attempt this is, from 1. It starts again at 1 after a crash or a rebalance.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When the front door took the task.
    pub fn created_at(&self) -> SystemTime {
        self.created_at
    }

    /// What came with the task: its trace context and the like.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// When this attempt will be given up, where a limit is set.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the attempt has been given up: its result will not count.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Returns when the attempt has been given up, for use in a `select!`.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// What a conditional write compares.
    pub fn fence(&self) -> Fence {
        Fence {
            topic_id: self.assignment.topic_id.clone(),
            partition: self.partition(),
            epoch: self.epoch(),
            offset: self.offset(),
        }
    }
}

/// What becomes of a task whose handler did not succeed. Any `std::error::Error` becomes [`TaskError::Retry`] by `?`.
#[derive(Debug)]
#[non_exhaustive]
pub enum TaskError {
    /// Try again here, with backoff, before any later task of the partition; after the last attempt, park.
    Retry(Box<dyn std::error::Error + Send + Sync>),
    /// Put the task aside for an operator.
    Park(String),
    /// The task can never succeed: record it with its reason.
    Reject(String),
    /// Something the handler needs is away: wait for it without spending attempts.
    Unavailable {
        /// What is away.
        dependency: String,
        /// When to try again, where it said so.
        retry_after: Option<Duration>,
    },
}

impl TaskError {
    /// A [`TaskError::Retry`] with a message.
    pub fn retry(message: impl fmt::Display) -> Self {
        Self::Retry(message.to_string().into())
    }

    /// A [`TaskError::Reject`] with a reason.
    pub fn reject(reason: impl fmt::Display) -> Self {
        Self::Reject(reason.to_string())
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry(error) => write!(f, "{error}"),
            Self::Park(reason) => write!(f, "parked: {reason}"),
            Self::Reject(reason) => write!(f, "rejected: {reason}"),
            Self::Unavailable { dependency, .. } => write!(f, "{dependency} is unavailable"),
        }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for TaskError {
    fn from(error: E) -> Self {
        Self::Retry(Box::new(error))
    }
}
