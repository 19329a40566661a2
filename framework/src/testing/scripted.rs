//! A log in memory that does what a script says: when partitions come and go, what is delivered, what fails.
//!
//! It keeps a log's promises and no others, and it judges: a commit for a partition that is not owned is not stored
//! and is shown by [`ScriptedLog::foreign_commits`].

mod port;
mod state;

use crate::log::{ConsumerEvent, ConsumerHandle, ConsumerPort, TaskConsumer, Tenure};
use partita_core::{Offset, Partition};
use partita_proto::v1::{Parked, parked::Kind};
use prost::Message;
use state::{State, Stored};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::{sync::Notify, time::Instant};

/// The log, and its script. Clones are the same log.
#[derive(Clone)]
pub struct ScriptedLog {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    partitions: u32,
    tenure: Tenure,
}

/// Something that became durable, in the order it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A task was put aside.
    Parked(Partition, Offset),
    /// A parked task reached its end.
    Closed(Partition, Offset),
    /// An offset was committed: the next to read.
    Committed(Partition, Offset),
}

impl ScriptedLog {
    /// An empty log of so many partitions, none of which is assigned. It delivers by itself what is appended.
    pub fn new(partitions: u32) -> Self {
        let state =
            State { partitions: (0..partitions).map(|_| Stored::default()).collect(), ..State::default() };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::default(),
            partitions,
            tenure: Tenure::for_good(),
        }
    }

    /// Its partitions are the consumer's own for as long as this says.
    #[cfg(test)]
    pub(crate) fn for_as_long_as(self, tenure: Tenure) -> Self {
        Self { tenure, ..self }
    }

    pub(crate) fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }

    /// Its reading half, to be run on a thread.
    pub fn consumer(&self) -> ScriptedConsumer {
        ScriptedConsumer(self.clone())
    }

    /// Its reading half without a thread: events are told at once, by whoever makes them happen.
    pub(crate) fn attach(&self, events: impl Fn(ConsumerEvent) + Send + 'static) -> ConsumerHandle {
        let (sender, commands) = crossbeam_channel::unbounded();
        let mut state = self.state();
        state.events = Some(Box::new(events));
        state.commands = Some(commands);
        state.tell(ConsumerEvent::Joined);
        let log = self.clone();
        ConsumerHandle { commands: sender, waker: Arc::new(move || log.obey()) }
    }

    /// From now on records are delivered by `deliver` only.
    pub fn deliver_by_hand(&self) {
        self.state().manual = true;
    }

    /// Offers partitions under a new generation.
    pub fn assign(&self, partitions: &[u32]) {
        let mut state = self.state();
        let intent = state.new_intent();
        state.generation += 1;
        let generation = state.generation;
        let offer: Vec<Partition> = partitions.iter().copied().map(Partition).collect();
        offer.iter().for_each(|&partition| state.withdraw(partition));
        let starts = offer.iter().map(|&partition| state.start(partition)).collect();
        state.offered.insert(intent, offer);
        state.tell(ConsumerEvent::Assigned { intent, generation, partitions: starts });
    }

    /// Takes partitions back in good order.
    pub fn revoke(&self, partitions: &[u32]) {
        let mut state = self.state();
        let intent = state.new_intent();
        let partitions: Vec<Partition> = partitions.iter().copied().map(Partition).collect();
        for partition in &partitions {
            state.withdraw(*partition);
            if let Some(delivery) = state.lanes.get_mut(partition) {
                delivery.open = false;
            }
        }
        state.revoking.insert(intent, partitions.clone());
        state.tell(ConsumerEvent::Revoking { intent, partitions });
    }

    /// Takes partitions away at once, as another member's may be.
    pub fn lose(&self, partitions: &[u32]) {
        let mut state = self.state();
        let partitions: Vec<Partition> = partitions.iter().copied().map(Partition).collect();
        for partition in &partitions {
            state.withdraw(*partition);
            state.lanes.remove(partition);
            state.lost_at.insert(*partition, Instant::now());
        }
        state.tell(ConsumerEvent::Lost { partitions });
    }

    /// Delivers up to `records` of a partition, as one batch. Says how many there were.
    pub fn deliver(&self, partition: u32, records: usize) -> usize {
        self.state().deliver(Partition(partition), records)
    }

    /// Says that a partition's records do not continue.
    pub fn break_off(&self, partition: u32, detail: &str) {
        let mut state = self.state();
        let partition = Partition(partition);
        if let Some(delivery) = state.lanes.get_mut(&partition) {
            delivery.open = false;
            let epoch = delivery.lane.epoch;
            state.tell(ConsumerEvent::Discontinuity { partition, epoch, detail: detail.into() });
        }
    }

    /// Breaks the client for good.
    pub fn fail_for_good(&self, reason: &str) {
        self.state().tell(ConsumerEvent::Fatal(reason.into()));
    }

    /// Generations begin anew and nothing is owned; what was committed stands, as where a group changes its protocol. For another
    /// pipeline.
    pub fn restart_generations(&self) {
        let mut state = self.state();
        (state.generation, state.events, state.commands) = (0, None, None);
        state.lanes.clear();
    }

    /// The group is gone and made again: generations begin anew, nothing is owned, and nothing committed. For another pipeline.
    pub fn forget_group(&self) {
        self.restart_generations();
        self.state().partitions.iter_mut().for_each(|stored| stored.committed = None);
    }

    /// The next `times` commits fail.
    pub fn fail_commits(&self, times: u32) {
        self.state().fail_commits = times;
    }

    /// The next `times` attempts to put a task aside fail.
    pub fn fail_parks(&self, times: u32) {
        self.state().fail_parks = times;
    }

    /// How many of those failures are still to come.
    pub fn failing_parks(&self) -> u32 {
        self.state().fail_parks
    }

    /// The next offset to read, as committed.
    pub fn committed(&self, partition: u32) -> Option<Offset> {
        Some(self.state().partitions.get(partition as usize)?.committed.as_ref()?.0)
    }

    /// The offset after the last record.
    pub fn end(&self, partition: u32) -> Offset {
        self.state().end(Partition(partition))
    }

    /// The tasks of a partition that were put aside, as they were noted.
    pub fn parked(&self, partition: u32) -> Vec<Parked> {
        let mut notes = self.journal_of(partition);
        notes.retain(|note| note.kind() != Kind::Closed);
        notes
    }

    /// What a partition's parking journal says, record by record.
    pub fn journal_of(&self, partition: u32) -> Vec<Parked> {
        let state = self.state();
        let journal = state.partitions.get(partition as usize).map(|stored| &stored.journal);
        journal
            .into_iter()
            .flatten()
            .filter_map(|record| Parked::decode(record.parked.clone()).ok())
            .collect()
    }

    /// Whether the partition is owned, also while it is being given back.
    pub fn owns(&self, partition: u32) -> bool {
        self.state().lanes.contains_key(&Partition(partition))
    }

    /// What became durable besides the tasks, in order.
    pub fn history(&self) -> Vec<Step> {
        self.state().history.clone()
    }

    /// Commits for partitions that were not owned: there must be none. One of the very moment of a loss, by a clock that is paused, was
    /// sent before it was heard of, and is only not stored.
    pub fn foreign_commits(&self) -> Vec<(Partition, Offset)> {
        self.state().foreign_commits.clone()
    }

    /// Whether everything is committed up to the end of each partition.
    pub fn is_settled(&self) -> bool {
        self.unsettled().is_empty()
    }

    /// The partitions whose committed offset is before their end.
    pub fn unsettled(&self) -> Vec<u32> {
        let state = self.state();
        (0..self.partitions)
            .filter(|&p| {
                let committed = state.committed(Partition(p));
                committed < state.end(Partition(p))
            })
            .collect()
    }

    /// Returns when something changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what it was told since the last time.
    fn obey(&self) {
        let mut state = self.state();
        while let Some(command) = state.commands.as_ref().and_then(|commands| commands.try_recv().ok()) {
            state.obey(command);
        }
        self.changed.notify_one();
    }
}

/// The reading half of a scripted log, for a thread of its own.
#[derive(Debug)]
pub struct ScriptedConsumer(ScriptedLog);

impl TaskConsumer for ScriptedConsumer {
    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        Arc::new(|| {})
    }

    fn run(self: Box<Self>, port: ConsumerPort) {
        (port.events)(ConsumerEvent::Joined);
        self.0.state().events = Some(port.events);
        while let Ok(command) = port.commands.recv() {
            let mut state = self.0.state();
            state.obey(command);
            self.0.changed.notify_one();
            if state.closed {
                return;
            }
        }
    }
}

impl fmt::Debug for ScriptedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedLog").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}
