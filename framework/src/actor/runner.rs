//! The life of one partition's handler: made, told of its assignment, given one task after another, told to leave.
//!
//! The runner is a future on the actor's arbiter. It owns the handler, so nothing is shared and nothing is sent for each
//! task; the actor beside it only fills the lane and passes orders on.

use super::{
    attempt::{Attempted, attempt, guarded, guarded_call},
    lane::{Lane, Order, Phase, Progress},
    meter::{End, Meter},
    parked::ParkedTasks,
    parking::Aside,
    redrive::Ahead,
    report::{Finished, Report},
    work::{Factory, Failure, Work, task},
};
use crate::{
    envelope::{self, EnvelopeError},
    handler::{Assignment, Task, TaskContext, TaskError},
    log::{Record, TaskLog, Tenure},
    memory::{MemoryPool, Reservation},
    metrics as names,
};
use actix::Recipient;
use bytes::Bytes;
use partita_core::{
    Breaker, BreakerPolicy, Epoch, Next, Offset, ParkReason, RetryPolicy, Ruling, Verdict, retry,
};
use partita_proto::v1::Envelope;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    rc::Rc,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long a run of tasks that never wait may keep the arbiter from its siblings.
const TURN: Duration = Duration::from_millis(1);
const TURN_TASKS: u32 = 128;

/// How often a task that may not begin, or be put aside, looks again whether it may.
pub(super) const TENURE: Duration = Duration::from_millis(5);

/// How long a partition's former actor may keep its successor from beginning.
const PREDECESSOR: Duration = Duration::from_secs(30);

/// A payload larger than this is decompressed on a thread of its own: it would keep the siblings waiting.
const INLINE_DECOMPRESSION: u64 = 1 << 20;

/// What one actor is made of, apart from its handler.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) assignment: Assignment,
    pub(crate) log: Arc<dyn TaskLog>,
    pub(crate) decode: MemoryPool,
    pub(crate) tenure: Tenure,
    pub(crate) parked: Arc<ParkedTasks>,
    pub(crate) policy: Policy,
    pub(crate) reports: Recipient<Report>,
    pub(crate) progress: Arc<Progress>,
    /// Of the partition's former actor in this process.
    pub(crate) former: Option<Arc<Progress>>,
}

/// The settings that a runner goes by.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) retry: RetryPolicy,
    /// For payload types that have their own.
    pub(crate) retry_by_type: Arc<BTreeMap<String, RetryPolicy>>,
    pub(crate) breaker: BreakerPolicy,
    pub(crate) task_timeout: Option<Duration>,
    pub(crate) drain_timeout: Duration,
    pub(crate) max_task: u64,
}

/// Why the runner ends.
pub(super) enum Ending {
    Ordered(Order),
    /// The handler cannot be made.
    Broken,
}

impl From<Order> for Ending {
    fn from(order: Order) -> Self {
        Self::Ordered(order)
    }
}

pub(crate) struct Runner<W> {
    pub(super) setup: Setup,
    pub(super) lane: Rc<Lane>,
    pub(super) ctx: TaskContext,
    factory: Factory<W>,
    work: Option<W>,
    pub(super) finished: Finished,
    /// Parked tasks that were read before it is their turn.
    pub(super) ahead: Option<Ahead>,
    /// What its records in the parking journal carry: the assignment's, or a greater one.
    pub(super) journal_epoch: Epoch,
    breaker: Breaker,
    began: Instant,
    now: Instant,
    turn: (Instant, u32),
    alive: bool,
}

impl<W> Drop for Runner<W> {
    /// A runner that is dropped without having ended was unwound: nothing else would tell.
    fn drop(&mut self) {
        if self.alive {
            self.finished.failed();
        }
        self.setup.progress.end();
    }
}

impl<W: Work> Runner<W> {
    pub(crate) fn new(setup: Setup, factory: Factory<W>, lane: Rc<Lane>) -> Self {
        let assignment = setup.assignment.clone();
        let meter = Meter::new(assignment.topic());
        let finished = Finished::new(setup.reports.clone(), assignment.partition, assignment.epoch, meter);
        let ctx = TaskContext {
            assignment,
            key: Bytes::new(),
            offset: Offset(0),
            attempt: 0,
            created_at: UNIX_EPOCH,
            headers: Vec::new(),
            deadline: None,
            cancelled: CancellationToken::new(),
        };
        let now = Instant::now();
        let breaker = Breaker::new(setup.policy.breaker);
        let journal_epoch = setup.assignment.epoch;
        Self {
            setup,
            lane,
            ctx,
            factory,
            work: None,
            finished,
            ahead: None,
            journal_epoch,
            breaker,
            began: now,
            now,
            turn: (now, 0),
            alive: true,
        }
    }

    /// Runs until an order ends it.
    pub(crate) async fn run(mut self) {
        match self.serve().await {
            Ending::Ordered(Order::Drain(deadline)) => {
                self.setup.progress.enter(Phase::Draining);
                self.finished.flush();
                self.leave(deadline).await;
                if self.lane.ordered() != Some(Order::Stop) {
                    self.finished.drained();
                }
            }
            Ending::Ordered(Order::Stop) => {}
            Ending::Broken => self.finished.failed(),
        }
        self.setup.progress.idle();
        self.alive = false;
    }

    async fn serve(&mut self) -> Ending {
        match self.go_on().await {
            Err(ending) => ending,
            Ok(never) => match never {},
        }
    }

    async fn go_on(&mut self) -> Result<Infallible, Ending> {
        self.predecessor_gone().await?;
        self.read_journal().await?;
        self.make().await?;
        loop {
            self.obey()?;
            let next = self.lane.take();
            let taken = next.is_some();
            if let Some(record) = next {
                self.one(record).await?;
            }
            if self.redrive_some().await? || taken {
                self.breathe().await;
            } else {
                self.finished.flush();
                tokio::select! {
                    biased;
                    () = self.lane.wait() => {}
                    () = self.setup.parked.asked() => {}
                }
                self.now = Instant::now();
                self.turn = (self.now, 0);
            }
        }
    }

    /// Ends what it does if it was told to.
    pub(super) fn obey(&self) -> Result<(), Order> {
        match self.lane.ordered() {
            Some(order) => Err(order),
            None if self.setup.progress.is_stopped() => Err(Order::Stop),
            None => Ok(()),
        }
    }

    /// Waits until the partition's former actor in this process has let go of its task: it may be in the middle of a line of code.
    async fn predecessor_gone(&mut self) -> Result<(), Order> {
        let Some(former) = self.setup.former.take() else { return Ok(()) };
        let patience = self.now + PREDECESSOR;
        while !former.is_over() && self.now < patience {
            self.wait(TENURE).await?;
        }
        if !former.is_over() {
            let partition = self.setup.assignment.partition;
            tracing::error!(%partition, "the partition's former handler does not let go of its thread; its successor begins beside it");
        }
        Ok(())
    }

    /// Makes the handler and tells it of its assignment, until that succeeds.
    async fn make(&mut self) -> Result<(), Ending> {
        let mut failures = 0;
        loop {
            let made = guarded_call(|| (self.factory)(&self.setup.assignment));
            let partition = self.setup.assignment.partition;
            let mut work = made.map_err(|error| {
                tracing::error!(%partition, error, "the handler could not be made");
                Ending::Broken
            })?;
            let assigned = tokio::select! {
                biased;
                assigned = guarded(work.assigned(&self.setup.assignment)) => assigned,
                order = self.lane.until_ordered() => return Err(order.into()),
            };
            let error = match assigned {
                Ok(Ok(())) => {
                    self.work = Some(work);
                    self.now = Instant::now();
                    return Ok(());
                }
                Ok(Err(error)) => error.to_string(),
                Err(panic) => panic,
            };
            failures += 1;
            tracing::warn!(%partition, error, failures, "the handler's `assigned` failed; it is tried again");
            let RetryPolicy { backoff, backoff_max, .. } = self.setup.policy.retry;
            let jitter = self.jitter(Offset(0), failures);
            self.wait(retry::backoff(failures, backoff, backoff_max, jitter)).await?;
        }
    }

    /// Takes one record to its end.
    async fn one(&mut self, record: Record) -> Result<(), Ending> {
        self.ctx.attempt = 0;
        let received_at_ms = record.timestamp_ms.max(0) as u64;
        let ended = match self.setup.parked.judge(&record.key, record.offset) {
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
            let (aside, created_at_ms) = match self.try_task(record, None).await? {
                Tried::Done { created_at_ms } => {
                    self.breaker.succeeded();
                    return Ok((End::Done, created_at_ms));
                }
                Tried::Aside(aside, created_at_ms) => (aside, created_at_ms),
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
                Ok(match self.attempts(record, opened).await? {
                    None => Tried::Done { created_at_ms },
                    Some(aside) => Tried::Aside(aside, created_at_ms),
                })
            }
            Err(error) => {
                // Without a key it can hold nothing up, and nobody could name it.
                let end = if record.key.is_empty() { End::Rejected } else { End::Parked };
                let aside = Aside { end, reason: ParkReason::Undecodable, detail: error.to_string() };
                Ok(Tried::Aside(aside, record.timestamp_ms.max(0) as u64))
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

    /// Waits until the partition may be taken for this process's own.
    pub(super) async fn tenured(&mut self) -> Result<(), Order> {
        while !self.setup.tenure.holds(self.now.into_std()) {
            self.wait(TENURE).await?;
        }
        Ok(())
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
            attempt(future, &self.lane, &mut self.finished, deadline, || progress.started(ctx.attempt)).await
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

    /// The jitter of one wait, drawn from what distinguishes it from every other: so a run can be repeated exactly.
    pub(super) fn jitter(&self, offset: Offset, failures: u32) -> f64 {
        let assignment = &self.setup.assignment;
        draw([assignment.epoch(), u64::from(assignment.partition()), offset.0, u64::from(failures)])
    }

    /// How often and how eagerly a task is tried.
    fn policy_of(&self, envelope: &Envelope) -> RetryPolicy {
        let by_type = &self.setup.policy.retry_by_type;
        let own = envelope.r#type.as_ref().and_then(|name| by_type.get(name));
        *own.unwrap_or(&self.setup.policy.retry)
    }

    /// Waits to try again, unless an order comes first.
    pub(super) async fn wait(&mut self, time: Duration) -> Result<(), Order> {
        self.wait_as(Phase::Retrying, None, time).await
    }

    async fn wait_as(
        &mut self,
        phase: Phase,
        waiting_for: Option<String>,
        time: Duration,
    ) -> Result<(), Order> {
        // Others may need its memory meanwhile.
        self.ahead = None;
        self.finished.flush();
        let told = waiting_for.is_some();
        if told {
            self.setup.progress.wait_for(waiting_for);
        }
        self.setup.progress.enter(phase);
        let waited = tokio::select! {
            biased;
            order = self.lane.until_ordered() => Err(order),
            () = sleep(time) => Ok(()),
        };
        self.setup.progress.enter(Phase::Running);
        if told {
            self.setup.progress.wait_for(None);
        }
        self.now = Instant::now();
        waited
    }

    /// Lets the siblings on this arbiter go on, now and then.
    async fn breathe(&mut self) {
        let (since, tasks) = &mut self.turn;
        *tasks += 1;
        if *tasks >= TURN_TASKS || self.now.saturating_duration_since(*since) >= TURN {
            tokio::task::yield_now().await;
            self.now = Instant::now();
            self.turn = (self.now, 0);
        }
    }

    /// Tells the handler that its partition goes away.
    async fn leave(&mut self, deadline: std::time::Instant) {
        let Some(mut work) = self.work.take() else { return };
        let left = async {
            tokio::select! {
                biased;
                left = timeout_at(deadline.into(), guarded(work.revoked(deadline))) => left,
                () = self.lane.until_stopped() => Ok(Ok(())),
            }
        };
        let partition = self.setup.assignment.partition;
        match left.await {
            Ok(Ok(())) => {}
            Ok(Err(panic)) => tracing::warn!(%partition, panic, "the handler's `revoked` failed"),
            Err(_) => {
                tracing::warn!(%partition, "the handler's `revoked` did not return before its deadline")
            }
        }
    }
}

/// What a task came to.
pub(super) enum Tried {
    /// Its handler succeeded.
    Done { created_at_ms: u64 },
    /// It is to be put aside; when it was made.
    Aside(Aside, u64),
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

/// A number of 0 to 1 that is the same for the same seed and looks like chance otherwise (splitmix64).
fn draw(seed: [u64; 4]) -> f64 {
    let mixed = seed.into_iter().fold(0_u64, |state, word| {
        let mut z = state.wrapping_add(word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    });
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}
