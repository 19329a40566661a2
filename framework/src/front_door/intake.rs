//! A body's bytes on their way in: each is reserved from the budget before memory is used for it, and lies behind the
//! room for its envelope from the start.
//!
//! Where the size is known the buffer has it at once. Where it is not (chunked, compressed), it grows by steps of four, copying what it
//! holds, and reserves the old and the new while both exist. The last step claims the *address space* of the largest task
//! once a sixteenth to a quarter of it is used; memory behind it is used, and reserved, only as bytes are written.

use super::{
    budget::Budget,
    problem::{Problem, ProblemCode},
};
use crate::{envelope::PayloadBuffer, memory::Reservation};
use bytes::Bytes;
use partita_proto::v1::Envelope;
use std::ops::Range;

/// The first capacity of a buffer for an unknown size.
const FIRST: u64 = 16 << 10;
/// How many times larger the next one is.
const FACTOR: u64 = 4;
/// Up to this capacity all of it is reserved: an allocator has such blocks at hand, touched before.
const WHOLE: u64 = 1 << 20;
/// Above, what is written is reserved in steps of this size.
const STEP: u64 = 256 << 10;

/// A record may keep this much more than it is.
const SPARE: u64 = 64 << 10;

/// A payload that is being received.
#[derive(Debug)]
pub(super) struct Intake {
    budget: Budget,
    buffer: PayloadBuffer,
    reservation: Reservation,
    /// The envelope's room in front of the payload.
    front: u64,
    /// What goes with it elsewhere in memory.
    beside: u64,
    capacity: u64,
    /// The most it ever held: memory that was used stays in use.
    most: u64,
    limit: u64,
}

impl Intake {
    /// Room for exactly `size` bytes.
    pub(super) fn exact(budget: &Budget, head: &Envelope, size: u64) -> Result<Self, Problem> {
        Self::with(budget, head, size, size)
    }

    /// Room that grows up to `limit` bytes.
    pub(super) fn growing(budget: &Budget, head: &Envelope, limit: u64) -> Result<Self, Problem> {
        Self::with(budget, head, FIRST.min(limit), limit)
    }

    /// Room for a document of `size` bytes that has a payload and its envelope's head in it.
    pub(super) fn document(budget: &Budget, size: u64) -> Result<Self, Problem> {
        let room = size + 512 + (size / 16).min(4096);
        Self::with(budget, &Envelope::default(), room, room)
    }

    fn with(budget: &Budget, head: &Envelope, capacity: u64, limit: u64) -> Result<Self, Problem> {
        let whole = PayloadBuffer::allocation(head, capacity as usize) as u64;
        let reservation = budget.reserve(whole)?;
        let buffer = PayloadBuffer::new(head, capacity as usize);
        Ok(Self {
            budget: budget.clone(),
            buffer,
            reservation,
            front: whole - capacity,
            beside: 0,
            capacity,
            most: 0,
            limit,
        })
    }

    pub(super) fn payload(&self) -> &[u8] {
        self.buffer.payload()
    }

    pub(super) fn len(&self) -> u64 {
        self.buffer.payload().len() as u64
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Adds bytes. Refused before any memory is used for them.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let len = self.len() + bytes.len() as u64;
        if len > self.limit {
            return Err(too_large(self.limit));
        }
        if len > self.capacity {
            self.grow(len)?;
        }
        self.cover(len)?;
        self.buffer.extend(bytes);
        self.most = self.most.max(len);
        Ok(())
    }

    /// Keeps only these bytes, as the payload of an envelope like `head`.
    pub(super) fn keep(&mut self, range: Range<usize>, head: &Envelope) {
        self.buffer.keep(range, head);
    }

    /// Forgets the bytes and keeps their memory.
    pub(super) fn clear(&mut self) {
        self.buffer.keep(0..0, &Envelope::default());
    }

    /// Reserves more, for what goes with it.
    pub(super) fn charge(&mut self, more: u64) -> Result<(), Problem> {
        self.budget.grow(&mut self.reservation, more)?;
        self.beside += more;
        Ok(())
    }

    /// What was charged.
    pub(super) fn charged(&self) -> u64 {
        self.beside
    }

    /// Changes the bytes where they are; `change` says how many are left.
    pub(super) fn change<E>(&mut self, change: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<(), E> {
        self.buffer.change(change)
    }

    /// Makes the reservation cover what is used at a length of `len`.
    fn cover(&mut self, len: u64) -> Result<(), Problem> {
        let needed = self.used(self.capacity, len.max(self.most));
        match needed.checked_sub(self.reservation.bytes()) {
            Some(more) if more > 0 => self.budget.grow(&mut self.reservation, more),
            _ => Ok(()),
        }
    }

    fn grow(&mut self, len: u64) -> Result<(), Problem> {
        let capacity = next_capacity(self.capacity, len, self.limit);
        let after = self.used(capacity, len);
        self.budget.grow(&mut self.reservation, after)?;
        self.buffer.move_to(capacity as usize);
        self.capacity = capacity;
        self.reservation.shrink_to(after);
        Ok(())
    }

    /// The memory that `len` bytes in a buffer of `capacity` use.
    fn used(&self, capacity: u64, len: u64) -> u64 {
        let touched = if capacity <= WHOLE { capacity } else { len.next_multiple_of(STEP).min(capacity) };
        self.front + self.beside + touched
    }

    /// The bytes as they are, and the reservation that goes with them.
    pub(super) fn into_bytes(self) -> (Bytes, Reservation) {
        (self.buffer.into_payload(), self.reservation)
    }

    /// The record, and the reservation that stays until the log holds it no longer.
    pub(super) fn seal(mut self, head: &Envelope) -> (Bytes, Reservation) {
        let used = self.used(self.capacity, self.most);
        self.reservation.shrink_to(used);
        let record = self.buffer.seal(head);
        let len = record.len() as u64;
        if used <= 2 * len + SPARE {
            return (record, self.reservation);
        }
        // A small task would keep all of the document in memory that it was in, also where its reservation is gone.
        if self.budget.grow(&mut self.reservation, len).is_err() {
            return (record, self.reservation);
        }
        let record = Bytes::copy_from_slice(&record);
        self.reservation.shrink_to(len + self.beside);
        (record, self.reservation)
    }
}

/// The capacity after `capacity` that takes `len` bytes. The step to the limit itself is taken early enough that the
/// copy beside the original never needs more than the limit does.
fn next_capacity(capacity: u64, len: u64, limit: u64) -> u64 {
    let mut next = capacity.max(FIRST);
    while next < len {
        next = next.saturating_mul(FACTOR);
    }
    if next.saturating_mul(FACTOR) > limit { limit } else { next }
}

/// 413.
pub(super) fn too_large(limit: u64) -> Problem {
    Problem::new(
        ProblemCode::TooLarge,
        format!(
            "the task has more than {limit} bytes without compression (limits.max_task); split it or raise the limit"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryPool;
    use proptest::prelude::*;

    const MAX: u64 = 4 << 20;

    fn budget(capacity: u64) -> (Budget, MemoryPool) {
        let pool = MemoryPool::new("intake", capacity);
        (Budget::new(pool.clone(), MAX), pool)
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_what_is_sealed_and_it_was_reserved(
            chunks in prop::collection::vec(0_usize..300_000, 0..20), known in any::<bool>()
        ) {
            let (budget, pool) = budget(64 << 20);
            let head = Envelope::default();
            let size = chunks.iter().sum::<usize>() as u64;
            let limit = if known { size } else { 8 << 20 };
            let mut intake = if known {
                Intake::exact(&budget, &head, size)
            } else {
                Intake::growing(&budget, &head, limit)
            }.unwrap();
            let mut expected = Vec::new();
            for (index, chunk) in chunks.iter().enumerate() {
                let bytes = vec![index as u8; *chunk];
                intake.push(&bytes).unwrap();
                expected.extend_from_slice(&bytes);
                prop_assert!(pool.reserved() >= intake.len());
                prop_assert!(known || pool.reserved() <= 4 * intake.len() + (64 << 10));
            }
            prop_assert_eq!(intake.payload(), &expected[..]);
            let (record, reservation) = intake.seal(&head);
            prop_assert!(record.ends_with(&expected));
            prop_assert!(reservation.bytes() >= size);
            drop(reservation);
            prop_assert_eq!(pool.reserved(), 0);
        }
    }

    #[test]
    fn the_largest_task_of_unknown_size_fits_an_idle_pool_of_little_more() {
        let (budget, _) = budget(MAX + (1 << 20));
        let mut intake = Intake::growing(&budget, &Envelope::default(), MAX).unwrap();
        for _ in 0..MAX / 1024 {
            intake.push(&[7; 1024]).unwrap();
        }
        assert_eq!(intake.push(&[7]).unwrap_err().code, ProblemCode::TooLarge);
        assert_eq!(intake.len(), MAX);
    }

    #[test]
    fn a_small_task_of_a_large_document_keeps_no_more_than_it_is() {
        let (budget, pool) = budget(8 << 20);
        let mut document = Intake::document(&budget, 2 << 20).unwrap();
        document.push(&vec![b' '; 2 << 20]).unwrap();
        document.keep(1_000_000..1_001_000, &Envelope::default());
        let (record, reservation) = document.seal(&Envelope::default());
        assert!(record.ends_with(&[b' '; 1000]));
        assert!(pool.reserved() < 4096);
        let kept = record.try_into_mut().unwrap().capacity();
        assert!(kept < 4096, "{kept}");
        drop(reservation);
    }

    #[test]
    fn an_exhausted_budget_refuses_and_keeps_what_is_there() {
        let (budget, pool) = budget(MAX + (1 << 20));
        let mut intake = Intake::growing(&budget, &Envelope::default(), MAX).unwrap();
        intake.push(&[1; 1000]).unwrap();
        let _rest = pool.try_reserve(pool.capacity() - pool.reserved() - 2048).unwrap();
        assert_eq!(intake.push(&vec![2; 1 << 20]).unwrap_err().code, ProblemCode::OutOfMemoryBudget);
        assert_eq!(intake.payload(), [1; 1000]);
    }
}
