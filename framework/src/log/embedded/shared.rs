//! What the log's threads share.

use super::{
    patience::InHand,
    published::{Published, Signal},
    queue::Queue,
};
use crate::log::LogHealth;
use std::sync::{
    Mutex, PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::watch;

/// One for each open log.
pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) in_hand: InHand,
    pub(super) published: Published,
    /// Wakes the consumer: records were added, a commit was answered, a command waits.
    pub(super) consumer: Signal,
    /// Held shared by every transaction of this process, alone by the checkpoint that starts the WAL over.
    pub(super) gate: RwLock<()>,
    pub(super) health: Health,
    /// True once it was closed and every append was answered.
    pub(super) drained: watch::Sender<bool>,
    /// Stands in for a disk without room: the most pages the file may have, 0 for no limit.
    #[cfg(test)]
    pub(super) page_limit: std::sync::atomic::AtomicU32,
}

impl Shared {
    pub(super) fn new(published: Published) -> Self {
        Self {
            queue: Queue::default(),
            in_hand: InHand::default(),
            published,
            consumer: Signal::default(),
            gate: RwLock::new(()),
            health: Health::default(),
            drained: watch::Sender::new(false),
            #[cfg(test)]
            page_limit: Default::default(),
        }
    }

    /// Tells whoever waits for the closing, if it is complete.
    pub(super) fn note_drained(&self) {
        if self.queue.is_drained() {
            self.drained.send_replace(true);
        }
    }
}

/// The log's state as it is told outside.
#[derive(Default)]
pub(super) struct Health {
    troubled: AtomicBool,
    state: Mutex<LogHealth>,
}

impl Health {
    pub(super) fn get(&self) -> LogHealth {
        if !self.troubled.load(Ordering::Acquire) {
            return LogHealth::Ready;
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, health: LogHealth) {
        let troubled = health != LogHealth::Ready;
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = health;
        self.troubled.store(troubled, Ordering::Release);
    }
}
