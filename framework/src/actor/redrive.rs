//! What operators ask for parked tasks: to be handled again, or to be given up.
//!
//! The runner itself takes a redriven key's tasks, one at a time and in order, in turn with what comes from the task topic. So no other
//! task of the key can run meanwhile: what comes of it is parked behind, until none is left.

use super::{
    lane::Order,
    meter::End,
    parked::{Cause, DropOrder},
    parking::Aside,
    runner::{Ending, Runner},
    work::Work,
};
use crate::{
    log::{JournalRead, JournalRecord, Record},
    memory::Reservation,
};
use bytes::Bytes;
use partita_core::{Entry, Offset};
use partita_proto::v1::parked::End as Closing;
use std::{
    collections::VecDeque,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::time::Instant;

/// Bytes of parked tasks that are read before it is their turn: many small ones with one question.
const AHEAD: u64 = 256 << 10;

/// Parked tasks that were read before it is their turn.
pub(super) struct Ahead {
    records: VecDeque<JournalRecord>,
    _memory: Reservation,
}

/// Redriven tasks for each task of the task topic: two, so that a key whose tasks keep coming is caught up with.
const SHARE: u32 = 2;

impl<W: Work> Runner<W> {
    /// Does some of what operators have asked for. Says whether there was anything to do.
    pub(super) async fn redrive_some(&mut self) -> Result<bool, Ending> {
        if !self.setup.parked.take_requests() {
            self.ahead = None;
            return Ok(false);
        }
        let mut some = false;
        while let Some(order) = self.setup.parked.next_drop() {
            some = true;
            self.drop_tasks(order).await?;
        }
        for _ in 0..SHARE {
            self.obey()?;
            let Some((key, offset, entry)) = self.setup.parked.next_to_redrive() else { break };
            some = true;
            self.redrive(key, offset, entry).await?;
        }
        self.setup.parked.has_more();
        Ok(some)
    }

    async fn drop_tasks(&mut self, order: DropOrder) -> Result<(), Order> {
        let DropOrder { selection, reason, answer } = order;
        self.finished.flush();
        let mut dropped = 0;
        for task in self.setup.parked.select(&selection) {
            self.obey()?;
            self.ctx.attempt = task.cause.map_or(0, |cause| cause.attempts);
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
        let memory = self.redrive_memory(entry).await?;
        self.ctx.attempt = 0;
        let Some(found) = self.journalled(entry).await? else {
            tracing::error!(%partition, %offset, "a parked task is not in the parking journal any more: was it deleted? Its key stays parked");
            let reason = "its record is not in the parking journal any more; drop it to let its key go on";
            self.setup.parked.failed_again(&key, offset, self.failed_now("gone", reason));
            return Ok(());
        };
        let record = Record { offset, timestamp_ms: found.timestamp_ms, key: found.key, value: found.value };
        match self.try_task(&record, Some(memory)).await?.aside {
            None => self.close(&key, offset, Closing::Done, String::new()).await?,
            Some(Aside { end: End::Rejected, detail, .. }) => {
                self.close(&key, offset, Closing::Rejected, detail).await?;
            }
            Some(Aside { reason, detail, .. }) => {
                tracing::warn!(%partition, %offset, reason = reason.label(), "a redriven task failed again: its key stays parked");
                self.setup.parked.failed_again(&key, offset, self.failed_now(reason.label(), &detail));
            }
        }
        Ok(())
    }

    /// Memory for the task's record and its payload. Whoever waits for it holds none.
    async fn redrive_memory(&mut self, entry: Entry) -> Result<Reservation, Order> {
        let bytes = entry.weight.value + entry.weight.decompressed;
        if let Some(memory) = self.setup.decode.try_reserve(bytes) {
            return Ok(memory);
        }
        self.ahead = None;
        tokio::select! {
            biased;
            order = self.lane.until_ordered() => Err(order),
            memory = self.setup.decode.reserve(bytes) => {
                self.now = Instant::now();
                Ok(memory)
            }
        }
    }

    /// The task's record: of those that were read ahead, or from the journal.
    async fn journalled(&mut self, entry: Entry) -> Result<Option<JournalRecord>, Order> {
        let is_it = |record: &JournalRecord| record.position == entry.position;
        if let Some(Ahead { records, .. }) = &mut self.ahead {
            while records.front().is_some_and(|record| record.position < entry.position) {
                records.pop_front();
            }
            if records.front().is_some_and(is_it) {
                return Ok(records.pop_front());
            }
        }
        self.ahead = None;
        // Never more than half of what there is, so that the largest task still finds room.
        let decode = &self.setup.decode;
        let roomy = decode.reserved() + AHEAD <= decode.capacity() / 2;
        let memory = if roomy { decode.try_reserve(AHEAD) } else { None };
        let read = JournalRead::Values(if memory.is_some() { AHEAD } else { 0 });
        let mut records = VecDeque::from(self.page(entry.position, read).await?.records);
        let found = records.pop_front().filter(is_it);
        self.ahead = memory.map(|_memory| Ahead { records, _memory });
        Ok(found)
    }

    fn failed_now(&self, label: &str, reason: &str) -> Cause {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Cause::new(label, reason, self.ctx.attempt, now.as_millis() as u64)
    }
}
