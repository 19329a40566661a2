//! Which partitions are paused because too much of them waits to be handled.

use crate::Partition;
use std::collections::BTreeMap;

/// How much was delivered to an actor and has not reached its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outstanding {
    /// Records.
    pub records: u64,
    /// Bytes of keys and values, as fetched.
    pub bytes: u64,
}

/// How much may be outstanding before a partition is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryLimits {
    /// Records of one partition.
    pub partition_records: u64,
    /// Bytes of one partition.
    pub partition_bytes: u64,
    /// Bytes of all partitions together.
    pub total_bytes: u64,
}

/// A partition that is to be paused or resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PauseChange {
    /// Which partition.
    pub partition: Partition,
    /// What it is to be.
    pub paused: bool,
}

/// The pause table of one consumer.
#[derive(Debug)]
pub struct FlowControl {
    limits: DeliveryLimits,
    lanes: BTreeMap<Partition, LaneFlow>,
}

#[derive(Debug, Default)]
struct LaneFlow {
    outstanding: Outstanding,
    paused: bool,
}

impl FlowControl {
    /// An empty table.
    pub fn new(limits: DeliveryLimits) -> Self {
        Self { limits, lanes: BTreeMap::new() }
    }

    /// A partition is delivered from now on; it is not paused and nothing of it is outstanding.
    pub fn open(&mut self, partition: Partition) {
        self.lanes.insert(partition, LaneFlow::default());
    }

    /// A partition is not delivered any more.
    pub fn close(&mut self, partition: Partition) {
        self.lanes.remove(&partition);
    }

    /// Whether the partition is paused.
    pub fn is_paused(&self, partition: Partition) -> bool {
        self.lanes.get(&partition).is_some_and(|lane| lane.paused)
    }

    /// The paused partitions: whoever drives the table observes these again before each `decide`.
    pub fn paused(&self) -> impl Iterator<Item = Partition> + '_ {
        self.lanes.iter().filter(|(_, lane)| lane.paused).map(|(partition, _)| *partition)
    }

    /// Says what is outstanding of a partition now. To be called for the partitions that were delivered and the paused ones.
    pub fn observe(&mut self, partition: Partition, outstanding: Outstanding) {
        if let Some(lane) = self.lanes.get_mut(&partition) {
            lane.outstanding = outstanding;
        }
    }

    /// What has to change after the observations: pause at the limits, resume at half of them.
    pub fn decide(&mut self) -> Vec<PauseChange> {
        let limits = self.limits;
        self.lanes
            .iter_mut()
            .filter_map(|(&partition, lane)| {
                let now = lane.outstanding;
                let over = |share: u64| {
                    now.records * share >= limits.partition_records
                        || now.bytes * share >= limits.partition_bytes
                };
                let paused = over(if lane.paused { 2 } else { 1 });
                (paused != lane.paused).then(|| {
                    lane.paused = paused;
                    PauseChange { partition, paused }
                })
            })
            .collect()
    }
}
