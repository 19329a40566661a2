//! What operators ask for parked tasks: to be handled again, or to be given up.
//!
//! The runner itself takes a redriven key's tasks, one at a time and in order, in turn with what comes from the task topic. So no other
//! task of the key can run meanwhile: what comes of it is parked behind, until none is left.

use super::{
    lane::Order,
    meter::End,
    parked::{Cause, DropOrder},
    parking::Aside,
    runner::{Ending, Runner, Tried},
    work::Work,
};
use crate::log::{JournalRead, Record};
use bytes::Bytes;
use partita_core::{Entry, Offset};
use partita_proto::v1::parked::End as Closing;
use std::time::{SystemTime, UNIX_EPOCH};

/// Redriven tasks for each task of the task topic: two, so that a key whose tasks keep coming is caught up with.
const SHARE: u32 = 2;

impl<W: Work> Runner<W> {
    /// Does some of what operators have asked for. Says whether there was anything to do.
    pub(super) async fn redrive_some(&mut self) -> Result<bool, Ending> {
        let mut some = false;
        while let Some(order) = self.setup.parked.next_drop() {
            some = true;
            self.drop_tasks(order).await?;
        }
        for _ in 0..SHARE {
            let Some((key, offset, entry)) = self.setup.parked.next_to_redrive() else { break };
            some = true;
            self.redrive(key, offset, entry).await?;
        }
        Ok(some)
    }

    async fn drop_tasks(&mut self, order: DropOrder) -> Result<(), Order> {
        let DropOrder { selection, reason, answer } = order;
        self.finished.flush();
        let mut dropped = 0;
        for task in self.setup.parked.select(&selection) {
            self.close(&task.key, task.offset, Closing::Dropped, reason.clone()).await?;
            dropped += 1;
        }
        // Who asked may have gone.
        let _ = answer.send(dropped);
        Ok(())
    }

    /// Takes a parked task to its end, or leaves it where it is.
    async fn redrive(&mut self, key: Bytes, offset: Offset, entry: Entry) -> Result<(), Ending> {
        let partition = self.setup.assignment.partition;
        self.finished.flush();
        let bytes = entry.weight.value + entry.weight.decompressed;
        let memory = tokio::select! {
            biased;
            order = self.lane.until_ordered() => return Err(order.into()),
            memory = self.setup.decode.reserve(bytes) => memory,
        };
        self.ctx.attempt = 0;
        let page = self.page(entry.position, JournalRead::One).await?;
        let Some(found) = page.records.into_iter().next().filter(|found| found.position == entry.position)
        else {
            tracing::error!(%partition, %offset, "a parked task is not in the parking journal any more: was it deleted? Its key stays parked");
            let reason = "its record is not in the parking journal any more; drop it to let its key go on";
            self.setup.parked.failed_again(&key, offset, self.failed_now("gone", reason.into()));
            return Ok(());
        };
        let record = Record { offset, timestamp_ms: found.timestamp_ms, key: found.key, value: found.value };
        match self.try_task(&record, Some(memory)).await? {
            Tried::Done { .. } => self.close(&key, offset, Closing::Done, String::new()).await?,
            Tried::Aside(Aside { end: End::Rejected, detail, .. }, _) => {
                self.close(&key, offset, Closing::Rejected, detail).await?;
            }
            Tried::Aside(Aside { reason, detail, .. }, _) => {
                tracing::warn!(%partition, %offset, reason = reason.label(), "a redriven task failed again: its key stays parked");
                self.setup.parked.failed_again(&key, offset, self.failed_now(reason.label(), detail));
            }
        }
        Ok(())
    }

    fn failed_now(&self, label: &str, reason: String) -> Cause {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Cause {
            label: label.to_owned(),
            reason,
            attempts: self.ctx.attempt,
            parked_at_ms: now.as_millis() as u64,
        }
    }
}
