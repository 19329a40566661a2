//! The tasks that did not simply succeed, as the parking journals tell of them: read when they are first asked about, and kept as far as
//! there is memory for them.

use crate::{
    log::{JournalRead, JournalRecord, ReadError, TaskLog},
    memory::{MemoryPool, Reservation},
};
use partita_core::{Epoch, Offset, Partition, Position};
use partita_proto::v1::parked::{End, Kind};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// What one task takes in memory, generously.
const TASK_BYTES: u64 = 96;

/// How a task ended, or that it is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    Parked,
    Rejected,
    Dropped,
}

/// What the journal's last record of a task says, and where that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) fate: Fate,
    pub(super) position: Position,
    /// The bytes of the record's value.
    pub(super) size: u64,
}

/// Of all partitions that were asked about.
pub(super) struct Fates {
    pool: MemoryPool,
    journals: HashMap<Partition, Journal>,
}

/// One partition's.
#[derive(Default)]
struct Journal {
    tasks: BTreeMap<Offset, Found>,
    next: Position,
    /// Of the last record that counts: what a former owner wrote too late does not.
    latest: Epoch,
    /// What is put aside of the tasks before this offset is known.
    covered: Offset,
    /// There was no memory for all of it.
    partial: bool,
    memory: Option<Reservation>,
}

impl Fates {
    /// `pool`: what they are reserved from.
    pub(super) fn new(pool: MemoryPool) -> Self {
        Self { pool, journals: HashMap::new() }
    }

    /// The fate of a task before `committed`, if the journal knows it.
    pub(super) async fn find(
        &mut self,
        log: &Arc<dyn TaskLog>,
        partition: Partition,
        offset: Offset,
        committed: Offset,
    ) -> Result<Option<Found>, ReadError> {
        // Out of the others, which make room where there is none.
        let mut journal = self.journals.remove(&partition).unwrap_or_default();
        let found = self.look(&mut journal, log, partition, offset, committed).await;
        if !journal.partial {
            self.journals.insert(partition, journal);
        }
        found
    }

    async fn look(
        &mut self,
        journal: &mut Journal,
        log: &Arc<dyn TaskLog>,
        partition: Partition,
        offset: Offset,
        committed: Offset,
    ) -> Result<Option<Found>, ReadError> {
        // What an operator went back behind may end in another way.
        if committed < journal.covered {
            *journal = Journal::default();
        }
        let known = journal.tasks.get(&offset).copied();
        // Only what is parked may still change.
        if offset < journal.covered && known.is_none_or(|found| found.fate != Fate::Parked) {
            return Ok(known);
        }
        let mut wanted = known;
        loop {
            let page = log.journal(partition, journal.next, JournalRead::Notes).await?;
            for record in &page.records {
                let Some((of, found)) = journal.read(record, log.topic_id(), log.group()) else { continue };
                if of == offset {
                    wanted = Some(found);
                }
                journal.tasks.insert(of, found);
            }
            journal.next = page.next;
            if !journal.reserve(&self.pool) {
                self.journals.clear();
            }
            if !journal.reserve(&self.pool) {
                // Read from its beginning at each question, and nothing of it kept.
                let latest = journal.latest;
                *journal = Journal { next: page.next, latest, partial: true, ..Journal::default() };
            }
            if page.at_end {
                journal.covered = journal.covered.max(committed);
                return Ok(wanted);
            }
        }
    }
}

impl Journal {
    fn reserve(&mut self, pool: &MemoryPool) -> bool {
        let needed = self.tasks.len() as u64 * TASK_BYTES;
        match &mut self.memory {
            Some(memory) => {
                let more = needed.saturating_sub(memory.bytes());
                more == 0 || memory.try_grow(more)
            }
            None if needed == 0 => true,
            none => {
                *none = pool.try_reserve(needed);
                none.is_some()
            }
        }
    }

    /// What a record says of which task.
    fn read(&mut self, record: &JournalRecord, topic_id: &str, group: &str) -> Option<(Offset, Found)> {
        let meaning = record.meaning(topic_id, group)?;
        if meaning.epoch < self.latest {
            return None;
        }
        self.latest = meaning.epoch;
        let fate = match (meaning.note.kind(), meaning.note.end()) {
            (Kind::Parked, _) => Fate::Parked,
            (Kind::Rejected, _) | (Kind::Closed, End::Rejected) => Fate::Rejected,
            (Kind::Closed, End::Dropped) => Fate::Dropped,
            (Kind::Closed | Kind::Unspecified, _) => Fate::Done,
        };
        Some((meaning.offset, Found { fate, position: record.position, size: record.size }))
    }
}
