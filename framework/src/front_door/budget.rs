//! The intake pool, with some of it kept for small bodies: large ones can fill the rest and small tasks still flow.

use super::{admission, problem::Problem};
use crate::memory::{MemoryPool, Reservation};

/// Bodies up to this size may use the whole pool.
const SMALL: u64 = 64 << 10;

/// What a header of a request takes in memory as long as that is in hand, beside its text.
pub(super) const HEADER: u64 = 240;

/// Where the bytes of bodies are reserved.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    pool: MemoryPool,
    kept_for_small: u64,
}

impl Budget {
    /// Keeps a sixteenth of `pool` for small bodies, or less where one of `max_task` bytes would not fit beside it.
    pub(super) fn new(pool: MemoryPool, max_task: u64) -> Self {
        let capacity = pool.capacity();
        let kept_for_small = (capacity / 16).min(capacity.saturating_sub(max_task) / 2);
        Self { pool, kept_for_small }
    }

    /// Reserves at once, or refuses.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation, Problem> {
        self.admits(bytes, bytes)
            .then(|| self.pool.try_reserve(bytes))
            .flatten()
            .ok_or_else(admission::out_of_budget)
    }

    /// Grows a reservation at once, or refuses.
    pub(super) fn grow(&self, reservation: &mut Reservation, more: u64) -> Result<(), Problem> {
        if self.admits(reservation.bytes() + more, more) && reservation.try_grow(more) {
            Ok(())
        } else {
            Err(admission::out_of_budget())
        }
    }

    /// Whether so many bytes could be reserved now.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.admits(bytes, bytes)
    }

    /// What one body could have if nobody else had anything.
    pub(super) fn largest(&self) -> u64 {
        self.pool.capacity().saturating_sub(self.kept_for_small)
    }

    /// Whether so many bytes could be reserved if nobody else had any.
    pub(super) fn could_ever(&self, bytes: u64) -> bool {
        bytes <= self.largest()
    }

    /// A share of the whole.
    pub(super) fn share(&self, parts: u64) -> u64 {
        self.pool.capacity() / parts
    }

    fn admits(&self, total: u64, more: u64) -> bool {
        let free = self.pool.capacity().saturating_sub(self.pool.reserved());
        let kept = if total <= SMALL { 0 } else { self.kept_for_small };
        free >= more + kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_bodies_leave_room_for_small_ones() {
        let budget = Budget::new(MemoryPool::new("intake", 16 << 20), 4 << 20);
        let mut held = Vec::new();
        while let Ok(reservation) = budget.reserve(3 << 20) {
            held.push(reservation);
        }
        assert_eq!(held.len(), 5);
        assert!(budget.reserve(SMALL).is_ok());
        let mut small = budget.reserve(1).unwrap();
        assert!(budget.grow(&mut small, SMALL - 1).is_ok());
        assert!(budget.grow(&mut small, 1 << 20).is_err());
    }

    #[test]
    fn the_largest_task_fits_an_idle_pool_however_small_the_rest_is() {
        for capacity in [(100 << 20) + 4096, 101 << 20, 500 << 20] {
            let budget = Budget::new(MemoryPool::new("intake", capacity), 100 << 20);
            assert!(budget.reserve((100 << 20) + 1024).is_ok(), "{capacity}");
        }
    }
}
