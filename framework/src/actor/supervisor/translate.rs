//! What the log says, in core's words; what only concerns people goes into the status.

use super::Supervisor;
use crate::log::ConsumerEvent;
use partita_core::Event;

impl Supervisor {
    /// What the log's words mean to core.
    pub(super) fn translate(&mut self, event: ConsumerEvent) -> Option<Event> {
        let status = &self.setup.status;
        match event {
            ConsumerEvent::Joined => {
                status.set_joined();
                None
            }
            ConsumerEvent::Assigned { intent, generation, partitions } => {
                self.telemetry.rebalance("assigned");
                let starts = partitions.iter().map(|start| (start.partition, start.offset)).collect();
                self.offered = partitions.into_iter().map(|start| (start.partition, start)).collect();
                Some(Event::Assigned { intent, generation, partitions: starts })
            }
            ConsumerEvent::Revoking { intent, partitions } => {
                self.telemetry.rebalance("revoked");
                self.telemetry.revoking(intent);
                Some(Event::Revoking { intent, partitions })
            }
            ConsumerEvent::Lost { partitions } => {
                self.telemetry.rebalance("lost");
                tracing::warn!(
                    count = partitions.len(),
                    "partitions are lost: nothing is committed for them"
                );
                Some(Event::Lost { partitions })
            }
            ConsumerEvent::CommitDone { commit, committed, error } => {
                self.telemetry.committed(commit, error.is_none());
                if let Some(error) = error {
                    tracing::warn!(error, "a commit failed; it is tried again");
                }
                Some(Event::CommitDone { commit, committed })
            }
            ConsumerEvent::Discontinuity { partition, epoch, detail } => {
                tracing::error!(%partition, %epoch, detail, "the partition is halted until an operator acts");
                if self.member.partition(partition).is_some_and(|view| view.epoch == epoch) {
                    status.set_halted(partition, detail);
                }
                Some(Event::Discontinuity { partition, epoch })
            }
            ConsumerEvent::Paused { partition, paused } => {
                status.set_paused(partition, paused);
                None
            }
            ConsumerEvent::HighWatermarks(ends) => {
                ends.into_iter().for_each(|(partition, end)| status.set_high_watermark(partition, end));
                None
            }
            ConsumerEvent::Endangered(before) => {
                before
                    .into_iter()
                    .for_each(|(partition, offset)| status.set_endangered_before(partition, offset));
                let endangered = status.endangered_tasks();
                if endangered > 0 {
                    tracing::warn!(
                        tasks = endangered,
                        "the topic's retention may soon delete tasks that have not ended: work them off, or raise retention.ms"
                    );
                }
                None
            }
            ConsumerEvent::Away(reason) => {
                status.set_away(reason);
                None
            }
            ConsumerEvent::Fatal(reason) => {
                tracing::error!(reason, "the log's client failed for good");
                status.set_fatal(reason);
                Some(Event::Fatal)
            }
            ConsumerEvent::Closed => Some(Event::Closed),
        }
    }
}
