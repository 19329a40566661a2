//! The keys of one request that nothing more is accepted of.

use super::super::budget::Budget;
use crate::memory::Reservation;
use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

/// Memory for keys whose tasks are refused is reserved in steps of so many.
const FAILED_STEP: usize = 1024;
/// What one takes, in a set that is half full.
const FAILED_BYTES: u64 = 32;

/// The keys of which a task was not accepted, as hashes: two keys that share one share their fate, which is to be sent again.
#[derive(Default)]
pub(super) struct Failed {
    hasher: RandomState,
    keys: HashSet<u64>,
    reservation: Option<Reservation>,
    /// There was no memory to remember one, or nobody knows which: no key is free of suspicion.
    all: bool,
}

impl Failed {
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.all || !self.keys.is_empty() && self.keys.contains(&self.hasher.hash_one(key))
    }

    pub(super) fn insert(&mut self, key: &[u8], budget: &Budget) {
        let key = self.hasher.hash_one(key);
        if self.all || self.keys.contains(&key) {
            return;
        }
        if self.keys.len().is_multiple_of(FAILED_STEP) && !self.reserve(budget) {
            self.all = true;
        } else {
            self.keys.insert(key);
        }
    }

    /// A task of a key that nobody knows was not accepted.
    pub(super) fn insert_all(&mut self) {
        self.all = true;
    }

    fn reserve(&mut self, budget: &Budget) -> bool {
        let more = FAILED_STEP as u64 * FAILED_BYTES;
        match &mut self.reservation {
            Some(reservation) => budget.grow(reservation, more).is_ok(),
            none => budget.reserve(more).map(|reservation| *none = Some(reservation)).is_ok(),
        }
    }
}
