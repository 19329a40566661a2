//! What the helping threads found, and what that means for the partitions.

use super::{super::super::watch::Trouble, Member, Note, Pending};
use crate::log::ConsumerEvent;

impl Member {
    pub(super) fn read_notes(&mut self) {
        while let Ok(note) = self.notes.1.try_recv() {
            match note {
                Note::Starts { intent, starts: found } => {
                    if let Some(Pending::Assign { intent: pending, starts, .. }) = &mut self.pending
                        && *pending == intent
                    {
                        *starts = Some(found);
                        self.offer();
                    }
                }
                Note::Ends(ends) => self.emit(ConsumerEvent::HighWatermarks(ends)),
                Note::Heard(heard) => self.heard(&heard),
                Note::Endangered(before) => self.emit(ConsumerEvent::Endangered(before)),
                Note::Standing(standing) => self.stand(standing),
            }
        }
    }

    pub(super) fn stand(&mut self, standing: Result<(), Trouble>) {
        let before = self.standing.replace(standing.clone());
        match standing {
            Ok(()) => {
                if !matches!(before, None | Some(Ok(()))) {
                    self.emit(ConsumerEvent::Away(None));
                }
                self.offer();
            }
            Err(Trouble::Away(reason)) => self.emit(ConsumerEvent::Away(Some(reason))),
            Err(Trouble::Grown(reason)) => {
                self.emit(ConsumerEvent::Away(Some(reason)));
                self.offer();
            }
            Err(Trouble::Mismatch(reason)) => {
                for partition in self.lanes.open_partitions() {
                    self.halt(partition, reason.clone());
                }
                self.emit(ConsumerEvent::Away(Some(reason)));
            }
        }
    }
}
