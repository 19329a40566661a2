//! The queue through which a client says what it has to say.

use super::{Fetched, event::Event, millis};
use partita_core::{CommitId, Partition};
use rdkafka::{ClientContext, bindings as rd, client::Client, error::RDKafkaErrorCode};
use std::time::Duration;

/// One thing taken from a queue.
pub(in crate::log::kafka) enum Polled {
    /// The queue is empty, or the poll was ended by `wake`.
    Nothing,
    /// Something was dealt with; there may be more.
    Served,
    /// A line for the log, which has it already.
    Line {
        /// librdkafka's short name for what it is about.
        facility: String,
        /// For people.
        text: String,
    },
    /// A record.
    Record(Fetched),
    /// The group gives or takes partitions and waits for the answer.
    Rebalance {
        /// Given, rather than taken.
        assign: bool,
        /// Which; may be empty.
        partitions: Vec<Partition>,
    },
    /// A commit was answered.
    Committed {
        /// Which.
        commit: CommitId,
        /// Each partition with its own outcome.
        partitions: Vec<(Partition, Option<RDKafkaErrorCode>)>,
        /// What failed as a whole.
        error: Option<RDKafkaErrorCode>,
    },
    /// Something is wrong.
    Error {
        /// librdkafka's code.
        code: RDKafkaErrorCode,
        /// Whether the client is broken for good.
        fatal: bool,
        /// The partition it is about, and the offset where it happened.
        partition: Option<(Partition, i64)>,
        /// For people.
        reason: String,
    },
}

/// A client's queue: what it has to say comes here.
pub(in crate::log::kafka) struct Queue(pub(super) *mut rd::rd_kafka_queue_t);

// SAFETY: librdkafka's queues may be used from any thread; their own lock guards them.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the reference was counted when the queue was asked for, and is given back once, here.
        unsafe { rd::rd_kafka_queue_destroy(self.0) }
    }
}

impl Queue {
    /// The main queue of a client, which must outlive it.
    pub(in crate::log::kafka) fn main<C: ClientContext>(client: &Client<C>) -> Self {
        // SAFETY: the client is alive; the reference that is counted here is given back when the queue is dropped.
        Self(unsafe { rd::rd_kafka_queue_get_main(client.native_ptr()) })
    }

    /// The queue of a consumer, which must outlive it: with the main queue forwarded, it carries logs, errors, events and records. `None`
    /// without a group.
    pub(super) fn consumer<C: ClientContext>(client: &Client<C>) -> Option<Self> {
        // SAFETY: the client is alive; the reference that is counted here is given back when the queue is dropped.
        let queue = unsafe {
            rd::rd_kafka_poll_set_consumer(client.native_ptr());
            rd::rd_kafka_queue_get_consumer(client.native_ptr())
        };
        (!queue.is_null()).then_some(Self(queue))
    }

    /// Takes the next thing, waiting for it at most this long.
    pub(in crate::log::kafka) fn poll(&self, timeout: Duration) -> Polled {
        // SAFETY: the queue is alive. The event is owned from here on, by `Event`.
        let event = unsafe { rd::rd_kafka_queue_poll(self.0, millis(timeout)) };
        if event.is_null() {
            return Polled::Nothing;
        }
        let event = Event(event);
        // SAFETY: the event is alive.
        match unsafe { rd::rd_kafka_event_type(event.0) } {
            rd::RD_KAFKA_EVENT_FETCH => Fetched::of(event),
            rd::RD_KAFKA_EVENT_REBALANCE => event.rebalance(),
            rd::RD_KAFKA_EVENT_OFFSET_COMMIT => event.committed(),
            rd::RD_KAFKA_EVENT_ERROR => event.error(),
            rd::RD_KAFKA_EVENT_LOG => event.log(),
            _ => Polled::Served,
        }
    }

    /// Ends the present poll, or else the next one, at once. From any thread.
    pub(in crate::log::kafka) fn wake(&self) {
        // SAFETY: the queue is alive, and this call is thread-safe.
        unsafe { rd::rd_kafka_queue_yield(self.0) }
    }
}
