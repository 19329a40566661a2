//! The log and the actors around a member, as random operations.

use super::{
    super::{GroupMember, MemberConfig},
    model::{Model, Owned},
};
use crate::{CommitId, Event, Exit, Intent, Offset, Partition};
use proptest::prelude::*;
use std::time::Duration;

pub(super) const CONFIG: MemberConfig = MemberConfig {
    birth: 0,
    commit_interval: Duration::from_millis(100),
    commit_timeout: Duration::from_millis(500),
    drain_timeout: Duration::from_millis(1000),
    shutdown_timeout: Duration::from_millis(2000),
    restart_backoff: Duration::from_millis(50),
    restart_backoff_max: Duration::from_millis(400),
};

const PARTITIONS: u32 = 4;

#[derive(Debug, Clone)]
pub(super) enum Op {
    /// Offers what is not owned; a rude log offers what is owned as well.
    Assign {
        mask: u8,
        start: u64,
        rude: bool,
    },
    Revoke {
        mask: u8,
    },
    Lose {
        mask: u8,
    },
    /// Ends `len` tasks, `skip` after the first that has not ended.
    Finish {
        partition: u32,
        skip: u64,
        len: u64,
    },
    /// A report of any epoch that ever was.
    LateFinish {
        partition: u32,
        epoch: prop::sample::Index,
        offset: u64,
    },
    LateFailure {
        partition: u32,
        epoch: prop::sample::Index,
    },
    Fail {
        partition: u32,
    },
    /// The actor says that it has ended, where it was told to drain.
    Drained {
        partition: u32,
    },
    /// The actor says so unasked, or twice.
    RudeDrained {
        partition: u32,
    },
    Gap {
        partition: u32,
    },
    WantCommit {
        partition: u32,
        offset: u64,
    },
    Rewind {
        partition: u32,
        to: u64,
    },
    /// A report of any epoch that ever was.
    Claim {
        partition: u32,
        epoch: prop::sample::Index,
    },
    /// Answers the commit in flight: these partitions were committed, the others not.
    Answer {
        mask: u8,
    },
    /// Answers a commit of long ago.
    LateAnswer {
        commit: prop::sample::Index,
    },
    /// Time passes; the member is woken at each of its deadlines, or only at the end.
    Wait {
        ms: u64,
        jump: bool,
    },
    Shutdown,
    /// The consumer says that it has left, where it was told to.
    Closed,
    /// The consumer's thread ends by itself.
    RudeClosed,
    Fatal,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let partition = 0..PARTITIONS;
    let mask = 0..1_u8 << PARTITIONS;
    let index = any::<prop::sample::Index>();
    prop_oneof![
        120 => (mask.clone(), 0..20_u64, prop::bool::weighted(0.1))
            .prop_map(|(mask, start, rude)| Op::Assign { mask, start, rude }),
        60 => mask.clone().prop_map(|mask| Op::Revoke { mask }),
        30 => mask.clone().prop_map(|mask| Op::Lose { mask }),
        300 => (partition.clone(), prop_oneof![4 => Just(0), 1 => 0..4_u64], 1..5_u64)
            .prop_map(|(partition, skip, len)| Op::Finish { partition, skip, len }),
        40 => (partition.clone(), index.clone(), 0..40_u64)
            .prop_map(|(partition, epoch, offset)| Op::LateFinish { partition, epoch, offset }),
        15 => (partition.clone(), index.clone())
            .prop_map(|(partition, epoch)| Op::LateFailure { partition, epoch }),
        30 => partition.clone().prop_map(|partition| Op::Fail { partition }),
        120 => partition.clone().prop_map(|partition| Op::Drained { partition }),
        10 => partition.clone().prop_map(|partition| Op::RudeDrained { partition }),
        10 => partition.clone().prop_map(|partition| Op::Gap { partition }),
        40 => (partition.clone(), 0..40_u64).prop_map(|(partition, offset)| Op::WantCommit { partition, offset }),
        20 => (partition.clone(), 0..40_u64).prop_map(|(partition, to)| Op::Rewind { partition, to }),
        20 => (partition, index.clone()).prop_map(|(partition, epoch)| Op::Claim { partition, epoch }),
        120 => prop_oneof![2 => Just(u8::MAX), 1 => mask].prop_map(|mask| Op::Answer { mask }),
        15 => index.prop_map(|commit| Op::LateAnswer { commit }),
        200 => (prop_oneof![0..60_u64, 0..300_u64, 0..3000_u64], any::<bool>())
            .prop_map(|(ms, jump)| Op::Wait { ms, jump }),
        8 => Just(Op::Shutdown),
        20 => Just(Op::Closed),
        1 => Just(Op::RudeClosed),
        1 => Just(Op::Fatal),
    ]
}

pub(super) struct World {
    member: GroupMember,
    model: Model,
    now: Duration,
    /// The most that the member was woken too late.
    late: Duration,
    intents: u64,
    generation: u32,
}

fn masked(mask: u8) -> Vec<Partition> {
    (0..PARTITIONS).filter(|bit| mask & 1 << bit != 0).map(Partition).collect()
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            member: GroupMember::new(CONFIG),
            model: Model::new(CONFIG),
            now: Duration::ZERO,
            late: Duration::ZERO,
            intents: 0,
            generation: 0,
        }
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        self.model.exit
    }

    fn send(&mut self, event: Event) {
        let actions = self.member.on_event(event.clone(), self.now);
        self.model.step(&event, &actions, self.now);
        self.model.check_answers(self.now, self.late);
        self.check_views();
        let deadline = self.member.next_deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "a deadline that has passed: {deadline:?}");
    }

    fn check_views(&self) {
        let views: Vec<_> = self.member.partitions().collect();
        assert!(views.iter().map(|view| &view.partition).eq(self.model.owned.keys()));
        for view in views {
            let owned = &self.model.owned[&view.partition];
            assert_eq!(view.epoch, owned.epoch);
            assert_eq!(view.committable, Offset(owned.prefix() as u64));
            assert!(view.committed.is_none_or(|committed| committed <= view.committable));
        }
    }

    fn next_intent(&mut self) -> Intent {
        self.intents += 1;
        Intent(self.intents)
    }

    pub(super) fn apply(&mut self, op: Op) {
        let epoch_of =
            |world: &Self, partition: Partition| world.model.owned.get(&partition).map(|owned| owned.epoch);
        match op {
            Op::Assign { mask, start, rude } => {
                let offered = masked(mask).into_iter();
                let partitions = offered
                    .filter(|partition| rude || !self.model.owned.contains_key(partition))
                    .map(|partition| (partition, Offset(start)))
                    .collect();
                self.generation += 1;
                let intent = self.next_intent();
                self.send(Event::Assigned { intent, generation: self.generation, partitions });
            }
            Op::Revoke { mask } => {
                let intent = self.next_intent();
                self.send(Event::Revoking { intent, partitions: masked(mask) });
            }
            Op::Lose { mask } => self.send(Event::Lost { partitions: masked(mask) }),
            Op::Finish { partition, skip, len } => {
                let partition = Partition(partition);
                if let Some(owned) = self.model.owned.get(&partition) {
                    let (epoch, start) = (owned.epoch, owned.prefix() as u64 + skip);
                    let offsets = Offset(start)..Offset(start + len);
                    self.send(Event::Finished { partition, epoch, offsets });
                }
            }
            Op::LateFinish { partition, epoch, offset } => {
                let partition = Partition(partition);
                if let Some(epochs) = self.model.history.get(&partition) {
                    let epoch = *epoch.get(epochs);
                    self.send(Event::Finished {
                        partition,
                        epoch,
                        offsets: Offset(offset)..Offset(offset + 1),
                    });
                }
            }
            Op::LateFailure { partition, epoch } => {
                let partition = Partition(partition);
                if let Some(epochs) = self.model.history.get(&partition) {
                    let epoch = *epoch.get(epochs);
                    self.send(Event::ActorFailed { partition, epoch });
                }
            }
            Op::Fail { partition } => {
                let partition = Partition(partition);
                if let Some(epoch) = epoch_of(self, partition) {
                    self.send(Event::ActorFailed { partition, epoch });
                }
            }
            Op::Drained { partition } => {
                let partition = Partition(partition);
                if let Some(owned) = self.model.owned.get(&partition)
                    && owned.draining
                    && owned.live
                {
                    let epoch = owned.epoch;
                    self.send(Event::Drained { partition, epoch });
                }
            }
            Op::RudeDrained { partition } => {
                let partition = Partition(partition);
                if let Some(epoch) = epoch_of(self, partition) {
                    self.send(Event::Drained { partition, epoch });
                }
            }
            Op::Gap { partition } => {
                let partition = Partition(partition);
                if let Some(epoch) = epoch_of(self, partition) {
                    self.send(Event::Discontinuity { partition, epoch });
                }
            }
            Op::WantCommit { partition, offset } => {
                self.send(Event::CommitWanted { partition: Partition(partition), offset: Offset(offset) });
            }
            Op::Rewind { partition, to } => {
                self.send(Event::Rewound { partition: Partition(partition), to: Offset(to) });
            }
            Op::Claim { partition, epoch } => {
                let partition = Partition(partition);
                if let Some(epochs) = self.model.history.get(&partition) {
                    let epoch = *epoch.get(epochs);
                    self.send(Event::Claimed { partition, epoch });
                }
            }
            Op::Answer { mask } => self.answer(mask),
            Op::LateAnswer { commit } => {
                let known = &self.model.sent_commits;
                let commit = if known.is_empty() { CommitId(99) } else { *commit.get(known) };
                let current = self.model.in_flight.as_ref().map(|flight| flight.commit);
                if current != Some(commit) {
                    self.send(Event::CommitDone { commit, committed: masked(u8::MAX) });
                }
            }
            Op::Wait { ms, jump } => self.wait(Duration::from_millis(ms), jump),
            Op::Shutdown => self.send(Event::Shutdown),
            Op::Closed if self.model.closing => self.send(Event::Closed),
            Op::Closed => {}
            Op::RudeClosed => self.send(Event::Closed),
            Op::Fatal => self.send(Event::Fatal),
        }
    }

    fn answer(&mut self, mask: u8) {
        if let Some(flight) = &self.model.in_flight {
            let wanted = masked(mask);
            let sent = flight.sent.iter().copied();
            let committed = sent.filter(|partition| wanted.contains(partition)).collect();
            let commit = flight.commit;
            self.send(Event::CommitDone { commit, committed });
        }
    }

    fn wait(&mut self, time: Duration, jump: bool) {
        let until = self.now + time;
        while let Some(deadline) = self.member.next_deadline()
            && deadline <= until
        {
            if jump {
                self.late = self.late.max(until - deadline);
                break;
            }
            self.now = deadline;
            self.send(Event::Tick);
        }
        self.now = until;
        self.send(Event::Tick);
    }

    /// Lets time pass until everything asked must be answered, with a log that answers commits or one that never does.
    pub(super) fn wind_up(&mut self, answers: bool) {
        let end =
            self.now + CONFIG.shutdown_timeout + CONFIG.drain_timeout + self.late + CONFIG.commit_timeout * 2;
        while let Some(deadline) = self.member.next_deadline()
            && deadline <= end
        {
            self.now = deadline;
            self.send(Event::Tick);
            if answers {
                self.answer(u8::MAX);
            }
        }
        self.now = end;
        self.send(Event::Tick);
        assert!(self.model.intents.values().all(|request| request.answered));
        if answers {
            assert!(self.model.owned.values().all(Owned::is_settled), "ended, but never committed");
        }
        if self.model.exit.is_some() {
            assert_eq!(self.member.next_deadline(), None);
        }
    }
}
