//! Which keys are parked, and what that means for their tasks.
//!
//! A task that is parked has ended, but its key has not gone on: every later task of the key is parked behind it, until each of
//! them is redriven or dropped, in order. What is known of a partition's parked tasks is the sum of its *journal*, where each
//! parked task and each end of one is a record. [`Parking`] is that sum. See ADR 14 for the argument.

use crate::{Epoch, Offset};
use std::collections::{BTreeMap, btree_map};

/// The place of a record in its partition's parking journal. A later record's is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// The place after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// From this place of the journal on, records of a smaller epoch are void: a former owner's, which came too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// How far the owner had read the journal when it began.
    pub at: Position,
    /// The owner's epoch.
    pub epoch: Epoch,
}

/// What the next owner has to know to read the journal. It is committed with the offset that it was made for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mark {
    /// Nothing before this place matters any more.
    pub from: Position,
    /// The claims that may still void a record, in order.
    pub claims: Vec<Claim>,
}

/// What a record of the journal says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It is parked.
    Parked(Weight),
    /// It was parked and has reached its end: redriven with success, rejected, or dropped. Also a task that was rejected at once.
    Closed,
}

/// What a parked task weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// The bytes of its record's value.
    pub value: u64,
    /// The bytes that its payload is decompressed to; 0 where it is not compressed.
    pub decompressed: u64,
}

/// A parked task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where its record is in the journal.
    pub position: Position,
    /// What it weighs.
    pub weight: Weight,
}

/// What becomes of a task that comes from the task topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Its turn has come.
    Run,
    /// An earlier task of its key is parked: park it behind.
    Park,
    /// It is parked, or was and has ended: this is a redelivery.
    Skip,
}

/// The parked tasks of one partition, as its owner knows them.
#[derive(Debug, Clone)]
pub struct Parking<K> {
    keys: BTreeMap<K, BTreeMap<Offset, Entry>>,
    /// The open entries' places, to find the first.
    places: BTreeMap<Position, Offset>,
    /// Tasks that have ended in the journal and may be delivered again.
    ended: BTreeMap<Offset, (Position, Epoch)>,
    /// Each with whether a record was found that it voids.
    claims: Vec<(Claim, bool)>,
    /// The epoch of the last record that counts.
    latest: Epoch,
    from: Position,
    end: Position,
    /// The next offset to come from the task topic: all before it have ended under this owner, or before.
    next: Offset,
    /// No task before this comes again: it was committed, or is being.
    settled: Offset,
}

impl<K: Ord + Clone> Parking<K> {
    /// What an owner knows whose first task is at `start`, before it has read the journal from `mark` on.
    pub fn new(mark: Mark, start: Offset) -> Self {
        Self {
            keys: BTreeMap::new(),
            places: BTreeMap::new(),
            ended: BTreeMap::new(),
            claims: mark.claims.into_iter().map(|claim| (claim, false)).collect(),
            latest: Epoch::default(),
            from: mark.from,
            end: mark.from,
            next: start,
            settled: start,
        }
    }

    /// Where the journal is to be read next.
    pub fn unread(&self) -> Position {
        self.end
    }

    /// Takes what the journal's next record says. To be called for each in order, before `claim`.
    pub fn read(&mut self, position: Position, epoch: Epoch, key: K, offset: Offset, noted: Noted) {
        self.end = self.end.max(position.next());
        let in_force = self.claims.iter_mut().rev().find(|(claim, _)| claim.at <= position);
        if let Some((_, voids)) = in_force.filter(|(claim, _)| epoch < claim.epoch) {
            *voids = true;
            return;
        }
        // Whatever a later owner wrote before it says the same as a claim.
        if epoch < self.latest {
            return;
        }
        self.latest = epoch;
        match noted {
            Noted::Parked(weight) => {
                // A later owner had it again, and has parked it anew.
                if self.ended.get(&offset).is_some_and(|(_, closed)| *closed < epoch) {
                    self.ended.remove(&offset);
                }
                self.parked(key, offset, Entry { position, weight });
            }
            Noted::Closed => self.closed(&key, offset, position, epoch),
        }
    }

    /// The journal is read up to `end`: from now on it belongs to the owner of `epoch`. Returns the epoch that its records are to carry:
    /// greater than any before, also where the group's generations have begun anew. If it is not `epoch`, then nothing may be written
    /// before the mark is committed: the next owner could not know of it otherwise.
    pub fn claim(&mut self, end: Position, epoch: Epoch) -> Epoch {
        let claimed = self.claims.iter().map(|(claim, _)| claim.epoch).max().unwrap_or_default();
        let before = claimed.max(self.latest);
        let epoch = if epoch > before { epoch } else { Epoch(before.0 + 1) };
        self.latest = epoch;
        self.end = self.end.max(end);
        self.claims.retain(|(_, voids)| *voids);
        self.claims.push((Claim { at: self.end, epoch }, false));
        let next = self.next;
        self.ended.retain(|offset, _| *offset >= next);
        epoch
    }

    /// Whether every task may run without being looked at.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ended.is_empty()
    }

    /// What becomes of the task at `offset`, which is the next to come from the task topic.
    pub fn judge(&self, key: &K, offset: Offset) -> Verdict {
        if self.ended.contains_key(&offset) {
            return Verdict::Skip;
        }
        match self.keys.get(key) {
            None => Verdict::Run,
            Some(entries) if entries.contains_key(&offset) => Verdict::Skip,
            // It comes again because its end was not committed, and it is before everything that is parked.
            Some(entries) if entries.first_key_value().is_some_and(|(first, _)| offset < *first) => {
                Verdict::Run
            }
            Some(_) => Verdict::Park,
        }
    }

    /// The journal has the task.
    pub fn parked(&mut self, key: K, offset: Offset, entry: Entry) {
        self.end = self.end.max(entry.position.next());
        if self.ended.contains_key(&offset) {
            return;
        }
        // A second record of the same task says nothing new.
        if let btree_map::Entry::Vacant(vacant) = self.keys.entry(key).or_default().entry(offset) {
            vacant.insert(entry);
            self.places.insert(entry.position, offset);
        }
    }

    /// The journal has, at `position` and from the owner of `epoch`, the end of a task, parked or not. It is remembered until the task
    /// cannot come again.
    pub fn closed(&mut self, key: &K, offset: Offset, position: Position, epoch: Epoch) {
        self.end = self.end.max(position.next());
        let entries = self.keys.get_mut(key);
        let entry = entries.and_then(|entries| entries.remove(&offset));
        if self.keys.get(key).is_some_and(BTreeMap::is_empty) {
            self.keys.remove(key);
        }
        if let Some(entry) = entry {
            self.places.remove(&entry.position);
        }
        if offset >= self.settled {
            self.ended.insert(offset, (entry.map_or(position, |entry| entry.position), epoch));
        }
    }

    /// Every task before `next` has ended.
    pub fn passed(&mut self, next: Offset) {
        self.next = self.next.max(next);
    }

    /// The only parked task of a key that may be redriven now: its first, once every task before it has ended. That was so when it was
    /// parked; to an owner that begins before it, earlier tasks of the key may come again.
    pub fn redrivable(&self, key: &K) -> Option<(Offset, Entry)> {
        let first = self.keys.get(key)?.first_key_value();
        first.filter(|(offset, _)| **offset < self.next).map(|(&offset, &entry)| (offset, entry))
    }

    /// A parked task.
    pub fn get(&self, key: &K, offset: Offset) -> Option<Entry> {
        self.keys.get(key)?.get(&offset).copied()
    }

    /// The parked keys in order, each with its tasks.
    pub fn keys(&self) -> impl Iterator<Item = (&K, &BTreeMap<Offset, Entry>)> {
        self.keys.iter()
    }

    /// The parked tasks of a key.
    pub fn of(&self, key: &K) -> Option<&BTreeMap<Offset, Entry>> {
        self.keys.get(key)
    }

    /// How many keys are parked.
    pub fn parked_keys(&self) -> usize {
        self.keys.len()
    }

    /// How many tasks are parked.
    pub fn parked_tasks(&self) -> usize {
        self.places.len()
    }

    /// The mark to commit with `committable`, the next offset to read. What is before that is not delivered again.
    pub fn mark(&mut self, committable: Offset) -> Mark {
        let mark = self.mark_for(committable);
        self.ended = self.ended.split_off(&committable);
        self.settled = self.settled.max(committable);
        self.from = mark.from;
        self.claims.drain(..self.claims.len() - mark.claims.len());
        mark
    }

    /// The same, and nothing is forgotten yet.
    pub fn mark_for(&self, committable: Offset) -> Mark {
        let open = self.places.keys().next().copied();
        let ended = self.ended.range(committable..).map(|(_, (position, _))| *position).min();
        let from = self.from.max(open.into_iter().chain(ended).min().unwrap_or(self.end));
        // A claim's reach ends where the next begins.
        let passed = self.claims.iter().skip(1).take_while(|(next, _)| next.at <= from).count();
        Mark { from, claims: self.claims.iter().skip(passed).map(|(claim, _)| *claim).collect() }
    }
}

#[cfg(test)]
#[path = "parking_tests.rs"]
mod tests;
