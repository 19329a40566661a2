//! The life of one partition's handler: made, told of its assignment, given one task after another, told to leave.
//!
//! The runner is a future on the actor's arbiter. It owns the handler, so nothing is shared and nothing is sent for each
//! task; the actor beside it only fills the lane and passes orders on.

use super::{
    attempt::{guarded, guarded_call},
    lane::{Lane, Order, Phase, Progress},
    meter::Meter,
    parked::ParkedTasks,
    redrive::Ahead,
    report::{Finished, Report},
    work::{Factory, Work},
};
use crate::{
    handler::{Assignment, TaskContext},
    log::{TaskLog, Tenure},
    memory::MemoryPool,
};
use actix::Recipient;
use bytes::Bytes;
use partita_core::{Breaker, BreakerPolicy, Offset, RetryPolicy, retry};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    rc::Rc,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// How long a run of tasks that never wait may keep the arbiter from its siblings.
const TURN: Duration = Duration::from_millis(1);
const TURN_TASKS: u32 = 128;

/// How often a task that may not begin, or be put aside, looks again whether it may.
pub(super) const TENURE: Duration = Duration::from_millis(5);

/// How long a partition's former actor may keep its successor from beginning.
const PREDECESSOR: Duration = Duration::from_secs(30);

/// What one actor is made of, apart from its handler.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) assignment: Assignment,
    pub(crate) log: Arc<dyn TaskLog>,
    pub(crate) decode: MemoryPool,
    pub(crate) tenure: Tenure,
    pub(crate) parked: Arc<ParkedTasks>,
    /// Whose turn it is to read a journal.
    pub(crate) reading: Arc<Semaphore>,
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
    pub(super) work: Option<W>,
    pub(super) finished: Finished,
    /// Parked tasks that were read before it is their turn.
    pub(super) ahead: Option<Ahead>,
    pub(super) breaker: Breaker,
    pub(super) began: Instant,
    pub(super) now: Instant,
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
        Self {
            setup,
            lane,
            ctx,
            factory,
            work: None,
            finished,
            ahead: None,
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
    pub(super) async fn make(&mut self) -> Result<(), Ending> {
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

    /// Waits until the partition may be taken for this process's own.
    pub(super) async fn tenured(&mut self) -> Result<(), Order> {
        while !self.setup.tenure.holds(self.now.into_std()) {
            self.wait(TENURE).await?;
        }
        Ok(())
    }

    /// The jitter of one wait, drawn from what distinguishes it from every other: so a run can be repeated exactly.
    pub(super) fn jitter(&self, offset: Offset, failures: u32) -> f64 {
        let assignment = &self.setup.assignment;
        draw([assignment.epoch(), u64::from(assignment.partition()), offset.0, u64::from(failures)])
    }

    /// Waits to try again, unless an order comes first.
    pub(super) async fn wait(&mut self, time: Duration) -> Result<(), Order> {
        self.wait_as(Phase::Retrying, None, time).await
    }

    pub(super) async fn wait_as(
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
