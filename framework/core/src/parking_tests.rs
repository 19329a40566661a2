//! One partition through owners that come, fail, and write too late, against what every reader of the promise expects: the first
//! ends of a key's tasks follow the order of the tasks, no task is forgotten, and none runs again whose end is in the journal or
//! committed.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const KEYS: u64 = 3;

fn key_of(offset: u64) -> u64 {
    // Bursts of one key, so that several of a key are parked one behind the other.
    (offset / 2) % KEYS
}

#[derive(Debug, Clone, Copy)]
struct Record {
    epoch: Epoch,
    offset: u64,
    noted: Noted,
}

/// What an owner waits for before it goes on.
#[derive(Debug, Clone, Copy)]
struct InFlight(Record);

struct Owner {
    epoch: Epoch,
    next: u64,
    parking: Parking<u64>,
    /// The last task of each key that this owner has begun.
    begun: BTreeMap<u64, u64>,
}

struct World {
    journal: Vec<Record>,
    committed: (u64, Mark),
    owner: Owner,
    epochs: u64,
    /// One past the last task that any owner has taken.
    seen: u64,
    /// Appends of former owners that may still arrive.
    late: Vec<Record>,
    /// For each key, the tasks in the order of their first ends.
    ends: Vec<Vec<u64>>,
    /// Tasks whose end is durable.
    over: BTreeSet<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The owner takes its next task, which succeeds or fails.
    Deliver { fails: bool, rejected: bool },
    /// The first parked task of a key is tried again.
    Redrive { key: u64, fails: bool },
    /// The operator gives a key's first parked task up.
    Drop { key: u64 },
    /// What has ended is committed, as far as it is known: the last ends may still be on their way.
    Commit { behind: u64 },
    /// The owner is gone, in the middle of nothing.
    Replace,
    /// The owner takes its next task or redrives one, and is gone while the journal's answer is on its way. `arrives`: 0 before the
    /// next owner reads, 1 some time later, 2 never.
    CutShort { redrive: Option<u64>, arrives: u8 },
    /// An append of a former owner arrives.
    Late,
    /// The group is deleted and made again: its offsets are gone, and its generations begin anew.
    Reset,
}

impl World {
    fn new() -> Self {
        let owner = Owner {
            epoch: Epoch(1),
            next: 0,
            parking: Parking::new(Mark::default(), Offset(0)),
            begun: BTreeMap::new(),
        };
        let mut world = Self {
            journal: Vec::new(),
            committed: (0, Mark::default()),
            owner,
            epochs: 1,
            seen: 0,
            late: Vec::new(),
            ends: vec![Vec::new(); KEYS as usize],
            over: BTreeSet::new(),
        };
        let _ = world.owner.parking.claim(Position(0), Epoch(1));
        world
    }

    fn append(&mut self, record: Record) -> Position {
        self.journal.push(record);
        Position(self.journal.len() as u64 - 1)
    }

    /// One owner begins the tasks of a key in their order, whatever it does again.
    fn begin(&mut self, offset: u64) {
        let before = self.owner.begun.insert(key_of(offset), offset);
        assert!(before <= Some(offset), "task {offset} is begun after task {before:?} of its key");
    }

    fn ended(&mut self, offset: u64) {
        self.begin(offset);
        assert!(!self.over.contains(&offset), "task {offset} runs again");
        let ends = &mut self.ends[key_of(offset) as usize];
        if !ends.contains(&offset) {
            ends.push(offset);
        }
    }

    fn parks(&self, offset: u64) -> Record {
        Record { epoch: self.owner.epoch, offset, noted: Noted::Parked(Weight::default()) }
    }

    fn closes(&self, offset: u64) -> Record {
        Record { epoch: self.owner.epoch, offset, noted: Noted::Closed }
    }

    /// What the next task leads to; `None` where it simply ends.
    fn deliver(&mut self, fails: bool, rejected: bool) -> Option<InFlight> {
        let offset = self.owner.next;
        self.seen = self.seen.max(offset + 1);
        match self.owner.parking.judge(&key_of(offset), Offset(offset)) {
            Verdict::Skip => None,
            Verdict::Park => Some(InFlight(self.parks(offset))),
            Verdict::Run if fails && !rejected => {
                self.begin(offset);
                Some(InFlight(self.parks(offset)))
            }
            Verdict::Run if rejected => {
                self.ended(offset);
                Some(InFlight(self.closes(offset)))
            }
            Verdict::Run => {
                self.ended(offset);
                None
            }
        }
    }

    /// The journal has answered.
    fn stored(&mut self, InFlight(record): InFlight) {
        let position = self.append(record);
        let (key, offset) = (key_of(record.offset), Offset(record.offset));
        match record.noted {
            Noted::Parked(weight) => self.owner.parking.parked(key, offset, Entry { position, weight }),
            Noted::Closed => {
                self.over.insert(record.offset);
                self.owner.parking.closed(&key, offset, position, record.epoch);
            }
        }
    }

    fn replace(&mut self) {
        self.epochs += 1;
        let epoch = Epoch(self.epochs);
        let (start, mark) = self.committed.clone();
        let mut parking = Parking::new(mark, Offset(start));
        for (at, record) in self.journal.iter().enumerate().skip(parking.unread().0 as usize) {
            let key = key_of(record.offset);
            parking.read(Position(at as u64), record.epoch, key, Offset(record.offset), record.noted);
        }
        let assigned = epoch;
        let epoch = parking.claim(Position(self.journal.len() as u64), epoch);
        if epoch != assigned {
            self.committed = (start, parking.mark(Offset(start)));
        }
        self.owner = Owner { epoch, next: start, parking, begun: BTreeMap::new() };
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Deliver { fails, rejected } => {
                if let Some(answer) = self.deliver(fails, rejected) {
                    self.stored(answer);
                }
                self.owner.next += 1;
                self.owner.parking.passed(Offset(self.owner.next));
            }
            Step::Redrive { key, fails } => {
                if let Some((offset, _)) = self.owner.parking.redrivable(&key) {
                    self.begin(offset.0);
                    if fails {
                        return;
                    }
                    self.ended(offset.0);
                    self.stored(InFlight(self.closes(offset.0)));
                }
            }
            Step::Drop { key } => {
                if let Some((offset, _)) = self.owner.parking.redrivable(&key) {
                    self.ended(offset.0);
                    self.stored(InFlight(self.closes(offset.0)));
                }
            }
            Step::Commit { behind } => {
                let next = self.owner.next.saturating_sub(behind).max(self.committed.0);
                self.committed = (next, self.owner.parking.mark(Offset(next)));
                let parking = &self.owner.parking;
                let parked = |offset: &u64| parking.get(&key_of(*offset), Offset(*offset)).is_some();
                self.over.extend((0..next).filter(|offset| !parked(offset)));
            }
            Step::Replace => self.replace(),
            Step::CutShort { redrive, arrives } => {
                let answer = match redrive {
                    None => self.deliver(true, false),
                    Some(key) => self.owner.parking.redrivable(&key).map(|(offset, _)| {
                        self.ended(offset.0);
                        InFlight(self.closes(offset.0))
                    }),
                };
                match (answer, arrives) {
                    (Some(InFlight(record)), 0) => {
                        self.append(record);
                    }
                    (Some(InFlight(record)), 1) => self.late.push(record),
                    _ => {}
                }
                self.replace();
            }
            Step::Reset => {
                (self.committed, self.epochs) = ((0, Mark::default()), 0);
                self.late.clear();
                // Everything is delivered again, and what is not in the journal is done again.
                self.over.clear();
                self.replace();
            }
            Step::Late => {
                if let Some(record) = self.late.pop() {
                    self.append(record);
                }
            }
        }
    }

    fn check(&self) {
        for ends in &self.ends {
            assert!(ends.is_sorted(), "a later task ended before an earlier one of its key: {ends:?}");
        }
    }

    /// Everything is delivered and redriven, by an owner that reads everything again: nothing is missing then.
    fn settle(&mut self) {
        let last = self.seen + 2;
        self.step(Step::Replace);
        while self.owner.next < last {
            self.step(Step::Deliver { fails: false, rejected: false });
        }
        for key in 0..KEYS {
            while self.owner.parking.redrivable(&key).is_some() {
                self.step(Step::Redrive { key, fails: false });
                self.check();
            }
        }
        assert!(self.owner.parking.parked_tasks() == 0);
        for key in 0..KEYS {
            let expected: Vec<u64> = (0..last).filter(|&offset| key_of(offset) == key).collect();
            let mut found = self.ends[key as usize].clone();
            found.retain(|offset| *offset < last);
            assert_eq!(found, expected, "the tasks of key {key} that ended");
        }
        self.step(Step::Commit { behind: 0 });
        let mark = &self.committed.1;
        assert_eq!(mark.from, Position(self.journal.len() as u64), "nothing of the journal matters any more");
        assert_eq!(mark.claims.len(), 1, "claims that can void nothing any more are forgotten");
    }
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop::bool::weighted(0.4), prop::bool::weighted(0.1))
            .prop_map(|(fails, rejected)| Step::Deliver { fails, rejected }),
        3 => (0..KEYS, prop::bool::weighted(0.3)).prop_map(|(key, fails)| Step::Redrive { key, fails }),
        1 => (0..KEYS).prop_map(|key| Step::Drop { key }),
        2 => (0..4_u64).prop_map(|behind| Step::Commit { behind }),
        1 => Just(Step::Replace),
        2 => (prop::option::of(0..KEYS), 0..3_u8)
            .prop_map(|(redrive, arrives)| Step::CutShort { redrive, arrives }),
        1 => Just(Step::Late),
        1 => prop::bool::weighted(0.3).prop_map(|resets| if resets { Step::Reset } else { Step::Late }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn no_history_of_owners_loses_or_reorders_a_parked_key(steps in prop::collection::vec(steps(), 0..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
        world.settle();
    }
}

fn entry(position: u64) -> Entry {
    Entry { position: Position(position), weight: Weight::default() }
}

fn owner(start: u64) -> Parking<&'static str> {
    let mut parking = Parking::new(Mark::default(), Offset(start));
    parking.claim(Position(0), Epoch(1));
    parking
}

#[test]
fn a_parked_key_holds_its_later_tasks_and_no_other_key() {
    let mut parking = owner(0);
    parking.parked("a", Offset(3), entry(0));
    assert_eq!(parking.judge(&"a", Offset(5)), Verdict::Park);
    assert_eq!(parking.judge(&"b", Offset(6)), Verdict::Run);
    parking.parked("a", Offset(5), entry(1));
    parking.closed(&"a", Offset(3), Position(2), Epoch(1));
    assert_eq!(parking.judge(&"a", Offset(7)), Verdict::Park, "one is still parked");
    parking.closed(&"a", Offset(5), Position(3), Epoch(1));
    assert_eq!(parking.judge(&"a", Offset(7)), Verdict::Run);
}

#[test]
fn what_is_delivered_again_is_not_parked_or_run_twice() {
    let mut parking = owner(0);
    parking.parked("a", Offset(3), entry(0));
    parking.parked("a", Offset(4), entry(1));
    parking.closed(&"a", Offset(3), Position(2), Epoch(1));
    assert_eq!(parking.judge(&"a", Offset(3)), Verdict::Skip, "it has ended");
    assert_eq!(parking.judge(&"a", Offset(4)), Verdict::Skip, "it is parked");
    assert_eq!(parking.judge(&"a", Offset(2)), Verdict::Run, "it is before everything that is parked");
}

#[test]
fn a_former_owners_late_record_is_void_and_stays_so() {
    let mut parking = owner(0);
    let mark = parking.mark(Offset(0));
    assert_eq!(mark, Mark { from: Position(0), claims: vec![Claim { at: Position(0), epoch: Epoch(1) }] });
    let mut next = Parking::<&str>::new(mark, Offset(0));
    next.claim(Position(0), Epoch(2));
    let mark = next.mark(Offset(9));
    let late = |mark: &Mark, epoch| {
        let mut owner = Parking::new(mark.clone(), Offset(9));
        owner.read(Position(0), Epoch(1), "a", Offset(3), Noted::Parked(Weight::default()));
        owner.read(Position(1), Epoch(2), "b", Offset(4), Noted::Parked(Weight::default()));
        owner.claim(Position(2), Epoch(epoch));
        let mark = owner.mark(Offset(9));
        (owner.keys().map(|(key, _)| *key).collect::<Vec<_>>(), mark)
    };
    let (parked, mark) = late(&mark, 3);
    assert_eq!(parked, ["b"]);
    assert_eq!(mark.from, Position(1));
    assert_eq!(late(&Mark { from: Position(0), ..mark }, 4).0, ["b"]);
}
