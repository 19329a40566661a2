//! One member of the consumer group: which partitions it owns, under which epochs, and how each comes and goes.
//!
//! [`GroupMember`] is a state machine. It is told what happened and when, and answers with what to do, in order. It
//! holds the invariants of assignment and commit: never two live epochs of one partition, never a commit of a partition that is not
//! owned or past its unbroken run of ended tasks, every request of the log answered exactly once and in bounded time.

mod assignment;
mod revocation;
mod shutdown;
#[cfg(test)]
mod tests;

use crate::{Action, CommitSchedule, Counted, Epoch, Event, Intent, Offset, Partition, retry};
use assignment::{Assignment, Effect, Input, Life};
use revocation::Revocation;
use shutdown::Phase;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

/// Where epochs begin, and how long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberConfig {
    /// Where the low halves of epochs begin: above all that a former life of this member has made under the same generation.
    pub birth: u32,
    /// How long ended tasks may wait before their offsets are committed.
    pub commit_interval: Duration,
    /// How long the answer to a commit is awaited.
    pub commit_timeout: Duration,
    /// How long a revoked partition's task in hand may go on.
    pub drain_timeout: Duration,
    /// How long a shutdown may take, from its event to `Action::Exit`.
    pub shutdown_timeout: Duration,
    /// How long a failed partition waits for its next actor; it doubles with each failure in a row.
    pub restart_backoff: Duration,
    /// What the doubling stops at.
    pub restart_backoff_max: Duration,
}

/// What an owned partition's actor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionState {
    /// It handles what is delivered.
    Running,
    /// Its records do not continue where they must: it works off what it has and gets no more.
    Halted,
    /// It failed; another is started soon.
    Restarting,
    /// It ends its task in hand, or has, and its last offsets are being committed.
    Draining,
}

/// What the member knows of an owned partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionView {
    /// Which partition.
    pub partition: Partition,
    /// Its present epoch.
    pub epoch: Epoch,
    /// What its actor is doing.
    pub state: PartitionState,
    /// The first offset that this epoch's actor is given.
    pub start: Offset,
    /// The next offset to read as far as this member has committed it; `None` before its first commit.
    pub committed: Option<Offset>,
    /// The next offset to read as far as tasks have ended.
    pub committable: Offset,
}

/// The state machine. See the module.
#[derive(Debug)]
pub struct GroupMember {
    config: MemberConfig,
    phase: Phase,
    owned: BTreeMap<Partition, Assignment>,
    revocations: Vec<Revocation>,
    restarts: BTreeSet<(Duration, Partition)>,
    commits: CommitSchedule,
    generation: u32,
    /// The low half of each partition's last epoch.
    ordinals: BTreeMap<Partition, u32>,
    cut_short: bool,
    now: Duration,
}

impl GroupMember {
    /// A member that owns nothing yet.
    pub fn new(config: MemberConfig) -> Self {
        Self {
            config,
            phase: Phase::Serving,
            owned: BTreeMap::new(),
            revocations: Vec::new(),
            restarts: BTreeSet::new(),
            commits: CommitSchedule::new(config.commit_interval, config.commit_timeout),
            generation: 0,
            ordinals: BTreeMap::new(),
            cut_short: false,
            now: Duration::ZERO,
        }
    }

    /// Takes what happened at `now` (monotonic, from any beginning) and says what to do, in this order.
    pub fn on_event(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let now = self.now.max(now);
        self.now = now;
        let mut out = Vec::new();
        match event {
            Event::Assigned { intent, generation, partitions } => {
                self.assigned(intent, generation, partitions, &mut out);
            }
            Event::Revoking { intent, partitions } => self.revoking(intent, partitions, now, &mut out),
            Event::Lost { partitions } => self.lost(&partitions, &mut out),
            Event::Finished { partition, epoch, offsets } => {
                self.finished(partition, epoch, offsets, &mut out);
            }
            Event::Claimed { partition, epoch } => self.claimed(partition, epoch, &mut out),
            Event::Drained { partition, epoch } => self.drained(partition, epoch, &mut out),
            Event::ActorFailed { partition, epoch } => self.failed(partition, epoch, &mut out),
            Event::Discontinuity { partition, epoch } => {
                self.report(partition, epoch, Input::Discontinuity, &mut out);
            }
            Event::Rewound { partition, to } => self.rewound(partition, to, &mut out),
            Event::CommitWanted { partition, offset } => self.commits.hurry(partition, offset, now),
            Event::CommitDone { commit, committed } => {
                if !self.commits.answered(commit, &committed, now) {
                    out.push(Action::Count(Counted::StaleCommit));
                }
            }
            Event::Tick => {}
            Event::Shutdown => self.shutdown(now, &mut out),
            Event::Fatal => self.fatal(&mut out),
            Event::Closed => self.closed(&mut out),
        }
        self.advance(now, &mut out);
        out
    }

    /// When to send `Event::Tick` if nothing else happens before. Always later than the last event.
    pub fn next_deadline(&self) -> Option<Duration> {
        let revocations = self.revocations.iter().map(Revocation::next_deadline).min();
        let restart = self.restarts.first().map(|&(at, _)| at);
        let commit = self.commits.next_deadline(self.is_commit_urgent());
        [revocations, restart, commit, self.phase.next_deadline()].into_iter().flatten().min()
    }

    /// What is known of one partition; `None` if it is not owned.
    pub fn partition(&self, partition: Partition) -> Option<PartitionView> {
        let assignment = self.owned.get(&partition)?;
        Some(PartitionView {
            partition,
            epoch: assignment.epoch,
            state: match assignment.life {
                Life::Running => PartitionState::Running,
                Life::Halted | Life::HaltedIdle => PartitionState::Halted,
                Life::Restarting(_) => PartitionState::Restarting,
                Life::Draining | Life::Drained | Life::Stopped => PartitionState::Draining,
            },
            start: assignment.start,
            committed: self.commits.committed(partition),
            committable: assignment.tracker.committable(),
        })
    }

    /// All owned partitions, in order.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionView> + '_ {
        self.owned.keys().filter_map(|&partition| self.partition(partition))
    }

    /// Whether `Event::Shutdown` or something worse has happened.
    pub fn is_shutting_down(&self) -> bool {
        self.phase != Phase::Serving
    }

    fn assigned(
        &mut self,
        intent: Intent,
        generation: u32,
        partitions: Vec<(Partition, Offset)>,
        out: &mut Vec<Action>,
    ) {
        let mut lanes = Vec::new();
        if !self.is_shutting_down() {
            if generation < self.generation {
                out.push(Action::Count(Counted::Violation(9)));
            }
            self.generation = self.generation.max(generation);
            for (partition, start) in partitions {
                self.replace(partition, out);
                let epoch = self.new_epoch(partition);
                self.owned.insert(partition, Assignment::new(epoch, start));
                self.commits.own(partition, start);
                out.push(Action::Start { partition, epoch, start });
                lanes.retain(|&(other, _, _)| other != partition);
                lanes.push((partition, epoch, start));
            }
        }
        out.push(Action::CompleteAssign { intent, lanes });
    }

    /// A partition is offered that is owned already: as if it had been lost in between, which is the safe reading.
    fn replace(&mut self, partition: Partition, out: &mut Vec<Action>) {
        if let Some(old) = self.owned.get(&partition) {
            if !self.revocations.iter().any(|revocation| revocation.partitions.contains(&partition)) {
                out.push(Action::Count(Counted::Violation(7)));
            }
            out.push(Action::CloseLane { partition, epoch: old.epoch });
            self.forget(partition, out);
        }
    }

    fn lost(&mut self, partitions: &[Partition], out: &mut Vec<Action>) {
        for &partition in partitions {
            self.forget(partition, out);
        }
    }

    fn finished(
        &mut self,
        partition: Partition,
        epoch: Epoch,
        offsets: Range<Offset>,
        out: &mut Vec<Action>,
    ) {
        if self.report(partition, epoch, Input::Finished, out) != Effect::Track {
            return;
        }
        let Some(assignment) = self.owned.get_mut(&partition) else { return };
        assignment.failures = 0;
        if assignment.tracker.finish(offsets).is_err() {
            out.push(Action::Count(Counted::Violation(3)));
        }
        self.commits.advance(partition, assignment.tracker.committable(), self.now);
    }

    /// Starts a partition anew where an operator says, under a new epoch. What its former epoch did and has not committed is done
    /// again, or not, as that says.
    fn rewound(&mut self, partition: Partition, to: Offset, out: &mut Vec<Action>) {
        let Some(assignment) = self.owned.get(&partition) else { return };
        if self.is_shutting_down() || !assignment.life.may_begin_anew() {
            return;
        }
        out.push(Action::CloseLane { partition, epoch: assignment.epoch });
        self.forget(partition, out);
        let epoch = self.new_epoch(partition);
        self.owned.insert(partition, Assignment::new(epoch, to));
        self.commits.rewind(partition, to, self.now);
        out.push(Action::Start { partition, epoch, start: to });
        out.push(Action::Reopen { partition, epoch, start: to });
    }

    fn claimed(&mut self, partition: Partition, epoch: Epoch, out: &mut Vec<Action>) {
        match self.owned.get(&partition) {
            Some(assignment) if assignment.epoch == epoch => self.commits.restate(partition, self.now),
            _ => out.push(Action::Count(Counted::StaleReport)),
        }
    }

    fn drained(&mut self, partition: Partition, epoch: Epoch, out: &mut Vec<Action>) {
        let unasked = |assignment: &Assignment| assignment.epoch == epoch && assignment.life == Life::Running;
        if self.owned.get(&partition).is_some_and(unasked) {
            self.failed(partition, epoch, out);
        } else {
            self.report(partition, epoch, Input::Drained, out);
        }
    }

    fn failed(&mut self, partition: Partition, epoch: Epoch, out: &mut Vec<Action>) {
        let failures = self.owned.get(&partition).map_or(0, |assignment| assignment.failures);
        let (base, max) = (self.config.restart_backoff, self.config.restart_backoff_max);
        let again = self.now + retry::backoff(failures + 1, base, max, 1.0);
        if self.report(partition, epoch, Input::Failed(again), out) == Effect::CloseAndStop
            && let Some(assignment) = self.owned.get_mut(&partition)
        {
            assignment.failures += 1;
            self.restarts.insert((again, partition));
        }
    }

    /// Feeds what is reported of `epoch`, if that is the partition's present one.
    fn report(&mut self, partition: Partition, epoch: Epoch, input: Input, out: &mut Vec<Action>) -> Effect {
        if self.owned.get(&partition).is_some_and(|assignment| assignment.epoch == epoch) {
            self.feed(partition, input, out)
        } else {
            out.push(Action::Count(Counted::StaleReport));
            Effect::Refuse
        }
    }

    /// Moves a partition along the transition table and asks for what the table says.
    fn feed(&mut self, partition: Partition, input: Input, out: &mut Vec<Action>) -> Effect {
        let Some(assignment) = self.owned.get_mut(&partition) else { return Effect::Nothing };
        let epoch = assignment.epoch;
        let before = assignment.life;
        let (life, effect) = before.on(input);
        assignment.life = life;
        if let Life::Restarting(at) = before
            && life != before
        {
            self.restarts.remove(&(at, partition));
        }
        match effect {
            Effect::Nothing | Effect::Track => {}
            Effect::Refuse => out.push(Action::Count(Counted::StaleReport)),
            Effect::CloseLane => out.push(Action::CloseLane { partition, epoch }),
            Effect::Drain => {
                out.extend([Action::CloseLane { partition, epoch }, Action::Drain { partition, epoch }]);
            }
            Effect::Stop => out.push(Action::Stop { partition, epoch }),
            Effect::CloseAndStop => {
                out.extend([Action::CloseLane { partition, epoch }, Action::Stop { partition, epoch }]);
            }
            Effect::Start => self.start_again(partition, out),
        }
        effect
    }

    fn feed_all(&mut self, input: Input, out: &mut Vec<Action>) {
        for partition in self.owned.keys().copied().collect::<Vec<_>>() {
            self.feed(partition, input, out);
        }
    }

    /// Starts the next actor of a partition that stayed owned, where the last one's work ends.
    fn start_again(&mut self, partition: Partition, out: &mut Vec<Action>) {
        let epoch = self.new_epoch(partition);
        let Some(assignment) = self.owned.get_mut(&partition) else { return };
        let start = assignment.tracker.committable();
        let failures = assignment.failures;
        *assignment = Assignment { failures, ..Assignment::new(epoch, start) };
        out.push(Action::Start { partition, epoch, start });
        out.push(Action::Reopen { partition, epoch, start });
    }

    /// Ends an assignment for good: nothing of it is committed, awaited or restarted from now on.
    fn forget(&mut self, partition: Partition, out: &mut Vec<Action>) {
        let Some(assignment) = self.owned.remove(&partition) else { return };
        if assignment.life.has_actor() {
            out.push(Action::Stop { partition, epoch: assignment.epoch });
        }
        if let Life::Restarting(at) = assignment.life {
            self.restarts.remove(&(at, partition));
        }
        self.commits.forget(partition);
        for revocation in &mut self.revocations {
            revocation.partitions.remove(&partition);
        }
    }

    fn new_epoch(&mut self, partition: Partition) -> Epoch {
        let ordinal = self.ordinals.entry(partition).or_insert(self.config.birth);
        *ordinal = ordinal.wrapping_add(1);
        Epoch::new(self.generation, *ordinal)
    }

    /// Does what time or the last event has made due. Costs nothing where nothing is.
    fn advance(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.end_revocation_drains(now, out);
        self.end_shutdown_drain(now, out);
        if let Some((commit, offsets)) = self.commits.poll(now, self.is_commit_urgent()) {
            out.push(Action::Commit { commit, offsets });
        }
        self.complete_revocations(now, self.is_out_of_commit_time(now), out);
        self.leave(now, out);
        while let Some(&(at, partition)) = self.restarts.first()
            && at <= now
        {
            self.restarts.pop_first();
            self.feed(partition, Input::RestartDue, out);
        }
    }

    /// Whether somebody waits for a commit.
    fn is_commit_urgent(&self) -> bool {
        matches!(self.phase, Phase::Committing(_)) || self.revocations.iter().any(Revocation::is_committing)
    }
}
