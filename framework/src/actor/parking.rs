//! A task that will not be handled is stored in the parking journal, and only then has it ended. The journal is read before the first
//! task begins, so that a new owner knows which keys are parked.

use super::{
    lane::{Order, Phase},
    meter::End,
    parked::Cause,
    runner::{Ending, Runner, TENURE},
    work::Work,
};
use crate::{
    envelope,
    log::{JournalPage, JournalRead, ParkedRecord, Record},
    metrics as names,
};
use bytes::Bytes;
use partita_core::{Entry, Offset, ParkReason, Position, Verdict, Weight, retry};
use partita_proto::v1::{Parked, parked::End as Closing, parked::Kind};
use prost::Message;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Between two attempts to store or read a record of the journal while the log refuses.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How often it is looked whether there is room for another parked task.
const ROOM: Duration = Duration::from_millis(250);

/// Why a task is put aside.
pub(super) struct Aside {
    pub(super) end: End,
    pub(super) reason: ParkReason,
    pub(super) detail: String,
}

impl<W: Work> Runner<W> {
    /// Reads the journal, however long that takes; an order ends it.
    pub(super) async fn read_journal(&mut self) -> Result<(), Order> {
        let parked = self.setup.parked.clone();
        let (partition, epoch) = (self.setup.assignment.partition, self.setup.assignment.epoch);
        let end = self.read_to_its_end().await?;
        let claimed = parked.claim(end, epoch);
        if claimed != epoch {
            // The group's generations have begun anew. The next owner must learn of it before anything is written, here or by the handler.
            tracing::warn!(%partition, %epoch, %claimed, "the group's generations have begun anew; the partition goes on from its last owner's epoch");
            self.setup.assignment.epoch = claimed;
            self.ctx.assignment.epoch = claimed;
            self.finished.claimed();
            while !parked.is_confirmed() {
                self.wait(TENURE).await?;
            }
        }
        let (keys, tasks) = parked.count();
        if tasks > 0 {
            tracing::info!(%partition, keys, tasks, "keys are parked: their tasks wait for a redrive");
        }
        Ok(())
    }

    /// Reads what is unread, again from the beginning where there is no memory for it: what it holds meanwhile may be what others need to come
    /// to their end. Those that have to begin again take turns.
    async fn read_to_its_end(&mut self) -> Result<Position, Order> {
        let mut waits = 0;
        while let Some(from) = self.setup.parked.unread() {
            let turn = match waits {
                0 => None,
                _ => tokio::select! {
                    biased;
                    order = self.lane.until_ordered() => return Err(order),
                    turn = self.setup.reading.clone().acquire_owned() => turn.ok(),
                },
            };
            if let Some(end) = self.read_from(from).await? {
                return Ok(end);
            }
            self.setup.parked.begin_again();
            drop(turn);
            self.wait_for_room(&mut waits).await?;
        }
        Ok(Position(0))
    }

    /// Reads the journal to its end. Returns where that is; nothing where there is no memory for what is parked.
    async fn read_from(&mut self, from: Position) -> Result<Option<Position>, Order> {
        let (log, parked) = (self.setup.log.clone(), self.setup.parked.clone());
        let partition = self.setup.assignment.partition;
        let mut next = from;
        loop {
            let page = self.page(next, JournalRead::Notes).await?;
            for record in &page.records {
                match record.meaning(self.setup.assignment.topic_id(), log.group()) {
                    Some(meaning) => {
                        if !parked.read(record.position, &record.key, &meaning) {
                            return Ok(None);
                        }
                    }
                    None => {
                        tracing::warn!(%partition, position = record.position.0, "a record of the parking journal is not this pipeline's and is left alone");
                    }
                }
            }
            next = page.next;
            if page.at_end {
                return Ok(Some(next));
            }
        }
    }

    /// What becomes of the next task, once it could be parked if it had to be.
    pub(super) async fn verdict(&mut self, record: &Record) -> Result<Verdict, Ending> {
        let mut waits = 0;
        loop {
            let verdict = self.setup.parked.judge(&record.key, record.offset);
            if verdict == Verdict::Skip || !self.setup.parked.is_crowded() {
                return Ok(verdict);
            }
            self.make_way(&mut waits).await?;
        }
    }

    /// Does what operators ask for, which is what makes room for another parked task; or waits.
    async fn make_way(&mut self, waits: &mut u32) -> Result<(), Ending> {
        // In a box: it is rare, and as large as all that a task takes.
        if !Box::pin(self.redrive_some()).await? {
            self.wait_for_room(waits).await?;
        }
        Ok(())
    }

    async fn wait_for_room(&mut self, waits: &mut u32) -> Result<(), Order> {
        let why = match self.setup.parked.is_ready() {
            true => "memory for the index of parked tasks: redrive or drop some, or raise memory.budget",
            false => {
                "memory to read what is parked in it: redrive or drop some in other partitions, raise memory.budget, or add a worker"
            }
        };
        *waits += 1;
        if *waits == 1 {
            tracing::error!(partition = %self.setup.assignment.partition, why, "the partition waits: it could not park another task");
        }
        // What is not read yet is read again each time.
        let patience = if self.setup.parked.is_ready() { ROOM } else { ROOM * (*waits).min(20) };
        self.wait_as(Phase::ParkingFull, Some(why.to_owned()), patience).await
    }

    /// Reads a page of the journal, again and again until it can be read.
    pub(super) async fn page(&mut self, from: Position, read: JournalRead) -> Result<JournalPage, Order> {
        let partition = self.setup.assignment.partition;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let page = self.setup.log.journal(partition, from, read);
            let error = tokio::select! {
                biased;
                order = self.lane.until_ordered() => return Err(order),
                page = page => match page {
                    Ok(page) => {
                        self.now = Instant::now();
                        return Ok(page);
                    }
                    Err(error) => error,
                },
            };
            tracing::warn!(%partition, %error, attempt, "the parking journal is read again");
            let jitter = self.jitter(Offset(from.0), attempt);
            self.wait(retry::backoff(attempt, BACKOFF, BACKOFF_MAX, jitter)).await?;
        }
    }

    /// Stores the task. Returns once the log has it durably, however long that takes: the task has not ended before. An
    /// order ends the wait, and the task comes again to whoever is assigned the partition next.
    pub(super) async fn put_aside(&mut self, record: &Record, aside: Aside) -> Result<End, Ending> {
        let Aside { end, reason, detail } = aside;
        let (partition, offset) = (self.setup.assignment.partition, record.offset);
        if reason != ParkReason::Behind {
            tracing::warn!(%partition, %offset, reason = reason.label(), "a task is put aside");
        }
        let decompressed = match envelope::decode(record.value.clone(), self.setup.policy.max_task) {
            Ok(envelope) => envelope::decompressed_len(&envelope),
            Err(_) => 0,
        };
        let note = Parked {
            kind: if end == End::Rejected { Kind::Rejected } else { Kind::Parked }.into(),
            decompressed_size: decompressed,
            ..self.note(offset, reason.label(), detail)
        };
        let mut waits = 0;
        while end == End::Parked && !self.setup.parked.make_room() {
            self.make_way(&mut waits).await?;
        }
        let position = self.store(record.key.clone(), record.value.clone(), &note, offset).await?;
        if end == End::Parked {
            let weight = Weight { value: record.value.len() as u64, decompressed };
            let entry = Entry { position, weight };
            self.setup.parked.parked(&record.key, offset, entry, Cause::of(&note));
        } else {
            self.setup.parked.closed(&record.key, offset, position, self.setup.assignment.epoch);
        }
        metrics::counter!(names::PARKED_TASKS_TOTAL, "reason" => reason.label()).increment(1);
        Ok(end)
    }

    /// Stores the end of a parked task, as `put_aside` does.
    pub(super) async fn close(
        &mut self,
        key: &Bytes,
        offset: Offset,
        closing: Closing,
        reason: String,
    ) -> Result<(), Order> {
        let label = match closing {
            Closing::Done => "done",
            Closing::Rejected => "rejected",
            Closing::Dropped | Closing::Unspecified => "dropped",
        };
        let note =
            Parked { kind: Kind::Closed.into(), end: closing.into(), ..self.note(offset, label, reason) };
        let position = self.store(key.clone(), Bytes::new(), &note, offset).await?;
        self.setup.parked.closed(key, offset, position, self.setup.assignment.epoch);
        metrics::counter!(names::PARKED_TASKS_ENDED_TOTAL, "outcome" => label).increment(1);
        Ok(())
    }

    /// Adds a record to the journal, again and again until the log has it.
    async fn store(
        &mut self,
        key: Bytes,
        value: Bytes,
        note: &Parked,
        offset: Offset,
    ) -> Result<Position, Order> {
        let partition = self.setup.assignment.partition;
        let parked = Bytes::from(note.encode_to_vec());
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.tenured().await?;
            let record = ParkedRecord { key: key.clone(), value: value.clone(), parked: parked.clone() };
            let stored = self.setup.log.park(partition, record);
            let stored = tokio::select! {
                biased;
                stored = stored => stored,
                () = self.lane.until_stopped() => return Err(Order::Stop),
            };
            let error = match stored {
                Ok(receipt) => {
                    self.now = Instant::now();
                    return Ok(receipt.position());
                }
                Err(error) => error,
            };
            tracing::error!(%partition, %offset, %error, attempt, "a record of the parking journal could not be stored and blocks its partition; it is tried again");
            let jitter = self.jitter(offset, attempt);
            self.wait(retry::backoff(attempt, BACKOFF, BACKOFF_MAX, jitter)).await?;
        }
    }

    /// What every record of the journal says.
    fn note(&self, offset: Offset, cause: &str, reason: String) -> Parked {
        let assignment = &self.setup.assignment;
        Parked {
            reason,
            topic: assignment.topic().to_owned(),
            topic_id: assignment.topic_id().to_owned(),
            group: self.setup.log.group().to_owned(),
            partition: assignment.partition(),
            offset: offset.0,
            epoch: assignment.epoch(),
            attempts: self.ctx.attempt,
            parked_at_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
            cause: cause.to_owned(),
            ..Parked::default()
        }
    }
}
