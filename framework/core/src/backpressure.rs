//! Which partitions are paused because too much of them waits to be handled.
//!
//! Two limits work together. A partition is paused at its own limit, in records or bytes, and resumed below half of it:
//! a pause discards what the client has prefetched, so it should be rare and last. All partitions together have a limit
//! in bytes: once it is reached, every partition that has something outstanding is paused until the total has fallen
//! below half. Partitions with nothing outstanding wait only while the total is at the limit; so whatever is paused
//! either has work that will end, or waits for work that will end, and a record larger than any limit still passes.

use crate::Partition;
use std::collections::{BTreeMap, BTreeSet};

/// Delivery that is this many bytes ahead of handlers holds on for a moment, until half of it is caught up.
const AHEAD: u64 = 8 << 20;

/// How much was delivered to an actor and has not reached its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outstanding {
    /// Records.
    pub records: u64,
    /// Bytes of keys and values, as fetched.
    pub bytes: u64,
}

impl Outstanding {
    fn is_nothing(self) -> bool {
        self.records == 0 && self.bytes == 0
    }
}

/// How much may be outstanding before a partition is paused. A limit of 0 counts as 1.
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
    /// The bytes of all lanes, as last observed.
    total: u64,
    /// The total has reached its limit: nobody is delivered.
    full: bool,
    /// The total has reached its limit and not yet fallen below half: who has something outstanding is not delivered.
    pressed: bool,
    paused: BTreeSet<Partition>,
    /// The lanes with something outstanding, as last observed.
    busy: BTreeSet<Partition>,
    /// The lanes that `decide` has to look at.
    touched: BTreeSet<Partition>,
}

#[derive(Debug, Default)]
struct LaneFlow {
    outstanding: Outstanding,
    /// It has reached its own limit and not yet fallen below half.
    over: bool,
}

impl FlowControl {
    /// An empty table.
    pub fn new(limits: DeliveryLimits) -> Self {
        let limits = DeliveryLimits {
            partition_records: limits.partition_records.max(1),
            partition_bytes: limits.partition_bytes.max(1),
            total_bytes: limits.total_bytes.max(1),
        };
        Self {
            limits,
            lanes: BTreeMap::new(),
            total: 0,
            full: false,
            pressed: false,
            paused: BTreeSet::new(),
            busy: BTreeSet::new(),
            touched: BTreeSet::new(),
        }
    }

    /// A partition is delivered from now on; it is not paused and nothing of it is outstanding.
    pub fn open(&mut self, partition: Partition) {
        self.close(partition);
        self.lanes.insert(partition, LaneFlow::default());
        self.touched.insert(partition);
    }

    /// A partition is not delivered any more. What of it is still being handled counts no longer.
    pub fn close(&mut self, partition: Partition) {
        if let Some(lane) = self.lanes.remove(&partition) {
            self.total -= lane.outstanding.bytes;
        }
        self.paused.remove(&partition);
        self.busy.remove(&partition);
        self.touched.remove(&partition);
    }

    /// Whether the partition is paused.
    pub fn is_paused(&self, partition: Partition) -> bool {
        self.paused.contains(&partition)
    }

    /// The paused partitions.
    pub fn paused(&self) -> impl Iterator<Item = Partition> + '_ {
        self.paused.iter().copied()
    }

    /// The partitions to observe before the next `decide`, besides those just delivered: the paused ones and, where the total
    /// comes near its limit, everyone who had something outstanding. Without the latter, what has ended since would still count.
    pub fn to_observe(&self) -> Vec<Partition> {
        if self.total >= self.limits.total_bytes / 2 {
            self.paused.union(&self.busy).copied().collect()
        } else {
            self.paused.iter().copied().collect()
        }
    }

    /// Whether delivery should hold on for a moment, because it is far ahead of handlers that are catching up: how far, to be asked
    /// with again after the moment; `before` is the answer to the last time, `None` the first time.
    ///
    /// A pause discards what was fetched, and what lies long in a queue has left the processor's caches: a moment's patience costs
    /// neither. It is not for slow handlers, which are paused: it ends as soon as nothing was caught up.
    pub fn hold_on(&self, before: Option<u64>) -> Option<u64> {
        let ahead = self.flowing();
        let hold = match before {
            None => ahead >= AHEAD,
            Some(before) => ahead >= AHEAD / 2 && ahead < before,
        };
        hold.then_some(ahead)
    }

    /// The bytes outstanding, as last observed, of the partitions that are not paused.
    fn flowing(&self) -> u64 {
        let flowing = self.busy.iter().filter(|partition| !self.paused.contains(partition));
        flowing.filter_map(|partition| self.lanes.get(partition)).map(|lane| lane.outstanding.bytes).sum()
    }

    /// The partitions that had something outstanding when they were last observed.
    pub fn busy(&self) -> impl Iterator<Item = Partition> + '_ {
        self.busy.iter().copied()
    }

    /// Says what is outstanding of a partition now. An unknown partition is ignored.
    pub fn observe(&mut self, partition: Partition, outstanding: Outstanding) {
        let Some(lane) = self.lanes.get_mut(&partition) else { return };
        if lane.outstanding == outstanding {
            return;
        }
        self.total = self.total - lane.outstanding.bytes + outstanding.bytes;
        lane.outstanding = outstanding;
        if outstanding.is_nothing() {
            self.busy.remove(&partition);
        } else {
            self.busy.insert(partition);
        }
        self.touched.insert(partition);
    }

    /// What has to change after the observations. Looks only at what was observed to have changed, except where the total
    /// crosses its limit.
    pub fn decide(&mut self) -> Vec<PauseChange> {
        let full = self.total >= self.limits.total_bytes;
        let pressed = full || self.pressed && self.total >= self.limits.total_bytes.div_ceil(2);
        let mut touched = std::mem::take(&mut self.touched);
        if full != self.full {
            touched.extend(self.lanes.keys());
        } else if pressed != self.pressed {
            touched.extend(&self.busy);
        }
        (self.full, self.pressed) = (full, pressed);
        touched.into_iter().filter_map(|partition| self.decide_one(partition)).collect()
    }

    fn decide_one(&mut self, partition: Partition) -> Option<PauseChange> {
        let lane = self.lanes.get_mut(&partition)?;
        let now = lane.outstanding;
        let share = if lane.over { 2 } else { 1 };
        lane.over = now.records.saturating_mul(share) >= self.limits.partition_records
            || now.bytes.saturating_mul(share) >= self.limits.partition_bytes;
        let paused = lane.over || self.full || self.pressed && !now.is_nothing();
        let changed = if paused { self.paused.insert(partition) } else { self.paused.remove(&partition) };
        changed.then_some(PauseChange { partition, paused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: DeliveryLimits =
        DeliveryLimits { partition_records: 10, partition_bytes: 100, total_bytes: 250 };

    fn flow(lanes: u32) -> FlowControl {
        let mut flow = FlowControl::new(LIMITS);
        (0..lanes).for_each(|lane| flow.open(Partition(lane)));
        flow
    }

    fn outstanding(records: u64, bytes: u64) -> Outstanding {
        Outstanding { records, bytes }
    }

    /// Observes one lane; says what changes, as (partition, paused).
    fn step(flow: &mut FlowControl, lane: u32, records: u64, bytes: u64) -> Vec<(u32, bool)> {
        flow.observe(Partition(lane), outstanding(records, bytes));
        flow.decide().into_iter().map(|change| (change.partition.0, change.paused)).collect()
    }

    #[test]
    fn what_flows_is_what_is_outstanding_of_the_partitions_that_are_not_paused() {
        let mut flow = flow(3);
        assert_eq!(flow.flowing(), 0);
        step(&mut flow, 0, 1, 30);
        step(&mut flow, 1, 1, 40);
        assert_eq!(flow.flowing(), 70);
        step(&mut flow, 1, 1, 100);
        assert!(flow.is_paused(Partition(1)));
        assert_eq!(flow.flowing(), 30);
        step(&mut flow, 0, 0, 0);
        assert_eq!(flow.flowing(), 0);
    }

    #[test]
    fn delivery_holds_on_from_far_ahead_until_half_is_caught_up_and_no_longer_than_there_is_progress() {
        let limits =
            DeliveryLimits { partition_records: u64::MAX, partition_bytes: u64::MAX, total_bytes: u64::MAX };
        let mut flow = FlowControl::new(limits);
        (0..2).for_each(|lane| flow.open(Partition(lane)));
        let mut at = |bytes, before| {
            step(&mut flow, 1, 1, bytes);
            flow.hold_on(before)
        };
        assert_eq!(at(AHEAD - 1, None), None);
        assert_eq!(at(AHEAD, None), Some(AHEAD));
        assert_eq!(at(AHEAD - 1, Some(AHEAD)), Some(AHEAD - 1), "it was caught up a little");
        assert_eq!(at(AHEAD - 1, Some(AHEAD - 1)), None, "nothing was caught up");
        assert_eq!(at(AHEAD / 2 - 1, Some(AHEAD)), None, "enough was caught up");
    }

    #[test]
    fn a_partition_is_paused_at_its_limit_and_resumed_below_half() {
        for scale in [(1, 0), (0, 10)] {
            let mut flow = flow(2);
            let mut at = |n: u64| step(&mut flow, 0, n * scale.0, n * scale.1);
            assert_eq!(at(9), []);
            assert_eq!(at(10), [(0, true)]);
            assert_eq!(at(5), []);
            assert_eq!(at(4), [(0, false)]);
            assert_eq!(at(9), []);
        }
    }

    #[test]
    fn at_the_total_everyone_waits_and_below_it_only_those_with_something_outstanding() {
        let mut flow = flow(4);
        assert_eq!(step(&mut flow, 0, 1, 90), []);
        assert_eq!(step(&mut flow, 1, 1, 90), []);
        assert_eq!(step(&mut flow, 2, 1, 90), [(0, true), (1, true), (2, true), (3, true)]);
        assert_eq!(step(&mut flow, 2, 1, 60), [(3, false)]);
        assert_eq!(step(&mut flow, 3, 1, 5), [(3, true)]);
        assert_eq!(step(&mut flow, 0, 0, 0), [(0, false)]);
        assert_eq!(step(&mut flow, 1, 0, 0), [(1, false), (2, false), (3, false)]);
    }

    #[test]
    fn a_record_larger_than_every_limit_passes_and_then_the_others() {
        let mut flow = flow(2);
        assert_eq!(step(&mut flow, 0, 1, 1000), [(0, true), (1, true)]);
        assert_eq!(step(&mut flow, 0, 0, 0), [(0, false), (1, false)]);
    }

    #[test]
    fn a_partition_that_is_closed_counts_no_longer() {
        let mut flow = flow(2);
        step(&mut flow, 0, 1, 1000);
        flow.close(Partition(0));
        assert_eq!(flow.decide(), [PauseChange { partition: Partition(1), paused: false }]);
        assert_eq!(step(&mut flow, 0, 1, 1000), []);
    }

    #[test]
    fn a_partition_opened_while_the_total_is_at_its_limit_waits() {
        let mut flow = flow(1);
        step(&mut flow, 0, 1, 1000);
        flow.open(Partition(1));
        assert_eq!(flow.decide(), [PauseChange { partition: Partition(1), paused: true }]);
    }

    #[test]
    fn near_the_total_what_has_ended_unobserved_is_looked_at_again_before_anyone_is_paused() {
        let mut flow = flow(3);
        step(&mut flow, 0, 1, 60);
        assert_eq!(flow.to_observe(), []);
        step(&mut flow, 1, 1, 70);
        assert_eq!(flow.to_observe(), [Partition(0), Partition(1)]);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Open(u32),
        Close(u32),
        Deliver(u32, u64),
        End(u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            1 => (0..5_u32).prop_map(Op::Open),
            1 => (0..5_u32).prop_map(Op::Close),
            8 => (0..5_u32, 0..150_u64).prop_map(|(lane, bytes)| Op::Deliver(lane, bytes)),
            6 => (0..5_u32).prop_map(Op::End),
        ]
    }

    /// Observes as a consumer does, decides, and checks the table against the changes that it announced.
    fn settle(
        flow: &mut FlowControl,
        truth: &BTreeMap<Partition, Vec<u64>>,
        delivered: Option<Partition>,
        announced: &mut BTreeMap<Partition, bool>,
    ) -> Result<(), TestCaseError> {
        for partition in flow.to_observe().into_iter().chain(delivered) {
            let Some(queue) = truth.get(&partition) else { continue };
            flow.observe(partition, outstanding(queue.len() as u64, queue.iter().sum()));
        }
        for change in flow.decide() {
            prop_assert_ne!(announced.insert(change.partition, change.paused), Some(change.paused));
        }
        for partition in truth.keys() {
            prop_assert_eq!(announced[partition], flow.is_paused(*partition));
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn delivery_stays_within_one_record_of_the_limits_and_never_comes_to_rest_with_work_to_do(
            ops in prop::collection::vec(op(), 1..80)
        ) {
            let mut flow = FlowControl::new(LIMITS);
            let mut truth: BTreeMap<Partition, Vec<u64>> = BTreeMap::new();
            let mut announced = BTreeMap::new();
            for op in ops {
                let mut delivered = None;
                match op {
                    Op::Open(lane) => {
                        flow.open(Partition(lane));
                        truth.insert(Partition(lane), Vec::new());
                        announced.insert(Partition(lane), false);
                    }
                    Op::Close(lane) => {
                        flow.close(Partition(lane));
                        truth.remove(&Partition(lane));
                    }
                    Op::Deliver(lane, bytes) if !flow.is_paused(Partition(lane)) => {
                        let total: u64 = truth.values().flatten().sum();
                        if let Some(queue) = truth.get_mut(&Partition(lane)) {
                            prop_assert!(total < LIMITS.total_bytes);
                            prop_assert!(queue.iter().sum::<u64>() < LIMITS.partition_bytes);
                            prop_assert!((queue.len() as u64) < LIMITS.partition_records);
                            queue.push(bytes);
                            delivered = Some(Partition(lane));
                        }
                    }
                    Op::Deliver(..) => {}
                    Op::End(lane) => {
                        if let Some(queue) = truth.get_mut(&Partition(lane)) && !queue.is_empty() {
                            queue.remove(0);
                        }
                    }
                }
                settle(&mut flow, &truth, delivered, &mut announced)?;
            }
            truth.values_mut().for_each(Vec::clear);
            settle(&mut flow, &truth, None, &mut announced)?;
            prop_assert_eq!(flow.paused().count(), 0);
        }
    }
}
