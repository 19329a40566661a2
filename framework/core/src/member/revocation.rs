//! Giving partitions back in good order: drain, commit, answer. Each phase is bounded.

use super::{GroupMember, Input};
use crate::{Action, Intent, Partition};
use std::{collections::BTreeSet, time::Duration};

/// One request to give partitions back that is not answered yet.
#[derive(Debug)]
pub(super) struct Revocation {
    pub(super) intent: Intent,
    /// What is still to be given up. A partition that goes another way (lost, given by an earlier answer) is removed.
    pub(super) partitions: BTreeSet<Partition>,
    drain_until: Duration,
    /// Set when all are drained.
    commit_until: Option<Duration>,
}

impl Revocation {
    /// Whether it only waits for its offsets to be committed.
    pub(super) fn is_committing(&self) -> bool {
        self.commit_until.is_some()
    }

    pub(super) fn next_deadline(&self) -> Duration {
        self.commit_until.unwrap_or(self.drain_until)
    }
}

impl GroupMember {
    pub(super) fn revoking(
        &mut self,
        intent: Intent,
        partitions: Vec<Partition>,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let partitions: BTreeSet<_> =
            partitions.into_iter().filter(|partition| self.owned.contains_key(partition)).collect();
        for &partition in &partitions {
            self.feed(partition, Input::GiveUp, out);
        }
        let drain_until = now + self.config.drain_timeout;
        self.revocations.push(Revocation { intent, partitions, drain_until, commit_until: None });
    }

    /// Stops what drains for too long, and notes which revocations have only their commit left.
    pub(super) fn end_revocation_drains(&mut self, now: Duration, out: &mut Vec<Action>) {
        for index in 0..self.revocations.len() {
            let revocation = &self.revocations[index];
            if revocation.is_committing() {
                continue;
            }
            if now >= revocation.drain_until && !self.are_over(&revocation.partitions) {
                self.cut_short |= self.is_shutting_down();
                for partition in self.revocations[index].partitions.clone() {
                    self.feed(partition, Input::Overdue, out);
                }
            }
            if self.are_over(&self.revocations[index].partitions) {
                self.revocations[index].commit_until = Some(now + self.config.commit_timeout);
            }
        }
    }

    /// Answers the revocations whose offsets are committed or waited long enough; all of them if `at_once`.
    pub(super) fn complete_revocations(&mut self, now: Duration, at_once: bool, out: &mut Vec<Action>) {
        let mut index = 0;
        while let Some(revocation) = self.revocations.get(index) {
            let settled =
                || revocation.partitions.iter().all(|&partition| self.commits.is_settled(partition));
            let complete = at_once || revocation.commit_until.is_some_and(|until| now >= until || settled());
            if !complete {
                index += 1;
                continue;
            }
            let revocation = self.revocations.remove(index);
            for partition in revocation.partitions {
                self.forget(partition, out);
            }
            out.push(Action::CompleteRevoke { intent: revocation.intent });
        }
    }

    fn are_over(&self, partitions: &BTreeSet<Partition>) -> bool {
        let over = |partition| self.owned.get(partition).is_none_or(|assignment| assignment.life.is_over());
        partitions.iter().all(over)
    }
}
