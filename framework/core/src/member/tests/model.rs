//! A naive account of what a member may do, kept beside it: every event goes in before the member's answer, every action
//! is checked against it. It knows nothing of how the member works.

use crate::{Action, CommitId, Counted, Epoch, Event, Exit, MemberConfig, Offset, Partition};
use std::{collections::BTreeMap, time::Duration};

/// Offsets in these tests are below this.
pub(super) const MOST: usize = 4096;

#[derive(Debug)]
pub(super) struct Model {
    config: MemberConfig,
    /// The owner flag is being here.
    pub(super) owned: BTreeMap<Partition, Owned>,
    /// Every epoch that was ever started, oldest first.
    pub(super) history: BTreeMap<Partition, Vec<Epoch>>,
    pub(super) intents: BTreeMap<u64, Request>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) sent_commits: Vec<CommitId>,
    pub(super) shutdown_at: Option<Duration>,
    pub(super) closing: bool,
    pub(super) exit: Option<Exit>,
    settled_at_close: bool,
    cut: bool,
    /// Actors of partitions that were just taken away: each must be stopped at once.
    must_stop: Vec<(Partition, Epoch)>,
    /// Partitions that must start anew where an operator said.
    rewound: Vec<Partition>,
}

#[derive(Debug)]
pub(super) struct Owned {
    pub(super) epoch: Epoch,
    /// Whether an actor runs under the epoch.
    pub(super) live: bool,
    /// Whether the epoch's reports count.
    pub(super) reports: bool,
    pub(super) draining: bool,
    pub(super) halted: bool,
    lane_open: bool,
    start: usize,
    ended: Vec<bool>,
    /// What the log has; `None` after a rewind until it has that.
    acked: Option<usize>,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) commit: CommitId,
    /// What an answer still counts for: partitions that went away since are removed.
    offsets: Vec<(Partition, Offset)>,
    /// Everything that was sent: the log answers for these.
    pub(super) sent: Vec<Partition>,
    sent_at: Duration,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) answered: bool,
    asked_at: Duration,
    /// What a revocation takes; `None` for an offer.
    takes: Option<Vec<(Partition, Epoch)>>,
}

impl Owned {
    fn new(epoch: Epoch, start: usize) -> Self {
        Self {
            epoch,
            live: true,
            reports: true,
            draining: false,
            halted: false,
            lane_open: false,
            start,
            ended: vec![false; MOST],
            acked: Some(start),
        }
    }

    /// The first offset that has not ended.
    pub(super) fn prefix(&self) -> usize {
        (self.start..).find(|&offset| !self.ended[offset]).unwrap()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.acked == Some(self.prefix())
    }
}

impl Model {
    pub(super) fn new(config: MemberConfig) -> Self {
        Self {
            config,
            owned: BTreeMap::new(),
            history: BTreeMap::new(),
            intents: BTreeMap::new(),
            in_flight: None,
            sent_commits: Vec::new(),
            shutdown_at: None,
            closing: false,
            exit: None,
            settled_at_close: false,
            cut: false,
            must_stop: Vec::new(),
            rewound: Vec::new(),
        }
    }

    fn is_serving(&self) -> bool {
        self.shutdown_at.is_none() && self.exit.is_none()
    }

    fn current(&mut self, partition: Partition, epoch: Epoch) -> Option<&mut Owned> {
        self.owned.get_mut(&partition).filter(|owned| owned.epoch == epoch)
    }

    /// Takes an event and the member's whole answer to it.
    pub(super) fn step(&mut self, event: &Event, actions: &[Action], now: Duration) {
        let counted: Vec<_> = actions
            .iter()
            .filter_map(|action| if let Action::Count(counted) = action { Some(*counted) } else { None })
            .collect();
        let expected = self.expect_counts(event, &counted, now);
        assert_eq!(counted, expected, "what is counted");
        let refused = counted.contains(&Counted::StaleCommit);
        let mut offers = self.happened(event, refused, now);
        let started: Vec<_> = actions
            .iter()
            .filter_map(|action| match *action {
                Action::Start { partition, epoch, start } => Some((partition, epoch, start)),
                _ => None,
            })
            .collect();
        for action in actions {
            assert!(
                self.exit.is_none()
                    || matches!(
                        action,
                        Action::CompleteAssign { .. } | Action::CompleteRevoke { .. } | Action::Count(_)
                    ),
                "after the exit: {action:?}"
            );
            self.check(event, action, &started, &mut offers, now);
        }
        assert!(self.must_stop.is_empty(), "actors of partitions that were taken away run on");
        assert!(offers.is_empty(), "offered, but not started: {offers:?}");
        if self.shutdown_at.is_some_and(|at| now >= at + self.config.shutdown_timeout) {
            assert!(self.exit.is_some(), "the shutdown's deadline has passed");
        }
    }

    /// What must be counted, decided before the event takes effect.
    fn expect_counts(&mut self, event: &Event, counted: &[Counted], now: Duration) -> Vec<Counted> {
        match event {
            Event::Finished { partition, epoch, offsets } => match self.current(*partition, *epoch) {
                Some(owned) if owned.reports => {
                    let range = offsets.start.0 as usize..offsets.end.0 as usize;
                    let again = range.start < owned.start || owned.ended[range].contains(&true);
                    if again { vec![Counted::Violation(3)] } else { vec![] }
                }
                _ => vec![Counted::StaleReport],
            },
            Event::ActorFailed { partition, epoch } | Event::Drained { partition, epoch } => {
                match self.current(*partition, *epoch) {
                    Some(owned) if owned.live => vec![],
                    _ => vec![Counted::StaleReport],
                }
            }
            Event::Claimed { partition, epoch } | Event::Discontinuity { partition, epoch } => {
                match self.current(*partition, *epoch) {
                    Some(_) => vec![],
                    None => vec![Counted::StaleReport],
                }
            }
            Event::Assigned { partitions, .. } if self.is_serving() => {
                let revoked: Vec<_> = self
                    .intents
                    .values()
                    .filter(|request| !request.answered)
                    .flat_map(|request| request.takes.iter().flatten())
                    .collect();
                partitions
                    .iter()
                    .filter_map(|(partition, _)| Some((partition, self.owned.get(partition)?)))
                    .filter(|(partition, owned)| !revoked.contains(&&(**partition, owned.epoch)))
                    .map(|_| Counted::Violation(7))
                    .collect()
            }
            Event::CommitDone { commit, .. } => match &self.in_flight {
                Some(flight) if flight.commit == *commit => {
                    // An answer after its time is taken or refused, whichever the member noticed first.
                    if now >= flight.sent_at + self.config.commit_timeout { counted.to_vec() } else { vec![] }
                }
                _ => vec![Counted::StaleCommit],
            },
            _ => vec![],
        }
    }

    /// A partition is owned no more: an answer to a commit says nothing about it.
    fn disown(&mut self, partition: Partition) -> Option<Owned> {
        if let Some(flight) = &mut self.in_flight {
            flight.offsets.retain(|&(other, _)| other != partition);
        }
        self.owned.remove(&partition)
    }

    fn disown_all(&mut self) {
        while let Some((&partition, _)) = self.owned.first_key_value() {
            self.disown(partition);
        }
    }

    /// Takes the event; `refused`: the member counted it as a stale commit. Returns what it offers.
    fn happened(&mut self, event: &Event, refused: bool, now: Duration) -> BTreeMap<Partition, Offset> {
        let mut offers = BTreeMap::new();
        match event {
            Event::Assigned { intent, partitions, .. } => {
                if self.is_serving() {
                    offers.extend(partitions.iter().copied());
                }
                let request = Request { answered: false, asked_at: now, takes: None };
                assert!(self.intents.insert(intent.0, request).is_none());
            }
            Event::Revoking { intent, partitions } => {
                let mut takes = Vec::new();
                for partition in partitions {
                    if let Some(owned) = self.owned.get_mut(partition) {
                        owned.lane_open = false;
                        takes.push((*partition, owned.epoch));
                    }
                }
                let request = Request { answered: false, asked_at: now, takes: Some(takes) };
                assert!(self.intents.insert(intent.0, request).is_none());
            }
            Event::Lost { partitions } => {
                for partition in partitions {
                    if let Some(owned) = self.disown(*partition)
                        && owned.live
                    {
                        self.must_stop.push((*partition, owned.epoch));
                    }
                }
            }
            Event::Finished { partition, epoch, offsets } => {
                if let Some(owned) = self.current(*partition, *epoch)
                    && owned.reports
                {
                    owned.ended[offsets.start.0 as usize..offsets.end.0 as usize].fill(true);
                }
            }
            Event::Claimed { partition, epoch } => {
                if let Some(owned) = self.current(*partition, *epoch) {
                    owned.acked = None;
                    if let Some(flight) = &mut self.in_flight {
                        flight.offsets.retain(|&(other, _)| other != *partition);
                    }
                }
            }
            Event::Drained { partition, epoch } => {
                if let Some(owned) = self.current(*partition, *epoch)
                    && owned.live
                    && (owned.draining || owned.halted)
                {
                    owned.live = false;
                    owned.reports = owned.draining;
                }
            }
            Event::ActorFailed { .. }
            | Event::CommitWanted { .. }
            | Event::Tick
            | Event::Fatal
            | Event::Closed => {}
            Event::Discontinuity { partition, epoch } => {
                if let Some(owned) = self.current(*partition, *epoch) {
                    owned.halted = true;
                    owned.lane_open = false;
                }
            }
            Event::CommitDone { commit, committed } => {
                if let Some(flight) = self.in_flight.take_if(|flight| flight.commit == *commit)
                    && !refused
                {
                    for (partition, offset) in flight.offsets {
                        if let Some(owned) = self.owned.get_mut(&partition)
                            && committed.contains(&partition)
                        {
                            owned.acked = owned.acked.max(Some(offset.0 as usize));
                        }
                    }
                }
            }
            Event::Rewound { partition, to } => {
                let taken = self.intents.values().filter(|request| !request.answered);
                let taken = taken.flat_map(|request| request.takes.iter().flatten());
                let taken: Vec<_> = taken.copied().collect();
                if self.is_serving()
                    && let Some(epoch) = self.owned.get(partition).map(|owned| owned.epoch)
                    && !taken.contains(&(*partition, epoch))
                    && let Some(owned) = self.disown(*partition)
                {
                    if owned.live {
                        self.must_stop.push((*partition, owned.epoch));
                    }
                    offers.insert(*partition, *to);
                    self.rewound.push(*partition);
                }
            }
            Event::Shutdown => self.shutdown_at = self.shutdown_at.or(Some(now)),
        }
        offers
    }

    fn check(
        &mut self,
        event: &Event,
        action: &Action,
        started: &[(Partition, Epoch, Offset)],
        offers: &mut BTreeMap<Partition, Offset>,
        now: Duration,
    ) {
        match action {
            Action::Start { partition, epoch, start } => {
                self.check_start(*partition, *epoch, *start, offers.remove(partition));
            }
            Action::Drain { partition, epoch } => {
                let owned = self.current(*partition, *epoch).expect("drain of an owned epoch");
                assert!(owned.live && !owned.draining && !owned.lane_open);
                owned.draining = true;
            }
            Action::Stop { partition, epoch } => self.check_stop(event, *partition, *epoch),
            Action::CompleteAssign { intent, lanes } => {
                assert_eq!(lanes, started, "the lanes are those of the actors just started");
                let request = self.intents.get_mut(&intent.0).expect("a known intent");
                assert!(request.takes.is_none() && !std::mem::replace(&mut request.answered, true));
                for (partition, _, _) in lanes {
                    self.owned.get_mut(partition).expect("owned").lane_open = true;
                }
            }
            Action::CompleteRevoke { intent } => self.check_complete_revoke(event, intent.0, now),
            Action::CloseLane { partition, epoch } => {
                if let Some(owned) = self.current(*partition, *epoch) {
                    owned.lane_open = false;
                }
            }
            Action::Reopen { partition, epoch, start } => {
                assert!(started.contains(&(*partition, *epoch, *start)));
                let owned = self.current(*partition, *epoch).expect("reopen of an owned epoch");
                assert!(!owned.halted && !owned.lane_open && owned.live);
                owned.lane_open = true;
            }
            Action::Commit { commit, offsets } => self.check_commit(*commit, offsets, now),
            Action::Close => {
                assert!(self.shutdown_at.is_some() && !std::mem::replace(&mut self.closing, true));
                assert!(self.owned.values().all(|owned| !owned.live));
                self.settled_at_close = self.owned.values().all(Owned::is_settled);
                self.disown_all();
            }
            Action::Exit(exit) => self.check_exit(event, *exit),
            Action::Count(_) => {}
        }
    }

    fn check_start(&mut self, partition: Partition, epoch: Epoch, start: Offset, offer: Option<Offset>) {
        assert!(self.is_serving(), "a start while shutting down");
        let history = self.history.entry(partition).or_default();
        assert!(history.last().is_none_or(|last| *last < epoch), "epochs grow");
        history.push(epoch);
        assert!(self.owned.get(&partition).is_none_or(|owned| !owned.live), "two live epochs");
        let first = start.0 as usize;
        match offer {
            Some(offered) => {
                assert_eq!(start, offered);
                self.disown(partition);
                let rewound = self.rewound.iter().position(|other| *other == partition);
                let rewound = rewound.map(|index| self.rewound.remove(index)).is_some();
                let owned = Owned::new(epoch, first);
                self.owned.insert(partition, if rewound { Owned { acked: None, ..owned } } else { owned });
            }
            None => {
                let owned = self.owned.get_mut(&partition).expect("a restart of an owned partition");
                assert!(!owned.halted && !owned.draining && !owned.lane_open);
                assert_eq!(first, owned.prefix(), "a restart goes on where the last actor's work ends");
                *owned = Owned { acked: owned.acked, ..Owned::new(epoch, first) };
            }
        }
    }

    fn check_stop(&mut self, event: &Event, partition: Partition, epoch: Epoch) {
        self.cut |= self.shutdown_at.is_some() && matches!(event, Event::Tick);
        if let Some(index) = self.must_stop.iter().position(|&gone| gone == (partition, epoch)) {
            self.must_stop.remove(index);
            return;
        }
        let ending = matches!(event, Event::Fatal | Event::Closed);
        let owned = self.current(partition, epoch).expect("stop of an owned epoch");
        assert!(owned.live, "stop of an actor that has ended");
        assert!(ending || !owned.lane_open, "stop of an actor that is still delivered to");
        owned.live = false;
        owned.reports = false;
    }

    fn check_complete_revoke(&mut self, event: &Event, intent: u64, now: Duration) {
        let request = self.intents.get_mut(&intent).expect("a known intent");
        assert!(!std::mem::replace(&mut request.answered, true), "answered twice");
        let asked_at = request.asked_at;
        let excused = matches!(event, Event::Fatal | Event::Closed)
            || now >= asked_at + self.config.commit_timeout
            || self.shutdown_at.is_some_and(|at| now >= at + self.config.shutdown_timeout / 5 * 4);
        for (partition, epoch) in request.takes.clone().expect("a revocation") {
            if let Some(owned) = self.current(partition, epoch) {
                assert!(!owned.live, "revoked while its actor runs");
                assert!(excused || owned.is_settled(), "revoked without its last commit");
                self.disown(partition);
            }
        }
    }

    fn check_commit(&mut self, commit: CommitId, offsets: &[(Partition, Offset)], now: Duration) {
        assert!(!self.closing, "a commit after the close");
        assert!(!offsets.is_empty());
        if let Some(flight) = &self.in_flight {
            assert!(now >= flight.sent_at + self.config.commit_timeout, "two commits in flight");
        }
        assert!(!self.sent_commits.contains(&commit));
        for (partition, offset) in offsets {
            let owned = self.owned.get(partition).expect("a commit of a partition that is owned");
            let offset = offset.0 as usize;
            assert!(offset <= owned.prefix(), "a commit past what has ended");
            assert_eq!(offset, owned.prefix(), "a commit of what has ended by now");
            assert!(Some(offset) > owned.acked, "a commit of what is committed");
        }
        self.sent_commits.push(commit);
        let sent = offsets.iter().map(|&(partition, _)| partition).collect();
        self.in_flight = Some(InFlight { commit, offsets: offsets.to_vec(), sent, sent_at: now });
    }

    fn check_exit(&mut self, event: &Event, exit: Exit) {
        let expected = match event {
            Event::Fatal => Exit::Fatal,
            Event::Closed if !self.closing => Exit::Fatal,
            Event::Closed if self.settled_at_close && !self.cut => Exit::Clean,
            _ => Exit::CutShort,
        };
        assert_eq!(exit, expected);
        assert!(self.owned.values().all(|owned| !owned.live), "an actor outlives the exit");
        assert_eq!(self.exit.replace(exit), None, "two exits");
        self.disown_all();
    }

    /// Checks that nothing asked longer ago than the bounds, widened by `late`, is unanswered.
    pub(super) fn check_answers(&self, now: Duration, late: Duration) {
        let bound = self.config.drain_timeout + self.config.commit_timeout + late;
        for (intent, request) in &self.intents {
            assert!(
                request.answered || request.takes.is_some() && now < request.asked_at + bound,
                "intent {intent} is not answered"
            );
        }
    }
}
