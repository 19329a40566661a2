//! When offsets are committed: on an interval, one request in flight, failures again with the newest offsets.

use crate::{CommitId, Offset, Partition};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// After a failed commit the next one waits this long, even an urgent one: a log that refuses at once is not hammered.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// The commits of one member.
///
/// It knows how far each owned partition may be committed and how far it is. Only what is ahead of the log is sent, and
/// what is forgotten (revoked, lost) is never sent again, whatever answers are still to come.
#[derive(Debug)]
pub struct CommitSchedule {
    interval: Duration,
    timeout: Duration,
    progress: BTreeMap<Partition, Progress>,
    /// The partitions with something to commit that is not in flight.
    dirty: BTreeSet<Partition>,
    /// The tasks whose ends somebody waits for: of each partition the first.
    hurried: BTreeMap<Partition, Offset>,
    in_flight: Option<InFlight>,
    due: Option<Duration>,
    not_before: Duration,
    last_id: u64,
}

#[derive(Debug)]
struct Progress {
    /// What the log has from before; `None` where that is not to stay.
    start: Option<Offset>,
    committable: Offset,
    committed: Option<Offset>,
}

impl Progress {
    fn is_settled(&self) -> bool {
        self.committed.max(self.start) >= Some(self.committable)
    }
}

#[derive(Debug)]
struct InFlight {
    commit: CommitId,
    offsets: BTreeMap<Partition, Offset>,
    expires: Duration,
}

impl CommitSchedule {
    /// Commits `interval` after the first end that is not committed; gives an answer up after `timeout`.
    pub fn new(interval: Duration, timeout: Duration) -> Self {
        Self {
            interval,
            timeout,
            progress: BTreeMap::new(),
            dirty: BTreeSet::new(),
            hurried: BTreeMap::new(),
            in_flight: None,
            due: None,
            not_before: Duration::ZERO,
            last_id: 0,
        }
    }

    /// A partition is owned from now on; its first record is at `start`.
    pub fn own(&mut self, partition: Partition, start: Offset) {
        self.forget(partition);
        self.progress.insert(partition, Progress { start: Some(start), committable: start, committed: None });
    }

    /// An owned partition is to be read from `to` on, whatever the log has: that is committed at once, also where it is smaller.
    pub fn rewind(&mut self, partition: Partition, to: Offset, now: Duration) {
        self.forget(partition);
        self.progress.insert(partition, Progress { start: None, committable: to, committed: None });
        self.dirty.insert(partition);
        self.due = Some(self.due.map_or(now, |due| due.min(now)));
    }

    /// A partition is not owned any more: nothing of it will be committed, and no answer counts for it.
    pub fn forget(&mut self, partition: Partition) {
        self.progress.remove(&partition);
        self.dirty.remove(&partition);
        self.hurried.remove(&partition);
        if self.dirty.is_empty() {
            self.due = None;
        }
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.offsets.remove(&partition);
        }
    }

    /// A partition may be committed up to `committable`. A smaller offset than before is ignored, as is an unowned partition.
    pub fn advance(&mut self, partition: Partition, committable: Offset, now: Duration) {
        let Some(progress) = self.progress.get_mut(&partition) else { return };
        if committable > progress.committable {
            progress.committable = committable;
            self.dirty.insert(partition);
            self.due.get_or_insert(now + self.interval);
            self.hurry_now(partition, committable, now);
        }
    }

    /// Somebody waits for the end of this task of an owned partition: once it has ended its commit does not wait for the interval.
    pub fn hurry(&mut self, partition: Partition, offset: Offset, now: Duration) {
        let Some(committable) = self.progress.get(&partition).map(|progress| progress.committable) else {
            return;
        };
        let first = self.hurried.entry(partition).or_insert(offset);
        *first = (*first).min(offset);
        self.hurry_now(partition, committable, now);
    }

    fn hurry_now(&mut self, partition: Partition, committable: Offset, now: Duration) {
        if self.hurried.get(&partition).is_some_and(|first| *first < committable) {
            self.hurried.remove(&partition);
            self.due = self.due.map(|due| due.min(now));
        }
    }

    /// What is stored with an owned partition's offset has changed: the offset is committed again, at once.
    pub fn restate(&mut self, partition: Partition, now: Duration) {
        let Some(progress) = self.progress.get_mut(&partition) else { return };
        (progress.start, progress.committed) = (None, None);
        self.dirty.insert(partition);
        self.due = Some(self.due.map_or(now, |due| due.min(now)));
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.offsets.remove(&partition);
        }
    }

    /// What the log is known to have, by this member's commits.
    pub fn committed(&self, partition: Partition) -> Option<Offset> {
        self.progress.get(&partition)?.committed
    }

    /// Whether there is nothing left to commit of this partition.
    pub fn is_settled(&self, partition: Partition) -> bool {
        self.progress.get(&partition).is_none_or(Progress::is_settled)
    }

    /// The commit to send now, if any. `urgent`: somebody waits for it, so it does not wait for the interval.
    pub fn poll(&mut self, now: Duration, urgent: bool) -> Option<(CommitId, Vec<(Partition, Offset)>)> {
        if self.in_flight.as_ref().is_some_and(|in_flight| now >= in_flight.expires) {
            self.end_of_flight(&[], now);
        }
        if self.in_flight.is_some() || self.send_at(urgent).is_none_or(|at| now < at) {
            return None;
        }
        let offsets: BTreeMap<_, _> = std::mem::take(&mut self.dirty)
            .into_iter()
            .filter_map(|partition| Some((partition, self.progress.get(&partition)?.committable)))
            .collect();
        self.due = None;
        self.last_id += 1;
        let commit = CommitId(self.last_id);
        let list = offsets.iter().map(|(&partition, &offset)| (partition, offset)).collect();
        self.in_flight = Some(InFlight { commit, offsets, expires: now + self.timeout });
        Some((commit, list))
    }

    /// A commit was answered. `false`: it is not the one in flight, so the answer does not count.
    pub fn answered(&mut self, commit: CommitId, committed: &[Partition], now: Duration) -> bool {
        let known = self.in_flight.as_ref().is_some_and(|in_flight| in_flight.commit == commit);
        if known {
            self.end_of_flight(committed, now);
        }
        known
    }

    /// When `poll` may have something to do.
    pub fn next_deadline(&self, urgent: bool) -> Option<Duration> {
        match &self.in_flight {
            // An answer that nobody waits for may stay away.
            Some(in_flight) if in_flight.offsets.is_empty() && self.dirty.is_empty() => None,
            Some(in_flight) => Some(in_flight.expires),
            None => self.send_at(urgent),
        }
    }

    fn send_at(&self, urgent: bool) -> Option<Duration> {
        if self.dirty.is_empty() {
            return None;
        }
        let due = if urgent { Some(self.not_before) } else { self.due };
        due.map(|due| due.max(self.not_before))
    }

    fn end_of_flight(&mut self, committed: &[Partition], now: Duration) {
        let Some(in_flight) = self.in_flight.take() else { return };
        for partition in committed {
            if let (Some(&offset), Some(progress)) =
                (in_flight.offsets.get(partition), self.progress.get_mut(partition))
            {
                progress.committed = progress.committed.max(Some(offset));
            }
        }
        let mut unsettled = Vec::new();
        let mut failed = false;
        for (partition, offset) in in_flight.offsets {
            let Some(progress) = self.progress.get(&partition) else { continue };
            failed |= progress.committed < Some(offset);
            if !progress.is_settled() {
                unsettled.push(partition);
            }
        }
        if failed {
            self.not_before = now + PAUSE_AFTER_FAILURE.min(self.interval);
        }
        self.dirty.extend(unsettled);
        if !self.dirty.is_empty() {
            self.due.get_or_insert(now + self.interval);
        }
    }
}
