//! What the scripted log has, and how it does what it is told.

use super::Step;
use crate::log::{Batch, ConsumerCommand, ConsumerEvent, Lane, ParkedRecord, Start};
use bytes::Bytes;
use crossbeam_channel::Receiver;
use partita_core::{Intent, Mark, Offset, Partition, Position};
use std::collections::BTreeMap;
use tokio::time::Instant;

#[derive(Default)]
pub(super) struct State {
    pub(super) partitions: Vec<Stored>,
    pub(super) lanes: BTreeMap<Partition, Delivery>,
    pub(super) offered: BTreeMap<Intent, Vec<Partition>>,
    pub(super) revoking: BTreeMap<Intent, Vec<Partition>>,
    pub(super) intents: u64,
    pub(super) generation: u32,
    pub(super) history: Vec<Step>,
    pub(super) foreign_commits: Vec<(Partition, Offset)>,
    pub(super) lost_at: BTreeMap<Partition, Instant>,
    pub(super) fail_commits: u32,
    pub(super) fail_parks: u32,
    pub(super) manual: bool,
    pub(super) closed: bool,
    pub(super) events: Option<Box<dyn Fn(ConsumerEvent) + Send>>,
    pub(super) commands: Option<Receiver<ConsumerCommand>>,
}

#[derive(Default)]
pub(super) struct Stored {
    pub(super) records: Vec<(Bytes, Bytes)>,
    pub(super) committed: Option<(Offset, Mark)>,
    pub(super) journal: Vec<ParkedRecord>,
}

/// A partition that is owned. It delivers while it has an open lane.
pub(super) struct Delivery {
    pub(super) lane: Lane,
    pub(super) position: Offset,
    pub(super) open: bool,
}

impl State {
    pub(super) fn tell(&self, event: ConsumerEvent) {
        if let Some(events) = &self.events {
            events(event);
        }
    }

    pub(super) fn new_intent(&mut self) -> Intent {
        self.intents += 1;
        Intent(self.intents)
    }

    pub(super) fn committed(&self, partition: Partition) -> Offset {
        let stored = self.partitions.get(partition.0 as usize);
        stored.and_then(|stored| stored.committed.as_ref()).map(|(offset, _)| *offset).unwrap_or_default()
    }

    pub(super) fn start(&self, partition: Partition) -> Start {
        let stored = self.partitions.get(partition.0 as usize);
        let (offset, mark) = stored.and_then(|stored| stored.committed.clone()).unwrap_or_default();
        let journal_end = Position(stored.map_or(0, |stored| stored.journal.len() as u64));
        Start { partition, offset, mark, journal_end }
    }

    pub(super) fn end(&self, partition: Partition) -> Offset {
        Offset(self.partitions.get(partition.0 as usize).map_or(0, |stored| stored.records.len() as u64))
    }

    /// An offer or a request that is not answered yet does not count for this partition any more.
    pub(super) fn withdraw(&mut self, partition: Partition) {
        for waiting in self.offered.values_mut().chain(self.revoking.values_mut()) {
            waiting.retain(|other| *other != partition);
        }
    }

    pub(super) fn obey(&mut self, command: ConsumerCommand) {
        match command {
            ConsumerCommand::CompleteAssign { intent, lanes } => {
                let offered = self.offered.remove(&intent).unwrap_or_default();
                for lane in lanes.into_iter().filter(|lane| offered.contains(&lane.partition)) {
                    self.open(lane);
                }
            }
            ConsumerCommand::CompleteRevoke { intent } => {
                for partition in self.revoking.remove(&intent).unwrap_or_default() {
                    self.lanes.remove(&partition);
                }
            }
            ConsumerCommand::CloseLane { partition, epoch } => {
                if let Some(delivery) = self.lanes.get_mut(&partition)
                    && delivery.lane.epoch == epoch
                {
                    delivery.open = false;
                }
            }
            ConsumerCommand::Reopen(lane) => {
                if self.lanes.contains_key(&lane.partition) {
                    self.open(lane);
                }
            }
            ConsumerCommand::Commit { commit, offsets } => {
                let (committed, error) = self.commit(offsets);
                self.tell(ConsumerEvent::CommitDone { commit, committed, error });
            }
            ConsumerCommand::Close => {
                self.lanes.clear();
                self.tell(ConsumerEvent::Closed);
                (self.events, self.closed) = (None, true);
            }
        }
    }

    pub(super) fn open(&mut self, lane: Lane) {
        let partition = lane.partition;
        self.lanes.insert(partition, Delivery { position: lane.start, lane, open: true });
        if !self.manual {
            self.deliver(partition, usize::MAX);
        }
    }

    pub(super) fn deliver(&mut self, partition: Partition, records: usize) -> usize {
        let Some(delivery) = self.lanes.get_mut(&partition).filter(|delivery| delivery.open) else {
            return 0;
        };
        let Some(stored) = self.partitions.get(partition.0 as usize) else { return 0 };
        let mut batch = Batch::new(delivery.lane.epoch);
        for (key, value) in stored.records.iter().skip(delivery.position.0 as usize).take(records) {
            batch.push_copied(delivery.position, 0, key, value);
            delivery.position = delivery.position.next();
        }
        batch.seal();
        let delivered = batch.len();
        if delivered > 0 {
            delivery.lane.inbox.deliver(batch);
        }
        delivered
    }

    pub(super) fn commit(
        &mut self,
        offsets: Vec<(Partition, Offset, Mark)>,
    ) -> (Vec<Partition>, Option<String>) {
        if self.fail_commits > 0 {
            self.fail_commits -= 1;
            return (Vec::new(), Some("the script says that this commit fails".into()));
        }
        let mut committed = Vec::new();
        for (partition, offset, mark) in offsets {
            if self.lanes.contains_key(&partition) {
                self.partitions[partition.0 as usize].committed = Some((offset, mark));
                self.history.push(Step::Committed(partition, offset));
                committed.push(partition);
            } else if self.lost_at.get(&partition) != Some(&Instant::now()) {
                self.foreign_commits.push((partition, offset));
            }
        }
        (committed, None)
    }
}
