//! The judges of a run (C1-C4 and C8), as pure functions from a history to what is wrong with it: an empty list is a pass.

use crate::history::{Attempt, End, History, Outcome, Position, Step};
use partita_core::Partition;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the faults of a run allow. Nothing, where nothing is said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounds {
    /// Records that are handled again: `within_redeliveries`.
    pub redeliveries: u64,
    /// Records beyond the first of one acknowledgement: `written_once`.
    pub written_twice: u64,
}

/// All judges at once.
pub fn violations(history: &History, bounds: Bounds) -> Vec<String> {
    [
        nothing_lost(&history.attempts, &history.ends),
        in_order(&history.attempts, &history.ends),
        within_redeliveries(&history.ends, bounds.redeliveries),
        written_once(&history.attempts, &history.ends, bounds.written_twice),
        commits_within_the_ended_prefix(&history.steps),
        nothing_failed_appears(&history.attempts, &history.ends),
    ]
    .concat()
}

/// C1: every acknowledged task has an end, at the place that its receipt names, with the bytes that were sent.
pub fn nothing_lost(attempts: &[Attempt], ends: &[End]) -> Vec<String> {
    let ended: HashMap<Position, &End> = ends.iter().map(|end| (end.position, end)).collect();
    let judge = |attempt: &Attempt| {
        let Outcome::Ok(position) = attempt.outcome else { return None };
        let task = format!("{} {}, acknowledged at {position:?}", attempt.key, attempt.sequence);
        match ended.get(&position) {
            None => Some(format!("C1: {task}, never ended")),
            Some(end) if end.key != attempt.key || end.digest != attempt.digest => {
                Some(format!("C1: {task}: another task ended there, of key {}", end.key))
            }
            Some(_) => None,
        }
    };
    attempts.iter().filter_map(judge).collect()
}

/// C2: within a key, the first ends follow the order in which the tasks were handed over, without a gap, and a record
/// that nobody can have written late does not come after its successors.
pub fn in_order(attempts: &[Attempt], ends: &[End]) -> Vec<String> {
    let sent = Sent::of(attempts);
    let mut wrong = Vec::new();
    for (key, ends) in by_key(ends) {
        let mut next = 0;
        let mut first_position = BTreeMap::new();
        let mut partition = None;
        for end in ends {
            let Some(task) = sent.task(key, &end.digest) else {
                wrong.push(format!("C2: {key}: at {:?} something ended that was never sent", end.position));
                continue;
            };
            if *partition.get_or_insert(end.position.partition) != end.position.partition {
                wrong.push(format!("C2: {key}: handled in two partitions, at {:?}", end.position));
            }
            // Again: the same record redelivered, or the task's second record. Both are C3's.
            if first_position.contains_key(&task.sequence) {
                continue;
            }
            first_position.insert(task.sequence, end.position);
            if task.sequence < next {
                wrong.push(format!("C2: {key} {}: ended after its successor", task.sequence));
            }
            for skipped in next..task.sequence {
                if sent.acknowledged(key, skipped) && !first_position.contains_key(&skipped) {
                    wrong.push(format!("C2: {key} {skipped}: {} ended before it", task.sequence));
                }
            }
            next = next.max(task.sequence + 1);
        }
    }
    wrong
}

/// C3: records were handled again no more often than the faults of the run allow.
pub fn within_redeliveries(ends: &[End], bound: u64) -> Vec<String> {
    let distinct: BTreeSet<Position> = ends.iter().map(|end| end.position).collect();
    let again = (ends.len() - distinct.len()) as u64;
    if again > bound { vec![format!("C3: {again} redeliveries, allowed are {bound}")] } else { Vec::new() }
}

/// C3, of writing: the log has a task once for each acknowledged and each unknown attempt, where none was refused; more often only
/// where a producer lost a partition's leader, and no more often than it had tasks in flight. See INVARIANTS.md, 10.
pub fn written_once(attempts: &[Attempt], ends: &[End], bound: u64) -> Vec<String> {
    let twice: Vec<_> =
        surplus(attempts, ends).into_iter().filter(|surplus| surplus.task.failed == 0).collect();
    if twice.iter().map(Surplus::records).sum::<u64>() <= bound {
        return Vec::new();
    }
    twice.iter().map(|surplus| format!("C3: allowed are {bound}: {surplus}")).collect()
}

/// C4: what is committed never decreases and never goes past a task that has not ended.
pub fn commits_within_the_ended_prefix(steps: &[Step]) -> Vec<String> {
    let mut ended: BTreeMap<Partition, BTreeSet<u64>> = BTreeMap::new();
    let mut prefix: BTreeMap<Partition, u64> = BTreeMap::new();
    let mut committed: BTreeMap<Partition, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for step in steps {
        match *step {
            Step::Ended(position) => {
                let prefix = prefix.entry(position.partition).or_default();
                let ended = ended.entry(position.partition).or_default();
                ended.insert(position.offset.0);
                while ended.remove(prefix) {
                    *prefix += 1;
                }
            }
            Step::Committed(position) => {
                let prefix = prefix.get(&position.partition).copied().unwrap_or(0);
                let before = committed.insert(position.partition, position.offset.0).unwrap_or(0);
                if position.offset.0 > prefix {
                    wrong.push(format!("C4: committed {position:?}, but offset {prefix} had not ended"));
                }
                if position.offset.0 < before {
                    wrong.push(format!("C4: committed {position:?} after {before}"));
                }
            }
        }
    }
    wrong
}

/// C8: what was refused for certain is not in the log: a task is there at most once for each 202 and each unknown outcome.
pub fn nothing_failed_appears(attempts: &[Attempt], ends: &[End]) -> Vec<String> {
    let refused = surplus(attempts, ends).into_iter().filter(|surplus| surplus.task.failed > 0);
    refused.map(|surplus| format!("C8: {surplus}: a refused one was written")).collect()
}

/// A task that is in the log more often than its acknowledged and unknown attempts explain.
struct Surplus {
    key: String,
    task: SentTask,
    places: BTreeSet<Position>,
}

impl Surplus {
    fn records(&self) -> u64 {
        (self.places.len() - self.task.ok - self.task.unknown) as u64
    }
}

impl std::fmt::Display for Surplus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, task: SentTask { sequence, ok, unknown, failed }, places } = self;
        write!(
            f,
            "{key} {sequence}: records at {places:?} for {ok} acknowledged, {unknown} unknown and {failed} refused attempts"
        )
    }
}

fn surplus(attempts: &[Attempt], ends: &[End]) -> Vec<Surplus> {
    let sent = Sent::of(attempts);
    let mut found = Vec::new();
    for (key, ends) in by_key(ends) {
        let mut places: BTreeMap<&str, BTreeSet<Position>> = BTreeMap::new();
        for end in ends {
            places.entry(&end.digest).or_default().insert(end.position);
        }
        for (digest, places) in places {
            let Some(task) = sent.task(key, digest) else { continue };
            if places.len() > task.ok + task.unknown {
                found.push(Surplus { key: key.into(), task, places });
            }
        }
    }
    found
}

/// The clients' view, by task.
struct Sent<'a> {
    by_digest: HashMap<(&'a str, &'a str), SentTask>,
    acknowledged: BTreeSet<(&'a str, u64)>,
}

#[derive(Default, Clone, Copy)]
struct SentTask {
    sequence: u64,
    ok: usize,
    unknown: usize,
    failed: usize,
}

impl<'a> Sent<'a> {
    fn of(attempts: &'a [Attempt]) -> Self {
        let mut sent = Self { by_digest: HashMap::new(), acknowledged: BTreeSet::new() };
        for attempt in attempts {
            let task = sent.by_digest.entry((&attempt.key, &attempt.digest)).or_default();
            task.sequence = attempt.sequence;
            match attempt.outcome {
                Outcome::Ok(_) => {
                    task.ok += 1;
                    sent.acknowledged.insert((&attempt.key, attempt.sequence));
                }
                Outcome::Unknown => task.unknown += 1,
                Outcome::Failed => task.failed += 1,
            }
        }
        sent
    }

    fn task(&self, key: &str, digest: &str) -> Option<SentTask> {
        self.by_digest.get(&(key, digest)).copied()
    }

    fn acknowledged(&self, key: &str, sequence: u64) -> bool {
        self.acknowledged.contains(&(key, sequence))
    }
}

fn by_key(ends: &[End]) -> BTreeMap<&str, Vec<&End>> {
    let mut keys: BTreeMap<&str, Vec<&End>> = BTreeMap::new();
    for end in ends {
        keys.entry(&end.key).or_default().push(end);
    }
    keys
}

#[cfg(test)]
#[path = "checkers_tests.rs"]
mod tests;
