//! The port: what Partita asks of a durable log, and nothing about how one is made.
//!
//! [`TaskLog`] is the writing half, used by the front door (append) and by the workers (park). [`TaskConsumer`] is the
//! reading half: it runs on one thread of its own, delivers batches of records straight into the partition actors'
//! inboxes, tells the supervisor what happened as [`ConsumerEvent`]s and does what it is told by [`ConsumerCommand`]s.
//! Every engine keeps the same promises, so the same actors run over all of them.

mod batch;
pub mod embedded;
mod idempotency;
pub(crate) mod journal;
pub mod kafka;
mod lock;
mod reply;
mod tenure;

pub use batch::{Batch, Record};
pub use idempotency::{Idempotency, IdempotencyKey, PayloadDigest, PayloadHash};
pub use journal::{
    Extent, JournalFuture, JournalPage, JournalRead, JournalRecord, ParkedRecord, ReadError, Start,
};
pub use reply::{AppendOutcome, Replies, Reply};
pub use tenure::Tenure;

use crate::memory::Reservation;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use partita_core::{CommitId, Epoch, Intent, Mark, Offset, Outstanding, Partition, Position};
use std::{sync::Arc, time::Duration};

/// The writing half of a log: durable appends, in the order of the calls.
pub trait TaskLog: Send + Sync + 'static {
    /// The task topic's name.
    fn topic(&self) -> &str;

    /// The identity of the topic: another one under the same name has another id. Empty as long as it is not known; the consumer offers
    /// no partition before it is.
    fn topic_id(&self) -> &str;

    /// The pinned number of partitions.
    fn partitions(&self) -> u32;

    /// Takes the record at once, so that records of one partition are stored in the order of these calls, and replies
    /// when it is durable or is known not to be: from any thread, also within the call.
    ///
    /// Of all records with the same [`Idempotency::key`], one is stored; the others get its receipt, as long as it is remembered. Such an
    /// append may have to be negotiated first: its place among others is that of its reply, not of its call.
    fn submit(&self, partition: Partition, record: NewRecord, reply: Reply);

    /// The same, for one who waits for this record alone. Dropping the future does not take the record back.
    fn append(&self, partition: Partition, record: NewRecord) -> AppendFuture {
        let (reply, outcome) = Reply::one();
        self.submit(partition, record, reply);
        Box::pin(outcome)
    }

    /// Begins to digest a payload, for [`Idempotency::digest`]: all appends to one log do it in the same way, for as long as it exists.
    fn payload_hash(&self) -> PayloadHash {
        PayloadHash::default()
    }

    /// Adds a record to the partition's parking journal, as durably and in the same way as `append` does. The receipt's offset is the
    /// record's [`Position`].
    fn park(&self, partition: Partition, record: ParkedRecord) -> AppendFuture;

    /// Reads the partition's parking journal from this place on. Places may be missing; the order is that of the `park` calls.
    fn journal(&self, partition: Partition, from: Position, read: JournalRead) -> JournalFuture;

    /// What the partition reaches over, and where in it a time is, in milliseconds since the Unix epoch.
    fn extent(&self, partition: Partition, time_ms: Option<i64>) -> ExtentFuture;

    /// The next offset to read of a partition, as the log has it stored: of this process's group, whoever owns the partition. `None`:
    /// nothing is stored.
    fn committed(&self, partition: Partition) -> CommittedFuture;

    /// How far every partition is: what it reaches over, and what is committed. A partition of which that is not known now is left out.
    fn backlog(&self) -> BacklogFuture;

    /// The consumer group that this process is a member of; empty where there are no groups.
    fn group(&self) -> &str {
        ""
    }

    /// May appends be expected to succeed?
    fn health(&self) -> LogHealth;

    /// Refuses new appends and waits until every one that was taken is answered. Idempotent.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// The answer to an append.
pub type AppendFuture = BoxFuture<'static, AppendOutcome>;

/// The answer to a question for an extent.
pub type ExtentFuture = BoxFuture<'static, Result<Extent, ReadError>>;

/// The answer to a question for a committed offset.
pub type CommittedFuture = BoxFuture<'static, Result<Option<Offset>, ReadError>>;

/// How far a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Which partition.
    pub partition: Partition,
    /// The next offset to read, as it is stored.
    pub committed: Option<Offset>,
    /// The first offset that it has; where something is committed, possibly less.
    pub first: Offset,
    /// The offset after its last.
    pub end: Offset,
}

/// The answer to the question how far partitions are.
pub type BacklogFuture = BoxFuture<'static, Result<Vec<Reach>, ReadError>>;

/// A record to be stored.
#[derive(Debug)]
pub struct NewRecord {
    /// The task's key.
    pub key: Bytes,
    /// The encoded envelope.
    pub value: Bytes,
    /// The memory that `value` was reserved from: released when the log holds the bytes no longer.
    pub reservation: Option<Reservation>,
    /// What makes the append idempotent, where its sender may try again.
    pub idempotency: Option<Idempotency>,
}

/// Where a durable record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// It was stored before, by an append with the same idempotency key.
    pub repeated: bool,
}

impl Receipt {
    /// Of a record that was stored now.
    pub fn new(partition: Partition, offset: Offset) -> Self {
        Self { partition, offset, repeated: false }
    }
}

/// Why an append has no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The record is not in the log and never will be.
    #[error("not written: {reason}")]
    NotWritten {
        /// What a caller may do about it.
        code: NotWritten,
        /// What happened, for people.
        reason: String,
    },
    /// The record may or may not be in the log.
    #[error("outcome unknown: {reason}")]
    Unknown {
        /// What happened, for people.
        reason: String,
    },
}

/// The kinds of definite failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotWritten {
    /// The log cannot be reached.
    Away,
    /// The log has no room (disk full, quota).
    Full,
    /// Too much is waiting to be written already.
    Busy,
    /// The log is closing.
    Closing,
    /// This record can never be stored (larger than the log's own limit).
    TooLarge,
    /// An append with this idempotency key is under way, or its outcome is not known yet.
    InFlight,
    /// The idempotency key belongs to another payload.
    Reused,
    /// What came before this process has not been read yet.
    NotReady,
}

/// The state of a log, as far as it is known without asking it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LogHealth {
    /// Appends are expected to succeed.
    #[default]
    Ready,
    /// The log cannot be reached, for this reason.
    Away(String),
    /// The log has no room, for this reason.
    Full(String),
    /// The topic is not what this process was started with (partition count, identity), for this reason.
    Mismatch(String),
}

/// The reading half of a log.
pub trait TaskConsumer: Send + 'static {
    /// Something that makes `run` look at its commands soon, callable from any thread.
    fn waker(&self) -> Arc<dyn Fn() + Send + Sync>;

    /// Until when the partitions may be taken for this consumer's own. No task begins after that; it waits for a renewal.
    fn tenure(&self) -> Tenure {
        Tenure::for_good()
    }

    /// Consumes until told to close; its last event is [`ConsumerEvent::Closed`] or [`ConsumerEvent::Fatal`]. Runs on a thread
    /// of its own and never waits for an actor.
    fn run(self: Box<Self>, port: ConsumerPort);
}

/// What a consumer's thread is given.
pub struct ConsumerPort {
    /// Where its events go. Never blocks.
    pub events: Box<dyn Fn(ConsumerEvent) + Send>,
    /// What it is told to do, in order. A disconnected channel means close.
    pub commands: crossbeam_channel::Receiver<ConsumerCommand>,
}

/// What the supervisor keeps to talk to a consumer's thread.
#[derive(Clone)]
pub struct ConsumerHandle {
    /// The way to the thread.
    pub commands: crossbeam_channel::Sender<ConsumerCommand>,
    /// From [`TaskConsumer::waker`].
    pub waker: Arc<dyn Fn() + Send + Sync>,
}

impl ConsumerHandle {
    /// Sends a command and wakes the thread. A thread that has ended is told nothing.
    pub fn send(&self, command: ConsumerCommand) {
        if self.commands.send(command).is_ok() {
            (self.waker)();
        }
    }
}

/// What the supervisor is told. The meaning of each is [`partita_core::Event`]'s of the same name.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// The consumer is a member of its group, with or without partitions.
    Joined,
    /// Partitions are offered.
    Assigned {
        /// Answered by [`ConsumerCommand::CompleteAssign`].
        intent: Intent,
        /// The group's generation.
        generation: u32,
        /// Each partition with where it begins.
        partitions: Vec<Start>,
    },
    /// Partitions are taken back in good order. The lanes deliver nothing from now on.
    Revoking {
        /// Answered by [`ConsumerCommand::CompleteRevoke`].
        intent: Intent,
        /// Which.
        partitions: Vec<Partition>,
    },
    /// Partitions are gone. The lanes deliver nothing from now on.
    Lost {
        /// Which.
        partitions: Vec<Partition>,
    },
    /// A commit was answered.
    CommitDone {
        /// Which one.
        commit: CommitId,
        /// The partitions whose offset is stored now.
        committed: Vec<Partition>,
        /// Why the others' is not.
        error: Option<String>,
    },
    /// A partition's records do not continue where they must; its lane is closed.
    Discontinuity {
        /// Which partition.
        partition: Partition,
        /// Under which assignment.
        epoch: Epoch,
        /// What was expected and what was found, and what may be lost, for people.
        detail: String,
    },
    /// A lane's pause state changed.
    Paused {
        /// Which partition.
        partition: Partition,
        /// Whether it is paused now.
        paused: bool,
    },
    /// How far the log's partitions reach: the offset after the last record of each. From the log itself, also for
    /// paused partitions; a partition whose end is not known is left out.
    HighWatermarks(Vec<(Partition, Offset)>),
    /// Tasks below these offsets, where they have not ended, may soon be deleted by the log's retention.
    Endangered(Vec<(Partition, Offset)>),
    /// The log cannot be reached (`Some`), or can be again (`None`).
    Away(Option<String>),
    /// The client is broken for good.
    Fatal(String),
    /// The consumer has left its group and the thread ends.
    Closed,
}

/// What a consumer's thread is told.
pub enum ConsumerCommand {
    /// Take the offered partitions: deliver each from its start into its inbox.
    CompleteAssign {
        /// Which offer. One that was overtaken by *lost* or a revocation is ignored.
        intent: Intent,
        /// What to deliver where.
        lanes: Vec<Lane>,
    },
    /// Give the partitions back.
    CompleteRevoke {
        /// Which request.
        intent: Intent,
    },
    /// Deliver nothing more of this partition under this epoch.
    CloseLane {
        /// Which partition.
        partition: Partition,
        /// Under which assignment.
        epoch: Epoch,
    },
    /// Seek an owned partition to the lane's start and deliver into its new inbox.
    Reopen(Lane),
    /// Store these offsets; answered by [`ConsumerEvent::CommitDone`].
    Commit {
        /// The number to answer with.
        commit: CommitId,
        /// For each partition the next offset to read, and what the next owner of its parking journal has to know.
        offsets: Vec<(Partition, Offset, Mark)>,
    },
    /// Leave the group and end.
    Close,
}

/// One partition's way from the consumer's thread to its actor.
#[derive(Clone)]
pub struct Lane {
    /// Which partition.
    pub partition: Partition,
    /// Under which assignment. Every batch carries it.
    pub epoch: Epoch,
    /// The first offset to deliver.
    pub start: Offset,
    /// Where batches go.
    pub inbox: Arc<dyn Inbox>,
}

/// Where a partition's batches go.
pub trait Inbox: Send + Sync {
    /// Hands a batch over without waiting. An inbox whose actor is gone drops it: the records are fenced anyway.
    fn deliver(&self, batch: Batch);

    /// How much was delivered and has not reached its end. The consumer pauses and resumes the partition by it.
    fn outstanding(&self) -> Outstanding;
}

/// How long an append may take before its outcome is reported as unknown.
pub const DEFAULT_APPEND_TIMEOUT: Duration = Duration::from_secs(30);
