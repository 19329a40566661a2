//! What a running pipeline says about itself, readable from any thread at any time: for admission, `/readyz` and
//! `/admin/v1/status`. The supervisor writes it; nobody waits for it.

use crate::{
    actor::{InHand, ParkedTasks, Phase, Progress},
    log::LogHealth,
};
use partita_core::{Epoch, Exit, Offset, Partition, PartitionState, PartitionView};
use std::{
    fmt,
    sync::{
        Arc, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::sync::{Notify, futures::Notified};

/// The shared status of one pipeline.
#[derive(Debug)]
pub struct PipelineStatus {
    joined: AtomicBool,
    draining: AtomicBool,
    fatal: RwLock<Option<String>>,
    away: RwLock<Option<String>>,
    exit: RwLock<Option<Exit>>,
    partitions: Box<[RwLock<Option<Owned>>]>,
    /// For each partition: it was committed, or is another's now. A process may have many who wait for one task each.
    changed: Box<[Notify]>,
    supervisor: Supervisor,
}

/// The way to the supervisor, once there is one.
#[derive(Default)]
struct Supervisor(OnceLock<Box<dyn Fn(Wish) + Send + Sync>>);

/// What a supervisor may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To begin a partition anew from this offset on.
    Rewind(Partition, Offset),
    /// To commit the end of this task at once, when it has ended.
    Commit(Partition, Offset),
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Supervisor").field(&self.0.get().is_some()).finish()
    }
}

#[derive(Debug, Clone)]
struct Owned {
    view: PartitionView,
    progress: Arc<Progress>,
    parked: Arc<ParkedTasks>,
    paused: bool,
    high_watermark: Option<Offset>,
    endangered_before: Offset,
    halted: Option<String>,
}

/// What an owned partition is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Handling tasks or waiting for some.
    Running,
    /// Waiting to try its task in hand again, or for its next actor.
    Retrying,
    /// Waiting for something that its handler needs, without spending attempts.
    Unavailable,
    /// Waiting for a task to succeed, because too many were parked.
    Tripped,
    /// Waiting for memory to know one more parked task in: some are to be redriven or dropped.
    ParkingFull,
    /// Finishing its task in hand before it is given back.
    Draining,
    /// Its records do not continue where they must: it waits for an operator.
    Halted,
}

impl Activity {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::Draining,
        Self::Retrying,
        Self::Unavailable,
        Self::Tripped,
        Self::ParkingFull,
        Self::Halted,
    ];

    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Unavailable => "unavailable",
            Self::Tripped => "tripped",
            Self::ParkingFull => "parking_full",
            Self::Draining => "draining",
            Self::Halted => "halted",
        }
    }
}

/// One owned partition at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Which partition.
    pub partition: Partition,
    /// Under which assignment.
    pub epoch: Epoch,
    /// What it is doing.
    pub activity: Activity,
    /// The first offset that this assignment was given: everything below it was committed before, or is gone.
    pub start: Offset,
    /// The next offset to read, as this assignment has committed it; `None` before its first commit.
    pub committed: Option<Offset>,
    /// The next offset to read, as far as tasks have ended.
    pub committable: Offset,
    /// The offset after the log's last record, as far as it is known.
    pub high_watermark: Option<Offset>,
    /// Tasks below this offset that have not ended may soon be deleted by the log's retention.
    pub endangered_before: Offset,
    /// Tasks that were delivered and have not ended.
    pub queue_tasks: u64,
    /// Bytes of those.
    pub queue_bytes: u64,
    /// Whether fetching is paused because of those.
    pub paused: bool,
    /// Since when the task in hand runs, in milliseconds since the Unix epoch. None for a task too short to be seen.
    pub in_flight_since_ms: Option<u64>,
    /// Which attempt of it this is; 0 while none is.
    pub attempt: u32,
    /// What it waits for, where its activity is to wait for something in particular.
    pub waiting_for: Option<String>,
    /// Keys that are parked.
    pub parked_keys: u64,
    /// Tasks that are parked.
    pub parked_tasks: u64,
    /// Why it is halted, where it is.
    pub halted: Option<String>,
}

impl PartitionStatus {
    /// High watermark minus the next offset to read as the log has it: a task that has ended and is not committed counts.
    pub fn lag(&self) -> Option<u64> {
        let committed = self.committed.unwrap_or(self.start);
        Some(self.high_watermark?.0.saturating_sub(committed.0))
    }

    /// Tasks that have not ended, as the log has it, and may soon be deleted by its retention.
    pub fn endangered_tasks(&self) -> u64 {
        let committed = self.committed.unwrap_or(self.start);
        self.endangered_before.0.saturating_sub(committed.0)
    }
}

impl PipelineStatus {
    pub(crate) fn new(partitions: u32) -> Self {
        Self {
            joined: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            fatal: RwLock::default(),
            away: RwLock::default(),
            exit: RwLock::default(),
            partitions: (0..partitions).map(|_| RwLock::default()).collect(),
            changed: (0..partitions).map(|_| Notify::new()).collect(),
            supervisor: Supervisor::default(),
        }
    }

    /// Whether the consumer group was joined: from then on the process works, with or without partitions.
    pub fn joined(&self) -> bool {
        self.joined.load(Relaxed)
    }

    /// Whether the process is on its way out.
    pub fn draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Why the consumer cannot work as it should, while it cannot: the log is away, or is another one.
    pub fn away(&self) -> Option<String> {
        read(&self.away)
    }

    /// What broke the pipeline for good.
    pub fn fatal(&self) -> Option<String> {
        read(&self.fatal)
    }

    /// How the workers ended, once they have.
    pub fn exit(&self) -> Option<Exit> {
        read(&self.exit)
    }

    /// Whether a task put into this partition would wait for an operator.
    pub fn is_stuck(&self, partition: Partition) -> bool {
        let Some(cell) = self.partitions.get(partition.0 as usize) else { return false };
        let owned = cell.read().unwrap_or_else(PoisonError::into_inner);
        owned.as_ref().is_some_and(|owned| {
            owned.view.state == PartitionState::Halted || owned.progress.phase() == Phase::ParkingFull
        })
    }

    /// One partition, if this process owns it.
    pub fn partition(&self, partition: Partition) -> Option<PartitionStatus> {
        read(self.partitions.get(partition.0 as usize)?).map(Owned::status)
    }

    /// All owned partitions, in order.
    pub fn partitions(&self) -> Vec<PartitionStatus> {
        self.partitions.iter().filter_map(read).map(Owned::status).collect()
    }

    /// Tasks of all owned partitions that may soon be deleted by the log's retention.
    pub fn endangered_tasks(&self) -> u64 {
        self.partitions().iter().map(PartitionStatus::endangered_tasks).sum()
    }

    /// Why this process is not ready; empty if it is. `works`: whether it runs workers.
    pub fn unready(&self, log: LogHealth, works: bool) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.draining() {
            reasons.push("the process is stopping".into());
        }
        reasons.extend(self.fatal().map(|error| format!("the log's client failed for good: {error}")));
        match log {
            LogHealth::Ready => {}
            LogHealth::Away(reason) => reasons.push(format!("the log is away: {reason}")),
            LogHealth::Full(reason) => reasons.push(format!("the log is full: {reason}")),
            LogHealth::Mismatch(reason) => {
                reasons.push(format!("the topic is not the expected one: {reason}"))
            }
        }
        if works {
            reasons.extend(self.away().map(|reason| format!("the consumer: {reason}")));
            if !self.joined() {
                reasons.push("the consumer group is not joined yet".into());
            }
        }
        reasons
    }

    pub(crate) fn set_joined(&self) {
        self.joined.store(true, Relaxed);
    }

    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    pub(crate) fn set_away(&self, reason: Option<String>) {
        write(&self.away, |away| *away = reason);
    }

    pub(crate) fn set_fatal(&self, reason: String) {
        write(&self.fatal, |fatal| _ = fatal.get_or_insert(reason));
    }

    pub(crate) fn set_exit(&self, exit: Exit) {
        write(&self.exit, |known| *known = Some(exit));
    }

    /// An actor was started; what is known of the log's end stays.
    pub(crate) fn own(&self, view: PartitionView, progress: Arc<Progress>, parked: Arc<ParkedTasks>) {
        self.update(view.partition, |cell| {
            let (high_watermark, endangered_before) = cell
                .as_ref()
                .map_or((None, Offset(0)), |owned| (owned.high_watermark, owned.endangered_before));
            let (paused, halted) = (false, None);
            *cell = Some(Owned { view, progress, parked, paused, high_watermark, endangered_before, halted });
        });
    }

    /// Asks the supervisor for something.
    pub(crate) fn wish(&self, wish: Wish) {
        if let Some(supervisor) = self.supervisor.0.get() {
            supervisor(wish);
        }
    }

    pub(crate) fn set_supervisor(&self, supervisor: impl Fn(Wish) + Send + Sync + 'static) {
        let _ = self.supervisor.0.set(Box::new(supervisor));
    }

    /// Comes when the partition was committed, or is another's now: after this was first polled, or enabled. `None`: there is no such
    /// partition.
    pub(crate) fn changed(&self, partition: Partition) -> Option<Notified<'_>> {
        Some(self.changed.get(partition.0 as usize)?.notified())
    }

    fn note_change(&self, partition: Partition) {
        if let Some(changed) = self.changed.get(partition.0 as usize) {
            changed.notify_waiters();
        }
    }

    /// The task in hand of an owned partition, if it takes longer than one poll.
    pub(crate) fn in_hand(&self, partition: Partition) -> Option<InHand> {
        read(self.partitions.get(partition.0 as usize)?)?.progress.in_hand()
    }

    /// What is parked in a partition that this process owns.
    pub(crate) fn parked(&self, partition: Partition) -> Option<Arc<ParkedTasks>> {
        read(self.partitions.get(partition.0 as usize)?).map(|owned| owned.parked)
    }

    pub(crate) fn disown(&self, partition: Partition) {
        self.update(partition, |cell| *cell = None);
        self.note_change(partition);
    }

    pub(crate) fn set_view(&self, view: PartitionView) {
        let (partition, mut committed) = (view.partition, false);
        self.update_owned(partition, |owned| {
            committed = owned.view.committed != view.committed;
            owned.view = view;
        });
        if committed {
            self.note_change(partition);
        }
    }

    pub(crate) fn set_paused(&self, partition: Partition, paused: bool) {
        self.update_owned(partition, |owned| owned.paused = paused);
    }

    pub(crate) fn set_high_watermark(&self, partition: Partition, end: Offset) {
        self.update_owned(partition, |owned| owned.high_watermark = Some(end));
    }

    pub(crate) fn set_endangered_before(&self, partition: Partition, offset: Offset) {
        self.update_owned(partition, |owned| owned.endangered_before = offset);
    }

    pub(crate) fn set_halted(&self, partition: Partition, detail: String) {
        self.update_owned(partition, |owned| owned.halted = Some(detail));
    }

    fn update_owned(&self, partition: Partition, change: impl FnOnce(&mut Owned)) {
        self.update(partition, |cell| {
            if let Some(owned) = cell {
                change(owned);
            }
        });
    }

    fn update(&self, partition: Partition, change: impl FnOnce(&mut Option<Owned>)) {
        if let Some(cell) = self.partitions.get(partition.0 as usize) {
            write(cell, change);
        }
    }
}

impl Owned {
    fn status(self) -> PartitionStatus {
        let outstanding = self.progress.outstanding();
        let since = self.progress.in_flight_since_ms();
        let (parked_keys, parked_tasks) = self.parked.count();
        PartitionStatus {
            partition: self.view.partition,
            epoch: self.view.epoch,
            activity: match (self.view.state, self.progress.phase()) {
                (PartitionState::Halted, _) => Activity::Halted,
                (PartitionState::Restarting, _) => Activity::Retrying,
                (PartitionState::Draining, _) | (_, Phase::Draining) => Activity::Draining,
                (PartitionState::Running, Phase::Retrying) => Activity::Retrying,
                (PartitionState::Running, Phase::Unavailable) => Activity::Unavailable,
                (PartitionState::Running, Phase::Tripped) => Activity::Tripped,
                (PartitionState::Running, Phase::ParkingFull) => Activity::ParkingFull,
                (PartitionState::Running, Phase::Running) => Activity::Running,
            },
            start: self.view.start,
            committed: self.view.committed,
            committable: self.view.committable,
            // It is looked at now and then: what has ended since is in the log as well.
            high_watermark: self.high_watermark.map(|end| end.max(self.view.committable)),
            endangered_before: self.endangered_before,
            queue_tasks: outstanding.records,
            queue_bytes: outstanding.bytes,
            paused: self.paused,
            in_flight_since_ms: (since > 0).then_some(since),
            attempt: self.progress.attempt(),
            waiting_for: self.progress.waiting_for(),
            parked_keys,
            parked_tasks,
            halted: self.halted,
        }
    }
}

fn read<T: Clone>(cell: &RwLock<Option<T>>) -> Option<T> {
    cell.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn write<T>(cell: &RwLock<T>, change: impl FnOnce(&mut T)) {
    change(&mut cell.write().unwrap_or_else(PoisonError::into_inner));
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::pin::pin;

    #[test]
    fn who_waits_for_a_partition_hears_of_it_and_of_no_other() {
        let status = PipelineStatus::new(2);
        let mut of = [0, 1].map(|number| Box::pin(status.changed(Partition(number)).unwrap()));
        of.iter_mut().for_each(|changed| assert!(!changed.as_mut().enable()));
        status.disown(Partition(1));
        let [one, other] = of;
        assert!(one.now_or_never().is_none());
        assert!(other.now_or_never().is_some());
        // What came before is not heard of.
        assert!(pin!(status.changed(Partition(1)).unwrap()).now_or_never().is_none());
        assert!(status.changed(Partition(2)).is_none());
    }
}
