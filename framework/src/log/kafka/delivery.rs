//! From an append to its answer: what librdkafka is lent, and what its delivery report means.

use super::admin::{parking_topic, requests_topic};
use crate::log::{AppendError, AppendOutcome, NotWritten, Receipt, Reply};
use crate::memory::Reservation;
use crate::metrics::{PRODUCER_ACK_DURATION_SECONDS, PRODUCER_DELIVERIES_TOTAL};
use bytes::Bytes;
use partita_core::{Offset, Partition};
use rdkafka::error::RDKafkaErrorCode;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use tokio::sync::Notify;

/// Everything that lives until librdkafka has no more use for a record: above all its bytes, which it reads in place.
pub(super) struct Delivery {
    /// The record's value. librdkafka holds a pointer into it.
    pub(super) value: Bytes,
    pub(super) partition: Partition,
    pub(super) topic: Target,
    pub(super) started: Instant,
    reply: Reply,
    _reservation: Option<Reservation>,
    _pending: PendingGuard,
}

impl Delivery {
    pub(super) fn new(
        topic: Target,
        partition: Partition,
        value: Bytes,
        reservation: Option<Reservation>,
        pending: &Arc<Pending>,
        reply: Reply,
    ) -> Self {
        let guard = PendingGuard::new(pending, value.len() as u64);
        let started = Instant::now();
        Self { value, partition, topic, reply, started, _reservation: reservation, _pending: guard }
    }

    /// Answers. The bytes go back to the budget before anyone learns of it.
    pub(super) fn end(self, outcome: AppendOutcome, meters: &[Meters; TARGETS]) {
        meters[self.topic as usize].count(&outcome, self.started);
        let Self { value, reply, _reservation, _pending, .. } = self;
        drop((value, _reservation, _pending));
        reply.send(outcome);
    }
}

/// The topics that are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The task topic.
    Tasks = 0,
    /// The parking topic.
    Parking = 1,
    /// The journal of requests.
    Requests = 2,
}

/// How many there are.
pub(super) const TARGETS: usize = Target::ALL.len();

impl Target {
    /// In the order of their numbers.
    pub(super) const ALL: [Self; 3] = [Self::Tasks, Self::Parking, Self::Requests];

    /// The topic's name, where the task topic has this one.
    pub(super) fn topic(self, tasks: &str) -> String {
        match self {
            Self::Tasks => tasks.to_owned(),
            Self::Parking => parking_topic(tasks),
            Self::Requests => requests_topic(tasks),
        }
    }
}

/// How far the log is known to have got with a record that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Persisted {
    /// It never left this process, or was refused.
    No,
    /// It may have been written.
    Perhaps,
    /// It was written.
    Yes,
}

/// What a delivery report means. Pure.
pub(super) fn outcome(
    partition: Partition,
    offset: i64,
    error: Option<RDKafkaErrorCode>,
    persisted: Persisted,
) -> Result<Receipt, AppendError> {
    let Some(code) = error else {
        // A retry that the broker recognised as a duplicate may come without an offset: written, but not known where.
        return u64::try_from(offset).map(|offset| Receipt::new(partition, Offset(offset))).map_err(|_| {
            AppendError::Unknown { reason: "written, but at an offset that is not known".into() }
        });
    };
    let reason = code.to_string();
    match persisted {
        Persisted::Perhaps | Persisted::Yes => Err(AppendError::Unknown { reason }),
        Persisted::No if code == RDKafkaErrorCode::PurgeInflight => Err(AppendError::Unknown { reason }),
        Persisted::No => Err(AppendError::NotWritten { code: kind(code), reason }),
    }
}

/// What a caller may do about a record that was not written.
pub(super) fn kind(code: RDKafkaErrorCode) -> NotWritten {
    use RDKafkaErrorCode as Code;
    match code {
        Code::QueueFull | Code::ThrottlingQuotaExceeded => NotWritten::Busy,
        Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
            NotWritten::TooLarge
        }
        Code::KafkaStorageError => NotWritten::Full,
        Code::PurgeQueue => NotWritten::Closing,
        _ => NotWritten::Away,
    }
}

/// The appends that wait for their answer.
#[derive(Debug, Default)]
pub(super) struct Pending {
    count: AtomicU64,
    bytes: AtomicU64,
    none: Notify,
}

impl Pending {
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Waits until every append is answered.
    pub(super) async fn none(&self) {
        loop {
            let mut notified = std::pin::pin!(self.none.notified());
            // Registered before the look, so that no answer falls between the two.
            notified.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

struct PendingGuard {
    pending: Arc<Pending>,
    bytes: u64,
}

impl PendingGuard {
    fn new(pending: &Arc<Pending>, bytes: u64) -> Self {
        pending.count.fetch_add(1, Ordering::AcqRel);
        pending.bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { pending: pending.clone(), bytes }
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.pending.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.pending.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.pending.none.notify_waiters();
        }
    }
}

/// The metrics of one topic's deliveries.
pub(super) struct Meters {
    ok: metrics::Counter,
    not_written: metrics::Counter,
    unknown: metrics::Counter,
    duration: metrics::Histogram,
}

impl Meters {
    pub(super) fn new(topic: &str) -> Self {
        let counter = |outcome: &'static str| metrics::counter!(PRODUCER_DELIVERIES_TOTAL, "topic" => topic.to_owned(), "outcome" => outcome);
        Self {
            ok: counter("ok"),
            not_written: counter("not_written"),
            unknown: counter("unknown"),
            duration: metrics::histogram!(PRODUCER_ACK_DURATION_SECONDS),
        }
    }

    fn count(&self, outcome: &Result<Receipt, AppendError>, started: Instant) {
        match outcome {
            Ok(_) => {
                self.ok.increment(1);
                self.duration.record(started.elapsed());
            }
            Err(AppendError::NotWritten { .. }) => self.not_written.increment(1),
            Err(AppendError::Unknown { .. }) => self.unknown.increment(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_definite_only_when_the_record_certainly_was_not_written() {
        let timed_out = Some(RDKafkaErrorCode::MessageTimedOut);
        let place = Partition(3);
        assert!(matches!(
            outcome(place, -1, timed_out, Persisted::No),
            Err(AppendError::NotWritten { code: NotWritten::Away, .. })
        ));
        for persisted in [Persisted::Perhaps, Persisted::Yes] {
            assert!(matches!(outcome(place, -1, timed_out, persisted), Err(AppendError::Unknown { .. })));
        }
        let purged = Some(RDKafkaErrorCode::PurgeInflight);
        assert!(matches!(outcome(place, -1, purged, Persisted::No), Err(AppendError::Unknown { .. })));
    }

    #[test]
    fn a_success_without_an_offset_is_an_unknown_outcome() {
        let place = Partition(3);
        assert_eq!(outcome(place, 7, None, Persisted::Yes), Ok(Receipt::new(place, Offset(7))));
        assert!(matches!(outcome(place, -1001, None, Persisted::Yes), Err(AppendError::Unknown { .. })));
    }

    #[tokio::test]
    async fn waiting_for_no_pending_appends_ends_when_the_last_is_answered() {
        let pending = Arc::new(Pending::default());
        let meters = Target::ALL.map(|target| Meters::new(&target.topic("t")));
        let (reply, answer) = Reply::one();
        let delivery =
            Delivery::new(Target::Tasks, Partition(0), Bytes::from_static(b"abc"), None, &pending, reply);
        assert_eq!((pending.count(), pending.bytes()), (1, 3));
        let waiting = pending.clone();
        let waiter = tokio::spawn(async move { waiting.none().await });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        delivery.end(Ok(Receipt::new(Partition(0), Offset(1))), &meters);
        waiter.await.expect("ends");
        assert!(answer.await.is_ok());
        assert_eq!((pending.count(), pending.bytes()), (0, 0));
    }
}
