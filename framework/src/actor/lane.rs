//! One partition's way into its actor: the FIFO of delivered batches, the orders that overtake it, and the counters
//! that other threads read.
//!
//! [`Lane`] lives on the actor's arbiter and is shared there by the actor (which fills it) and the runner (which empties
//! it). [`Progress`] is the part that the consumer's thread and the supervisor may look at.

use crate::log::{Batch, Record};
use partita_core::{Offset, Outstanding};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Why a runner is to start no other task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Finish the task in hand, then leave in good order before the deadline.
    Drain(Instant),
    /// Give up the task in hand.
    Stop,
}

/// The queue of one actor, and the orders it was given.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    batches: RefCell<VecDeque<Batch>>,
    next: Cell<usize>,
    order: Cell<Option<Order>>,
    filled: Notify,
    ordered: CancellationToken,
    stopped: CancellationToken,
}

impl Lane {
    /// Adds a batch behind what is queued.
    pub(crate) fn push(&self, batch: Batch) {
        self.batches.borrow_mut().push_back(batch);
        self.filled.notify_one();
    }

    /// Takes the next record.
    pub(crate) fn take(&self) -> Option<Record> {
        let mut batches = self.batches.borrow_mut();
        loop {
            let batch = batches.front_mut()?;
            let index = self.next.get();
            match batch.take(index) {
                Some(record) => {
                    self.next.set(index + 1);
                    return Some(record);
                }
                None => {
                    batches.pop_front();
                    self.next.set(0);
                }
            }
        }
    }

    /// Gives an order. A stop is never taken back.
    pub(crate) fn order(&self, order: Order) {
        if self.order.get() != Some(Order::Stop) {
            self.order.set(Some(order));
        }
        self.ordered.cancel();
        if order == Order::Stop {
            self.stopped.cancel();
        }
    }

    /// The order in force.
    pub(crate) fn ordered(&self) -> Option<Order> {
        self.order.get()
    }

    /// Returns when there is an order.
    pub(crate) async fn until_ordered(&self) -> Order {
        self.ordered.cancelled().await;
        self.order.get().unwrap_or(Order::Stop)
    }

    /// Returns when the order is to stop.
    pub(crate) async fn until_stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Returns when there may be a record to take or an order to follow.
    pub(crate) async fn wait(&self) {
        tokio::select! {
            biased;
            () = self.ordered.cancelled() => {}
            () = self.filled.notified() => {}
        }
    }
}

/// What a partition's actor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Handling tasks or waiting for some.
    #[default]
    Running = 0,
    /// Waiting to try something again.
    Retrying = 1,
    /// Finishing the task in hand.
    Draining = 2,
    /// Waiting for something that the handler needs.
    Unavailable = 3,
    /// Waiting because too many tasks were parked.
    Tripped = 4,
    /// Waiting for memory to know one more parked task in.
    ParkingFull = 5,
}

/// A task that an actor has in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InHand {
    pub(crate) offset: Offset,
    /// Since when, in milliseconds since the Unix epoch: its first attempt.
    pub(crate) since_ms: u64,
    pub(crate) attempt: u32,
}

/// What other threads may know of an actor.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    records: AtomicU64,
    bytes: AtomicU64,
    phase: AtomicU8,
    attempt: AtomicU32,
    in_flight_since_ms: AtomicU64,
    /// The offset of the task in hand, while `in_flight_since_ms` is set.
    offset: AtomicU64,
    stopped: AtomicBool,
    over: AtomicBool,
    /// What is waited for, for people.
    waiting_for: Mutex<Option<String>>,
}

impl Progress {
    /// A batch is on its way to the actor.
    pub(crate) fn delivered(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// A task reached its end.
    pub(crate) fn ended(&self, bytes: u64) {
        self.records.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// What was delivered and has not ended.
    pub(crate) fn outstanding(&self) -> Outstanding {
        Outstanding { records: self.records.load(Relaxed), bytes: self.bytes.load(Relaxed) }
    }

    /// No task is to be started from now on, also before the order to stop has reached the actor.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Relaxed);
    }

    /// Whether no task may be started.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// The actor is gone, and the task in its hand with it.
    pub(crate) fn end(&self) {
        self.over.store(true, Relaxed);
    }

    /// Whether the actor is gone.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Says what the actor does from now on.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// What the actor does.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            1 => Phase::Retrying,
            2 => Phase::Draining,
            3 => Phase::Unavailable,
            4 => Phase::Tripped,
            5 => Phase::ParkingFull,
            _ => Phase::Running,
        }
    }

    /// Says what is waited for from now on.
    pub(crate) fn wait_for(&self, what: Option<String>) {
        *self.waiting_for.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// What is waited for.
    pub(crate) fn waiting_for(&self) -> Option<String> {
        self.waiting_for.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A task that takes longer than one poll is in hand since now; only such tasks are shown.
    pub(crate) fn started(&self, offset: Offset, attempt: u32) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.attempt.store(attempt, Relaxed);
        self.offset.store(offset.0, Relaxed);
        if self.in_flight_since_ms.load(Relaxed) == 0 {
            self.in_flight_since_ms.store(now.as_millis() as u64, Relaxed);
        }
    }

    /// No task is in hand.
    pub(crate) fn idle(&self) {
        self.attempt.store(0, Relaxed);
        self.in_flight_since_ms.store(0, Relaxed);
    }

    /// Since when the task in hand runs, in milliseconds since the Unix epoch; 0 while idle.
    pub(crate) fn in_flight_since_ms(&self) -> u64 {
        self.in_flight_since_ms.load(Relaxed)
    }

    /// The task in hand.
    pub(crate) fn in_hand(&self) -> Option<InHand> {
        let since_ms = self.in_flight_since_ms();
        let offset = Offset(self.offset.load(Relaxed));
        (since_ms > 0).then(|| InHand { offset, since_ms, attempt: self.attempt() })
    }

    /// Which attempt of the task in hand it is; 0 while idle.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use partita_core::Epoch;

    fn batch(offsets: std::ops::Range<u64>) -> Batch {
        let mut batch = Batch::new(Epoch(1));
        offsets.for_each(|offset| batch.push_copied(Offset(offset), 0, b"k", b"v"));
        batch.seal();
        batch
    }

    #[test]
    fn records_leave_in_the_order_they_came_across_batches() {
        let lane = Lane::default();
        for offsets in [0..3, 3..3, 3..4, 4..9] {
            lane.push(batch(offsets));
        }
        let taken: Vec<u64> = std::iter::from_fn(|| lane.take()).map(|record| record.offset.0).collect();
        assert_eq!(taken, (0..9).collect::<Vec<_>>());
    }

    #[test]
    fn a_stop_is_not_taken_back_by_a_later_drain() {
        let lane = Lane::default();
        lane.order(Order::Stop);
        lane.order(Order::Drain(Instant::now()));
        assert_eq!(lane.ordered(), Some(Order::Stop));
    }
}
