//! What the clients of a run know: every attempt is entered before it is made, so one that is never answered stays unknown.

use crate::history::{Attempt, Outcome, Position};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// The clients' side of a history. Cheap to clone; the clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Entry>>>);

/// An attempt, and when it was made and answered.
#[derive(Debug, Clone)]
struct Entry {
    attempt: Attempt,
    made: SystemTime,
    answered: Option<SystemTime>,
}

/// An attempt that was entered and not answered yet.
#[derive(Debug)]
#[must_use]
pub struct Invocation(usize);

impl Ledger {
    /// Enters an attempt that is about to be made.
    pub fn invoke(&self, key: &str, sequence: u64, digest: &str) -> Invocation {
        let attempt = Attempt { key: key.into(), sequence, digest: digest.into(), outcome: Outcome::Unknown };
        let mut entries = self.lock();
        entries.push(Entry { attempt, made: SystemTime::now(), answered: None });
        Invocation(entries.len() - 1)
    }

    /// Says how it went.
    pub fn answer(&self, invocation: Invocation, outcome: Outcome) {
        let entry = &mut self.lock()[invocation.0];
        entry.attempt.outcome = outcome;
        entry.answered = Some(SystemTime::now());
    }

    /// Everything so far.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.lock().iter().map(|entry| entry.attempt.clone()).collect()
    }

    /// How many of the attempts that were made at that time or later are acknowledged.
    pub fn accepted_since(&self, time: SystemTime) -> usize {
        let ok = |entry: &&Entry| entry.made >= time && matches!(entry.attempt.outcome, Outcome::Ok(_));
        self.lock().iter().filter(ok).count()
    }

    /// What the clients knew at that time.
    pub fn as_of(&self, time: SystemTime) -> Self {
        let mut entries = self.lock().clone();
        entries.retain(|entry| entry.made < time);
        for entry in &mut entries {
            if entry.answered.is_some_and(|answered| answered >= time) {
                entry.attempt.outcome = Outcome::Unknown;
                entry.answered = None;
            }
        }
        Self(Arc::new(Mutex::new(entries)))
    }

    /// Where the acknowledged tasks are.
    pub fn acknowledged(&self) -> Vec<Position> {
        let ok = |entry: &Entry| match entry.attempt.outcome {
            Outcome::Ok(position) => Some(position),
            Outcome::Failed | Outcome::Unknown => None,
        };
        self.lock().iter().filter_map(ok).collect()
    }

    /// How many attempts were acknowledged, refused, and neither.
    pub fn counts(&self) -> Counts {
        self.lock().iter().fold(Counts::default(), |mut counts, entry| {
            match entry.attempt.outcome {
                Outcome::Ok(_) => counts.ok += 1,
                Outcome::Failed => counts.failed += 1,
                Outcome::Unknown => counts.unknown += 1,
            }
            counts
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Attempts by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged.
    pub ok: u64,
    /// Refused for certain.
    pub failed: u64,
    /// Neither.
    pub unknown: u64,
}
