//! What the clients of a run know: every attempt is entered before it is made, so one that is never answered stays unknown.

use crate::history::{Attempt, Outcome, Position};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The clients' side of a history. Cheap to clone; the clones share it.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Attempt>>>);

/// An attempt that was entered and not answered yet.
#[derive(Debug)]
#[must_use]
pub struct Invocation(usize);

impl Ledger {
    /// Enters an attempt that is about to be made.
    pub fn invoke(&self, key: &str, sequence: u64, digest: &str) -> Invocation {
        let mut attempts = self.lock();
        attempts.push(Attempt {
            key: key.into(),
            sequence,
            digest: digest.into(),
            outcome: Outcome::Unknown,
        });
        Invocation(attempts.len() - 1)
    }

    /// Says how it went.
    pub fn answer(&self, invocation: Invocation, outcome: Outcome) {
        self.lock()[invocation.0].outcome = outcome;
    }

    /// Everything so far.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.lock().clone()
    }

    /// Where the acknowledged tasks are.
    pub fn acknowledged(&self) -> Vec<Position> {
        let ok = |attempt: &Attempt| match attempt.outcome {
            Outcome::Ok(position) => Some(position),
            Outcome::Failed | Outcome::Unknown => None,
        };
        self.lock().iter().filter_map(ok).collect()
    }

    /// How many attempts were acknowledged, refused, and neither.
    pub fn counts(&self) -> Counts {
        self.lock().iter().fold(Counts::default(), |mut counts, attempt| {
            match attempt.outcome {
                Outcome::Ok(_) => counts.ok += 1,
                Outcome::Failed => counts.failed += 1,
                Outcome::Unknown => counts.unknown += 1,
            }
            counts
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Attempt>> {
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
