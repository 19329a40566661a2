//! One record's way to its end: whether its turn has come, its envelope and payload, its attempts, and what follows a failure.

use super::{
    attempt::{Attempted, attempt, guarded_call},
    lane::{Order, Phase},
    meter::End,
    parking::Aside,
    runner::{Ending, Runner},
    work::{Failure, Work, task},
};
use crate::{
    envelope::{self, EnvelopeError},
    handler::{Task, TaskError},
    log::Record,
    memory::Reservation,
    metrics as names,
};
use bytes::Bytes;
use partita_core::{BreakerPolicy, Next, Offset, ParkReason, RetryPolicy, Ruling, Verdict, retry};
use partita_proto::v1::Envelope;
use std::time::{Duration, UNIX_EPOCH};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A payload larger than this is decompressed on a thread of its own: it would keep the siblings waiting.
const INLINE_DECOMPRESSION: u64 = 1 << 20;

impl<W: Work> Runner<W> {
    /// Takes one record to its end.
    pub(super) async fn one(&mut self, record: Record) -> Result<(), Ending> {
        let verdict = self.verdict(&record).await?;
        self.ctx.attempt = 0;
        let received_at_ms = record.timestamp_ms.max(0) as u64;
        let ended = match verdict {
            Verdict::Run => Some(self.run_task(&record).await?),
            Verdict::Park => {
                let detail = "an earlier task of its key is parked".to_owned();
                let aside = Aside { end: End::Parked, reason: ParkReason::Behind, detail };
                Some((self.put_aside(&record, aside).await?, received_at_ms))
            }
            Verdict::Skip => None,
        };
        self.setup.progress.ended(record.weight());
        if let Some((end, created_at_ms)) = ended {
            self.finished.meter_mut().ended(end, created_at_ms, self.now);
        }
        self.setup.parked.passed(record.offset.next());
        self.finished.add(record.offset, self.now);
        Ok(())
    }

    /// Takes a task to its end: done or put aside. Where the breaker says that too many were, it is tried again instead.
    async fn run_task(&mut self, record: &Record) -> Result<(End, u64), Ending> {
        loop {
            let Tried { aside, created_at_ms } = self.try_task(record, None).await?;
            let Some(aside) = aside else {
                self.breaker.succeeded();
                return Ok((End::Done, created_at_ms));
            };
            let elapsed = self.now.saturating_duration_since(self.began);
            let held = match aside.end {
                End::Parked => self.breaker.rule(elapsed),
                End::Rejected | End::Done => Ruling::Park,
            };
            let Ruling::Hold { until } = held else {
                return Ok((self.put_aside(record, aside).await?, created_at_ms));
            };
            let BreakerPolicy { tasks, window } = self.setup.policy.breaker;
            let why = format!(
                "a task that succeeds: {tasks} tasks were parked within {window:?}, so the fault is taken for the handler's; last: {}",
                aside.reason.label()
            );
            tracing::error!(partition = %self.setup.assignment.partition, offset = %record.offset, why, "the partition waits and parks no more");
            let again = self.setup.policy.retry.backoff_max.min(until.saturating_sub(elapsed));
            self.wait_as(Phase::Tripped, Some(why), again).await?;
        }
    }

    /// Reads a record and tries its task. `memory`: holds the record's and its payload's bytes already.
    pub(super) async fn try_task(
        &mut self,
        record: &Record,
        memory: Option<Reservation>,
    ) -> Result<Tried, Ending> {
        match self.open(record, memory).await? {
            Ok(opened) => {
                let created_at_ms = opened.envelope.created_at_ms;
                Ok(Tried { aside: self.attempts(record, opened).await?, created_at_ms })
            }
            Err(error) => {
                // Without a key it can hold nothing up, and nobody could name it.
                let end = if record.key.is_empty() { End::Rejected } else { End::Parked };
                let aside = Aside { end, reason: ParkReason::Undecodable, detail: error.to_string() };
                Ok(Tried { aside: Some(aside), created_at_ms: record.timestamp_ms.max(0) as u64 })
            }
        }
    }

    /// Reads the envelope and takes the payload out, once memory for it is reserved.
    async fn open(
        &mut self,
        record: &Record,
        memory: Option<Reservation>,
    ) -> Result<Result<Opened, EnvelopeError>, Order> {
        if record.key.is_empty() {
            return Ok(Err(EnvelopeError::NoKey));
        }
        let mut envelope = match envelope::decode(record.value.clone(), self.setup.policy.max_task) {
            Ok(envelope) => envelope,
            Err(error) => return Ok(Err(error)),
        };
        let size = envelope::decompressed_len(&envelope);
        if size == 0 {
            return Ok(envelope::payload(&mut envelope).map(|payload| Opened {
                envelope,
                payload,
                _memory: memory,
            }));
        }
        let memory = match memory.or_else(|| self.setup.decode.try_reserve(size)) {
            Some(memory) => memory,
            None => {
                self.finished.flush();
                // Whoever waits for memory holds none.
                self.ahead = None;
                tokio::select! {
                    biased;
                    order = self.lane.until_ordered() => return Err(order),
                    memory = self.setup.decode.reserve(size) => memory,
                }
            }
        };
        let opened = decompress(envelope, size).await;
        self.now = Instant::now();
        Ok(opened.map(|(envelope, payload)| Opened { envelope, payload, _memory: Some(memory) }))
    }

    /// Tries a task until it succeeds or is to be put aside.
    async fn attempts(&mut self, record: &Record, opened: Opened) -> Result<Option<Aside>, Ending> {
        let Opened { envelope, payload, _memory } = opened;
        self.present(record, &envelope);
        let policy = self.policy_of(&envelope);
        let mut envelope = Some(envelope);
        let mut waits = 0;
        self.ctx.attempt = 1;
        loop {
            if self.work.is_none() {
                self.make().await?;
            }
            self.tenured().await?;
            let mut head = envelope.take().unwrap_or_else(|| self.head_again(record));
            let task = task(record, self.ctx.partition(), &mut head, payload.clone());
            let attempted = self.attempt(task).await;
            if matches!(attempted, Attempted::Panicked(_) | Attempted::TimedOut) {
                // Nobody knows the state that it left its instance in.
                self.discard();
            }
            let Failed { failure, label, message } = match explain(attempted, waits) {
                Explained::Done => return Ok(None),
                Explained::Stopped => return Err(Order::Stop.into()),
                Explained::Failed(failed) => failed,
            };
            self.told(record.offset, label, &message);
            let jitter = self.jitter(record.offset, self.ctx.attempt + waits);
            let after = match retry::after_failure(&policy, self.ctx.attempt, failure, jitter) {
                Next::Again { after } => {
                    self.ctx.attempt += 1;
                    after
                }
                Next::Wait { after } => {
                    waits += 1;
                    after
                }
                Next::Park { reason } => {
                    return Ok(Some(Aside { end: End::Parked, reason, detail: message }));
                }
                Next::Reject { reason } => {
                    return Ok(Some(Aside { end: End::Rejected, reason, detail: message }));
                }
            };
            metrics::counter!(names::TASK_RETRIES_TOTAL, "reason" => label).increment(1);
            match failure {
                retry::Failure::Unavailable { .. } => {
                    self.wait_as(Phase::Unavailable, Some(message), after).await?;
                }
                _ => self.wait(after).await?,
            }
        }
    }

    /// What the first attempt took out of the envelope: most tasks have only one, so it is not kept.
    fn head_again(&self, record: &Record) -> Envelope {
        envelope::decode(record.value.clone(), self.setup.policy.max_task).unwrap_or_default()
    }

    /// Drops the handler. What it does in its destructor is not to end its successor.
    fn discard(&mut self) {
        let work = self.work.take();
        if let Err(panic) = guarded_call(|| drop(work)) {
            tracing::warn!(partition = %self.setup.assignment.partition, panic, "dropping the handler failed");
        }
    }

    /// Fills the context for a record.
    fn present(&mut self, record: &Record, envelope: &Envelope) {
        let ctx = &mut self.ctx;
        ctx.key = record.key.clone();
        ctx.offset = record.offset;
        ctx.created_at = UNIX_EPOCH + Duration::from_millis(envelope.created_at_ms);
        ctx.headers.clear();
        ctx.headers.extend(envelope.headers.iter().map(|header| (header.name.clone(), header.value.clone())));
    }

    async fn attempt(&mut self, task: Task<Bytes>) -> Attempted {
        let deadline = self.setup.policy.task_timeout.map(|limit| self.now + limit);
        self.ctx.deadline = deadline.map(Instant::into_std);
        let Some(work) = self.work.as_mut() else { return Attempted::Stopped };
        let (ctx, progress) = (&self.ctx, &self.setup.progress);
        let attempted = {
            let future = async { work.attempt(task, ctx).await };
            attempt(future, &self.lane, &mut self.finished, deadline, || {
                progress.started(ctx.offset, ctx.attempt)
            })
            .await
        };
        if matches!(attempted, Attempted::TimedOut | Attempted::Stopped) {
            // For what the handler spawned: its own future is dropped already.
            self.ctx.cancelled.cancel();
            self.ctx.cancelled = CancellationToken::new();
        }
        if progress.in_flight_since_ms() != 0 {
            progress.idle();
        }
        let now = Instant::now();
        let succeeded = matches!(attempted, Attempted::Returned(Ok(())));
        self.finished.meter().attempt(succeeded, now.saturating_duration_since(self.now));
        self.now = now;
        attempted
    }

    fn told(&self, offset: Offset, label: &str, message: &str) {
        let (partition, attempt) = (self.setup.assignment.partition, self.ctx.attempt);
        // What a panic said is for the parking topic: it may quote the payload.
        let error = if label == "panic" { "the handler panicked" } else { message };
        tracing::warn!(%partition, %offset, attempt, reason = label, error, "an attempt failed");
    }

    /// How often and how eagerly a task is tried.
    fn policy_of(&self, envelope: &Envelope) -> RetryPolicy {
        let by_type = &self.setup.policy.retry_by_type;
        let own = envelope.r#type.as_ref().and_then(|name| by_type.get(name));
        *own.unwrap_or(&self.setup.policy.retry)
    }
}

/// What a task came to.
pub(super) struct Tried {
    /// Why it is to be put aside; `None` where its handler succeeded.
    pub(super) aside: Option<Aside>,
    /// When it was made, as far as that can be read.
    created_at_ms: u64,
}

/// A record that has been read.
struct Opened {
    envelope: Envelope,
    payload: Bytes,
    /// Holds the decompressed payload's bytes until the task has ended.
    _memory: Option<Reservation>,
}

async fn decompress(mut envelope: Envelope, size: u64) -> Result<(Envelope, Bytes), EnvelopeError> {
    if size <= INLINE_DECOMPRESSION {
        return envelope::payload(&mut envelope).map(|payload| (envelope, payload));
    }
    let work = move || envelope::payload(&mut envelope).map(|payload| (envelope, payload));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(EnvelopeError::Corrupt { size, detail: format!("decompression broke off: {error}") })
    })
}

/// What an attempt came to, in core's words.
enum Explained {
    Done,
    Stopped,
    Failed(Failed),
}

struct Failed {
    failure: retry::Failure,
    /// The label of the metric, should another attempt follow.
    label: &'static str,
    message: String,
}

fn explain(attempted: Attempted, waits: u32) -> Explained {
    use retry::Failure as F;
    let (failure, label, message) = match attempted {
        Attempted::Returned(Ok(())) => return Explained::Done,
        Attempted::Stopped => return Explained::Stopped,
        Attempted::Panicked(message) => (F::Panic, "panic", message),
        Attempted::TimedOut => {
            (F::TimedOut, "timeout", "the attempt took longer than worker.task_timeout".into())
        }
        Attempted::Returned(Err(failure)) => match failure {
            Failure::Undecodable(error) => (F::Undecodable, "undecodable", error),
            Failure::UnknownType(error) => (F::UnknownType, "unknown_type", error),
            Failure::Handler(TaskError::Retry(error)) => (F::Retry, "error", error.to_string()),
            Failure::Handler(TaskError::Park(reason)) => (F::Park, "parked", reason),
            Failure::Handler(TaskError::Reject(reason)) => (F::Reject, "rejected", reason),
            Failure::Handler(TaskError::Unavailable { dependency, retry_after }) => {
                let failure = F::Unavailable { retry_after, waits };
                (failure, "unavailable", format!("{dependency} is unavailable"))
            }
        },
    };
    Explained::Failed(Failed { failure, label, message })
}
