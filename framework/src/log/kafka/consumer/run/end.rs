//! The member's end: it leaves its group, or gives up, and its client is destroyed.

use super::{super::super::native::Polled, ATTENTIVE, Member, Pending, rebalance::said};
use crate::log::ConsumerEvent;
use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// How long the group may take to let this member go, and the actors to let go of its records.
const LEAVE: Duration = Duration::from_secs(5);

impl Member {
    /// Leaves the group, answering what it still asks, within a deadline.
    pub(super) fn leave(mut self) {
        for partition in self.lanes.open_partitions() {
            self.close_lane(partition);
        }
        match self.pending.take() {
            Some(Pending::Revoke { partitions, .. }) => self.give_back(&partitions),
            Some(Pending::Assign { .. }) => said("assignment", self.native.assign(&[])),
            None => {}
        }
        if let Err(reason) = self.native.begin_close() {
            tracing::warn!(reason, "the group could not be left in good order");
        }
        let deadline = Instant::now() + LEAVE;
        while !self.native.is_closed() && Instant::now() < deadline {
            match self.native.poll(ATTENTIVE) {
                Polled::Rebalance { assign: true, .. } => said("assignment", self.native.assign(&[])),
                Polled::Rebalance { assign: false, partitions } => self.give_back(&partitions),
                Polled::Committed { commit, partitions, error } => self.committed(commit, partitions, error),
                Polled::Nothing
                | Polled::Served
                | Polled::Line { .. }
                | Polled::Record(_)
                | Polled::Error { .. } => {}
            }
        }
        let left = self.native.is_closed();
        if !left {
            tracing::warn!(
                "the group was not left in time: its coordinator will notice after session.timeout.ms"
            );
        }
        self.emit(ConsumerEvent::Closed);
        self.bury(left);
    }

    pub(super) fn die(mut self, reason: String) {
        for partition in self.lanes.open_partitions() {
            self.close_lane(partition);
        }
        self.emit(ConsumerEvent::Fatal(reason));
        self.bury(true);
    }

    /// Destroys the client on this thread, once nobody holds its records. One that could hang is left to the process's end instead.
    fn bury(self, quiet: bool) {
        let Self { native, holder, tail, pending, contact, .. } = self;
        drop((holder, tail, pending, contact));
        let deadline = Instant::now() + LEAVE;
        let mut native = native;
        while quiet && Instant::now() < deadline {
            match Arc::try_unwrap(native) {
                Ok(client) => return drop(client),
                Err(shared) => native = shared,
            }
            thread::sleep(ATTENTIVE);
        }
        tracing::warn!(
            "the Kafka consumer is not destroyed: its records are still held, or its group was not left"
        );
        std::mem::forget(native);
    }
}
