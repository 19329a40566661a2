//! What the group gives and takes: each an intent with a number, answered when the supervisor has done its part; and until when
//! what it gave may be taken for this member's own.

use super::{
    super::{
        super::watch::Trouble,
        contact::{Heard, Times},
        starts::{self, Found},
    },
    ATTEND, Member, Pending,
};
use crate::log::{ConsumerEvent, Lane};
use partita_core::{Contact, Intent, Offset, Partition};
use std::{thread, time::Instant};

impl Member {
    fn next_intent(&mut self) -> Intent {
        self.intents += 1;
        Intent(self.intents)
    }

    /// Keeps the client's main thread at its heartbeats, and learns when the group was joined.
    pub(super) fn attend(&mut self) {
        if self.attended.elapsed() >= ATTEND {
            self.check_joined();
        }
    }

    fn check_joined(&mut self) {
        self.attended = Instant::now();
        if self.native.generation().is_some() && !self.joined {
            self.joined = true;
            self.emit(ConsumerEvent::Joined);
        }
    }

    /// Says until when tasks may begin.
    pub(super) fn beat(&mut self) {
        let beat = self.lease.beat(self.began.elapsed());
        if let Some(gap) = beat.stood_still {
            tracing::warn!(
                stood_still = ?gap,
                "this process stood still; no task begins until the group can have said whether its partitions are still its own"
            );
        }
        if let Some(until) = beat.until {
            self.tenure.renew(self.began + until);
        }
    }

    /// The group answered: it hears this member.
    pub(super) fn heard(&mut self, heard: &Heard) {
        let Times { session, heartbeat } = heard.times;
        let asked = heard.asked.saturating_duration_since(self.began);
        self.lease.heard(Contact { asked, session, heartbeat });
    }

    pub(super) fn offered(&mut self, partitions: Vec<Partition>) {
        self.check_joined();
        self.expect_another_round();
        let (partitions, strangers): (Vec<_>, Vec<_>) =
            partitions.into_iter().partition(|&partition| self.lanes.knows(partition));
        if !strangers.is_empty() {
            tracing::warn!(
                ?strangers,
                "the topic has more partitions than log.kafka.partitions: these are left alone"
            );
        }
        if partitions.is_empty() {
            return self.take_without_reading(&strangers);
        }
        let intent = self.next_intent();
        tracing::info!(?intent, ?partitions, "partitions are assigned");
        let search = starts::search(intent, partitions, &self.native, &self.asker, &self.notes.0);
        let search = search
            .inspect_err(|error| tracing::error!(%error, "cannot start a thread to find start offsets"))
            .ok();
        self.pending = Some(Pending::Assign { intent, starts: None, strangers, _search: search });
    }

    /// The group's wish is done, and nothing comes of these partitions.
    fn take_without_reading(&self, partitions: &[Partition]) {
        let list: Vec<_> = partitions.iter().map(|&partition| (partition, Offset(0))).collect();
        said("assignment", self.native.assign(&list));
        self.native.set_paused(partitions, true);
    }

    /// The others may have to give something up first, and all then join once more.
    fn expect_another_round(&self) {
        let native = self.native.clone();
        let ask = move || {
            if let Err(error) = native.skip_join_backoff() {
                tracing::debug!(%error, "the next round of a rebalance may have to wait for a second");
            }
        };
        if let Err(error) = thread::Builder::new().name("partita-kafka-rejoin".into()).spawn(ask) {
            tracing::warn!(%error, "cannot start a thread to make a rebalance shorter");
        }
    }

    pub(super) fn taken(&mut self, partitions: Vec<Partition>) {
        self.check_joined();
        for &partition in &partitions {
            self.close_lane(partition);
        }
        let lost = self.native.assignment_lost();
        tracing::info!(?partitions, lost, "partitions are revoked");
        if lost || partitions.is_empty() {
            self.pending = None;
            self.give_back(&partitions);
            if !partitions.is_empty() {
                self.emit(ConsumerEvent::Lost { partitions });
            }
            return;
        }
        let intent = self.next_intent();
        self.pending = Some(Pending::Revoke { intent, partitions: partitions.clone() });
        self.emit(ConsumerEvent::Revoking { intent, partitions });
    }

    pub(super) fn give_back(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.owned.remove(partition);
        }
        said("revocation", self.native.unassign(partitions));
    }

    /// Offers the assignment to the supervisor once its starts are found and the topic is known to be the right one.
    pub(super) fn offer(&mut self) {
        let Some(Pending::Assign { intent, starts: Some(starts), .. }) = &self.pending else { return };
        if !matches!(self.standing, Some(Ok(()) | Err(Trouble::Grown(_)))) {
            return;
        }
        self.generation = self.generation.max(self.native.generation().unwrap_or(0));
        let partitions = starts.iter().map(|found| found.start.clone()).collect();
        self.emit(ConsumerEvent::Assigned { intent: *intent, generation: self.generation, partitions });
    }

    pub(super) fn complete_assign(&mut self, answered: Intent, lanes: Vec<Lane>) {
        let (starts, strangers) = match self.pending.take() {
            Some(Pending::Assign { intent, starts: Some(starts), strangers, .. }) if intent == answered => {
                (starts, strangers)
            }
            other => {
                self.pending = other;
                return tracing::debug!(?answered, "an answer to an overtaken assignment is ignored");
            }
        };
        let from = |found: &Found| {
            let lane = lanes.iter().find(|lane| lane.partition == found.partition());
            let start = lane.map_or(found.start.offset, |lane| lane.start);
            (found.partition(), if found.broken.is_some() { found.first } else { start })
        };
        let mut list: Vec<_> = starts.iter().map(from).collect();
        let ours = list.len();
        list.extend(strangers.iter().map(|&partition| (partition, Offset(0))));
        if let Err(reason) = self.native.assign(&list) {
            return tracing::warn!(reason, "the group took the assignment back before it was answered");
        }
        self.native.set_paused(&strangers, true);
        list.truncate(ours);
        self.owned.extend(list.iter().map(|(partition, _)| *partition));
        let idle: Vec<_> = starts
            .iter()
            .filter(|found| {
                found.broken.is_some() || !lanes.iter().any(|lane| lane.partition == found.partition())
            })
            .map(Found::partition)
            .collect();
        let live: Vec<_> = list
            .iter()
            .map(|(partition, _)| *partition)
            .filter(|partition| !idle.contains(partition))
            .collect();
        // librdkafka remembers pauses across assignments: state both explicitly.
        self.native.set_paused(&idle, true);
        self.native.set_paused(&live, false);
        for found in &starts {
            match &found.foreign {
                Some(topic_id) => self.foreign.insert(found.partition(), topic_id.clone()),
                None => self.foreign.remove(&found.partition()),
            };
        }
        for lane in lanes {
            let (partition, epoch) = (lane.partition, lane.epoch);
            match starts.iter().find(|found| found.partition() == partition) {
                Some(Found { broken: Some(detail), .. }) => {
                    tracing::error!(%partition, detail, "the partition is halted");
                    self.emit(ConsumerEvent::Discontinuity { partition, epoch, detail: detail.clone() });
                }
                Some(_) => {
                    self.flow.open(partition);
                    self.lanes.open(lane);
                }
                None => tracing::warn!(%partition, "a lane for a partition that is not assigned is ignored"),
            }
        }
    }

    pub(super) fn complete_revoke(&mut self, answered: Intent) {
        match self.pending.take() {
            Some(Pending::Revoke { intent, partitions }) if intent == answered => self.give_back(&partitions),
            other => {
                self.pending = other;
                tracing::debug!(?answered, "an answer to an overtaken revocation is ignored");
            }
        }
    }
}

/// Logs an answer that librdkafka refused.
pub(super) fn said(what: &str, outcome: Result<(), String>) {
    if let Err(reason) = outcome {
        tracing::warn!(reason, "librdkafka refused the answer to a {what}");
    }
}
