//! Front doors that crash, stall and hear late, all asked for the same request again and again: it is stored once at most, and
//! everybody who is told where is told the same.

use super::*;
use proptest::prelude::*;

const DOORS: usize = 2;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const TIMES: RequestTimes = RequestTimes { claim: ms(10), append: ms(30), margin: ms(5) };

#[derive(Debug, Clone)]
enum Step {
    /// A client asks a door to store this payload.
    Ask {
        door: usize,
        digest: u8,
    },
    Pass(u64),
    /// A door reads so many records of the journal.
    Read {
        door: usize,
        count: usize,
    },
    /// The attempt goes on, if it can. What it writes lands so much later, or never; what it hears of an append may be nothing.
    Go {
        attempt: usize,
        delay: u64,
        lost: bool,
        heard: bool,
    },
    /// A door starts anew: it reads the journal from its start.
    Crash {
        door: usize,
    },
    /// The log shows its readers nothing new from now on, and soon takes nothing either; or it does both again.
    Freeze(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let door = 0..DOORS;
    let step = prop_oneof![
        3 => (door.clone(), prop_oneof![4 => Just(0_u8), 1 => Just(1)]).prop_map(|(door, digest)| Step::Ask { door, digest }),
        4 => prop_oneof![2 => 0..12_u64, 1 => 0..60_u64].prop_map(Step::Pass),
        6 => (door.clone(), 1..5_usize).prop_map(|(door, count)| Step::Read { door, count }),
        14 => (any::<prop::sample::Index>(), prop_oneof![3 => Just(0_u64), 1 => 0..31_u64, 1 => Just(30)], prop::bool::weighted(0.2), prop::bool::weighted(0.7))
            .prop_map(|(attempt, delay, lost, heard)| Step::Go { attempt: attempt.index(1 << 20), delay, lost, heard }),
        1 => door.prop_map(|door| Step::Crash { door }),
        1 => any::<bool>().prop_map(Step::Freeze),
    ];
    prop::collection::vec(step, 1..200)
}

#[derive(Debug, Clone, Copy)]
enum Write {
    Note(RequestNote),
    Task(ClaimId, u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asked,
    /// Waits to read its own claim back.
    Claiming(ClaimId, Duration),
    /// Waits for its append to land, at the latest by then.
    Appending(ClaimId, Duration),
    Over,
}

struct Attempt {
    door: usize,
    digest: u8,
    phase: Phase,
}

#[derive(Default, Clone, Copy)]
struct Door {
    cursor: usize,
    state: RequestState,
    /// When the state was read.
    since: Duration,
}

#[derive(Default)]
struct World {
    now: Duration,
    journal: Vec<RequestNote>,
    log: Vec<(ClaimId, u8)>,
    /// Since when the log shows nothing new, and how much it shows.
    frozen: Option<(Duration, usize)>,
    refused: Vec<ClaimId>,
    under_way: Vec<(Duration, Write)>,
    doors: [Door; DOORS],
    attempts: Vec<Attempt>,
    claims: u128,
    /// What clients were told.
    told: Vec<(u8, Offset)>,
}

impl World {
    fn write(&mut self, write: Write, delay: u64, lost: bool) {
        if !lost {
            self.under_way.push((self.now + ms(delay), write));
        }
    }

    fn land(&mut self) {
        let now = self.now;
        self.under_way.sort_by_key(|(at, _)| *at);
        while self.under_way.first().is_some_and(|(at, _)| *at <= now) {
            match self.under_way.remove(0).1 {
                Write::Note(note) => self.journal.push(note),
                // A frozen log takes what comes for a while, as long as it does not know that too few have it.
                Write::Task(claim, _)
                    if self.frozen.is_some_and(|(since, _)| now >= since + TIMES.margin) =>
                {
                    self.refused.push(claim);
                }
                Write::Task(claim, digest) => self.log.push((claim, digest)),
            }
        }
    }

    /// Where a claim's record is, as far as readers can see.
    fn find(&self, id: ClaimId) -> Option<Offset> {
        let shown = self.frozen.map_or(self.log.len(), |(_, shown)| shown);
        self.log[..shown].iter().position(|(claim, _)| *claim == id).map(|offset| Offset(offset as u64))
    }

    fn read(&mut self, door: usize, count: usize) {
        let at = &mut self.doors[door];
        for note in self.journal.iter().skip(at.cursor).take(count) {
            let state = at.state.after(*note);
            if state != at.state {
                at.since = self.now;
            }
            at.state = state;
            at.cursor += 1;
        }
    }

    fn go(&mut self, index: usize, delay: u64, lost: bool, heard: bool) {
        let Attempt { door, digest, phase } = self.attempts[index];
        let Door { state, since, .. } = self.doors[door];
        let mut next = phase;
        match phase {
            Phase::Asked => match state.judge([digest; 16], self.now - since, &TIMES) {
                RequestVerdict::Claim => next = self.claim(digest, None, delay, lost),
                RequestVerdict::InFlight => {}
                RequestVerdict::Look(held, before) => {
                    match self.find(held.id).or_else(|| self.find(before?.id)) {
                        // What was not found may be there: who looks has to see that the log shows what it has.
                        None if self.frozen.is_some() => {}
                        Some(offset) => {
                            let note = RequestNote::Stored(held.digest, offset);
                            self.write(Write::Note(note), delay, lost);
                        }
                        None => next = self.claim(digest, Some(held.id), delay, lost),
                    }
                }
                RequestVerdict::Repeated(offset) => {
                    self.told.push((digest, offset));
                    next = Phase::Over;
                }
                RequestVerdict::Reused => next = Phase::Over,
            },
            Phase::Claiming(id, sent) if self.now - sent > TIMES.claim => {
                self.write(Write::Note(RequestNote::Released(id)), delay, lost);
                next = Phase::Over;
            }
            Phase::Claiming(id, _) if state.is_held_by(id) => {
                self.write(Write::Task(id, digest), delay, lost);
                next = Phase::Appending(id, self.now + TIMES.append);
            }
            Phase::Claiming(..) => {}
            Phase::Appending(id, _) if heard && self.refused.contains(&id) => {
                self.write(Write::Note(RequestNote::Released(id)), delay, lost);
                next = Phase::Over;
            }
            Phase::Appending(id, until) => match self.find(id) {
                Some(offset) if heard => {
                    self.told.push((digest, offset));
                    self.write(Write::Note(RequestNote::Stored([digest; 16], offset)), delay, lost);
                    next = Phase::Over;
                }
                _ if self.now > until => next = Phase::Over,
                _ => {}
            },
            Phase::Over => {}
        }
        self.attempts[index].phase = next;
    }

    fn claim(&mut self, digest: u8, replaces: Option<ClaimId>, delay: u64, lost: bool) -> Phase {
        self.claims += 1;
        let id = ClaimId(self.claims);
        let claim = RequestClaim { id, digest: [digest; 16], from: Offset(self.log.len() as u64), at_ms: 0 };
        self.write(Write::Note(RequestNote::Claimed(claim, replaces)), delay, lost);
        Phase::Claiming(id, self.now)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_request_is_stored_once_whoever_crashes_or_hears_late(steps in steps()) {
        let mut world = World::default();
        for step in steps {
            match step {
                Step::Ask { door, digest } => world.attempts.push(Attempt { door, digest, phase: Phase::Asked }),
                Step::Pass(time) => world.now += ms(time),
                Step::Read { door, count } => world.read(door, count),
                Step::Go { attempt, delay, lost, heard } if !world.attempts.is_empty() => {
                    let index = attempt % world.attempts.len();
                    world.go(index, delay, lost, heard);
                }
                Step::Go { .. } => {}
                Step::Freeze(true) => _ = world.frozen.get_or_insert((world.now, world.log.len())),
                Step::Freeze(false) => world.frozen = None,
                Step::Crash { door } => {
                    world.doors[door] = Door::default();
                    world.doors[door].since = world.now;
                    world.attempts.retain(|attempt| attempt.door != door);
                }
            }
            world.land();
            prop_assert!(world.log.len() <= 1, "stored twice: {:?}", world.log);
            for (digest, offset) in &world.told {
                prop_assert_eq!((*offset, world.log[0].1), (Offset(0), *digest));
            }
        }
    }
}

/// Who was deceived about a claim does not free its request: it is looked for again.
#[test]
fn a_claim_in_anothers_place_that_is_released_gives_the_place_back() {
    let claim = |id| RequestClaim { id: ClaimId(id), digest: [0; 16], from: Offset(0), at_ms: 0 };
    let (first, second) = (claim(1), claim(2));
    let state = RequestState::Free
        .after(RequestNote::Claimed(first, None))
        .after(RequestNote::Claimed(second, Some(first.id)));
    assert_eq!(state, RequestState::Claimed(second, Some(first)));
    // Cut short itself, it is not the only one that is looked for.
    let verdict = state.judge([0; 16], TIMES.settled_after(), &TIMES);
    assert_eq!(verdict, RequestVerdict::Look(second, Some(first)));
    let state = state.after(RequestNote::Released(second.id));
    assert_eq!(state.judge([0; 16], TIMES.settled_after(), &TIMES), RequestVerdict::Look(first, None));
    assert_eq!(state.after(RequestNote::Released(second.id)), state);
    assert_eq!(state.after(RequestNote::Released(first.id)), RequestState::Free);
}

/// The simulation stores something, and through every way there is.
#[test]
fn a_claim_that_was_cut_short_is_taken_over_and_one_that_was_not_is_found() {
    for stored in [true, false] {
        let mut world = World { now: ms(1000), ..World::default() };
        for door in [0, 1] {
            world.attempts.push(Attempt { door, digest: 0, phase: Phase::Asked });
        }
        world.go(0, 0, false, true);
        world.land();
        world.read(0, 9);
        world.go(0, 0, !stored, false);
        world.land();
        world.read(1, 9);
        world.go(1, 0, false, true);
        assert_eq!(world.attempts[1].phase, Phase::Asked, "it is in flight");
        world.now += TIMES.settled_after();
        for _ in 0..3 {
            world.go(1, 0, false, true);
            world.land();
            world.read(1, 9);
        }
        world.go(1, 0, false, true);
        assert_eq!((world.log.len(), &world.told[..]), (1, &[(0, Offset(0))][..]), "{stored}");
    }
}
