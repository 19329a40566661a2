//! How much is delivered, and when: batches to the actors, moments for them to catch up, pauses and resumes.

use super::Member;
use crate::log::ConsumerEvent;
use partita_core::Partition;
use std::{thread, time::Duration};

/// How long handlers are given to catch up at a time, and how often in a row.
const NAP: Duration = Duration::from_micros(200);
const NAPS: u32 = 25;

impl Member {
    pub(super) fn deliver(&mut self) {
        let (records, bytes) = self.lanes.round();
        if records > 0 {
            self.meters.records.increment(records);
            self.meters.bytes.increment(bytes);
            let flow = &mut self.flow;
            self.lanes.deliver(|partition, outstanding| flow.observe(partition, outstanding));
        }
    }

    /// Waits for handlers that are behind and catching up, as long as core says: a few milliseconds at most.
    pub(super) fn let_catch_up(&mut self) {
        let mut ahead = None;
        for _ in 0..NAPS {
            ahead = self.flow.hold_on(ahead);
            if ahead.is_none() {
                return;
            }
            thread::sleep(NAP);
            for partition in self.flow.busy().collect::<Vec<_>>() {
                self.observe(partition);
            }
        }
    }

    fn observe(&mut self, partition: Partition) {
        if let Some(outstanding) = self.lanes.outstanding(partition) {
            self.flow.observe(partition, outstanding);
        }
    }

    /// Pauses and resumes partitions by what is outstanding.
    pub(super) fn regulate(&mut self) {
        for partition in self.flow.to_observe() {
            self.observe(partition);
        }
        let changes = self.flow.decide();
        for paused in [true, false] {
            let which: Vec<_> = changes
                .iter()
                .filter(|change| change.paused == paused)
                .map(|change| change.partition)
                .collect();
            if which.is_empty() {
                continue;
            }
            self.native.set_paused(&which, paused);
            for partition in which {
                self.emit(ConsumerEvent::Paused { partition, paused });
            }
        }
    }
}
