//! The parked tasks of the partitions that this process owns.
//!
//! A task is parked when its attempts are spent, when its handler asks for it, or when it cannot be read; every later task of its key is
//! parked behind it. Redriven, a key's tasks are handled again in order, until one fails again or none is left.

use super::{OperationError, Operations};
use crate::{
    actor::{Listed, ParkedTasks, Selection},
    envelope,
    log::{JournalRead, ReadError},
    memory::Reservation,
};
use bytes::Bytes;
use partita_core::{Offset, Partition, partition_of};
use partita_proto::v1::{Envelope, Parked};
use prost::Message;
use std::sync::Arc;

/// Which parked tasks are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParkedSelection {
    /// All of this process's partitions, but for the [unread](Operations::unread_partitions) ones.
    All,
    /// Those of a partition.
    Partition(u32),
    /// Those of a key.
    Key(Bytes),
    /// One, by the partition and offset of its task topic.
    Task(u32, u64),
}

/// A parked task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedTask {
    /// Its partition.
    pub partition: u32,
    /// Its offset in the task topic.
    pub offset: u64,
    /// Its key.
    pub key: Bytes,
    /// The bytes of its record.
    pub bytes: u64,
    /// Why it is parked: attempts, parked, undecodable, unknown_type; gone, where its record is not in the journal any more; or behind, where an earlier task of its key is.
    pub cause: String,
    /// The last failure, for people; empty for a task that was never tried.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was parked or last tried, in milliseconds since the Unix epoch; 0 for a task that was never tried.
    pub parked_at_ms: u64,
    /// Whether its key is being redriven.
    pub redriving: bool,
}

/// A parked task with what is stored of it.
#[derive(Debug)]
pub struct ParkedDetail {
    /// As it is listed.
    pub task: ParkedTask,
    /// What was noted when it was parked.
    pub note: Parked,
    /// Its envelope without the payload; `None` where it cannot be read.
    pub envelope: Option<Envelope>,
    /// The payload; where the envelope cannot be read, the whole value.
    pub payload: Bytes,
}

/// A payload and the memory that it is reserved from.
struct Held {
    payload: Bytes,
    _memory: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

/// What was asked to be redriven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redriven {
    /// Keys.
    pub keys: u64,
    /// Their tasks.
    pub tasks: u64,
}

impl Operations {
    /// The parked tasks that are meant, by partition and offset.
    pub fn list_parked(&self, selection: &ParkedSelection) -> Result<Vec<ParkedTask>, OperationError> {
        let mut tasks = Vec::new();
        for (partition, parked, selected) in self.resolve(selection)? {
            tasks.extend(parked.select(&selected).into_iter().map(|listed| task(partition, listed)));
        }
        tasks.sort_by_key(|task| (task.partition, task.offset));
        Ok(tasks)
    }

    /// One parked task with all that is stored of it; `None` where it is not parked.
    pub async fn show_parked(
        &self,
        partition: u32,
        offset: u64,
    ) -> Result<Option<ParkedDetail>, OperationError> {
        let parked = self.ready(partition)?;
        let Some(listed) = parked.select(&Selection::One(Offset(offset))).into_iter().next() else {
            return Ok(None);
        };
        let weight = listed.entry.weight;
        let memory = self.memory.reserve(weight.value + weight.decompressed).await;
        let position = listed.entry.position;
        let page = self.log.journal(Partition(partition), position, JournalRead::Values(0)).await?;
        let Some(record) = page.records.into_iter().next().filter(|record| record.position == position)
        else {
            return Ok(None);
        };
        let note = Parked::decode(record.parked).unwrap_or_default();
        let (value, max_task) = (record.value, self.max_task);
        // The listener that asks has one thread.
        let opened = tokio::task::spawn_blocking(move || open(value, max_task)).await;
        let (payload, envelope) = opened.map_err(|error| ReadError(error.to_string()))?;
        let payload = Bytes::from_owner(Held { payload, _memory: memory });
        Ok(Some(ParkedDetail { task: task(partition, listed), note, envelope, payload }))
    }

    /// Has the keys of the selected tasks handled again, each from its first parked task on. Returns at once.
    pub fn redrive(&self, selection: &ParkedSelection) -> Result<Redriven, OperationError> {
        let mut redriven = Redriven { keys: 0, tasks: 0 };
        for (_, parked, selected) in self.resolve(selection)? {
            let (keys, tasks) = parked.redrive(&selected);
            redriven = Redriven { keys: redriven.keys + keys, tasks: redriven.tasks + tasks };
        }
        Ok(redriven)
    }

    /// Gives the selected tasks up: they will never be handled. Returns how many, once that is durable.
    pub async fn drop_parked(
        &self,
        selection: &ParkedSelection,
        reason: &str,
    ) -> Result<u64, OperationError> {
        let orders: Vec<_> = self
            .resolve(selection)?
            .into_iter()
            .map(|(partition, parked, selected)| (partition, parked.drop_tasks(selected, reason.to_owned())))
            .collect();
        let mut dropped = 0;
        for (partition, answer) in orders {
            dropped += answer.await.map_err(|_| OperationError::TakenAway(partition))?;
        }
        Ok(dropped)
    }

    /// The owned partitions that do not know yet what is parked in them: nothing can be asked of them.
    pub fn unread_partitions(&self) -> Vec<u32> {
        let unread = |partition: &u32| matches!(self.ready(*partition), Err(OperationError::NotReady(_)));
        self.owned_partitions().into_iter().filter(unread).collect()
    }

    /// The parked tasks of an owned partition, once they are known.
    fn ready(&self, partition: u32) -> Result<Arc<ParkedTasks>, OperationError> {
        Some(self.owned(partition)?)
            .filter(|parked| parked.is_ready())
            .ok_or(OperationError::NotReady(partition))
    }

    /// Where the selected tasks are.
    fn resolve(
        &self,
        selection: &ParkedSelection,
    ) -> Result<Vec<(u32, Arc<ParkedTasks>, Selection)>, OperationError> {
        let one = |partition, selection| Ok(vec![(partition, self.ready(partition)?, selection)]);
        match selection {
            ParkedSelection::All => {
                let known = |partition| Some((partition, self.ready(partition).ok()?, Selection::All));
                Ok(self.owned_partitions().into_iter().filter_map(known).collect())
            }
            ParkedSelection::Partition(partition) => one(*partition, Selection::All),
            ParkedSelection::Task(partition, offset) => one(*partition, Selection::One(Offset(*offset))),
            ParkedSelection::Key(key) => {
                let partition = partition_of(key, self.log.partitions());
                one(partition.0, Selection::Key(key.clone()))
            }
        }
    }
}

/// The payload and the rest of the envelope; the whole value where that cannot be read.
fn open(value: Bytes, max_task: u64) -> (Bytes, Option<Envelope>) {
    let opened = envelope::decode(value.clone(), max_task)
        .and_then(|mut envelope| Ok((envelope::payload(&mut envelope)?, envelope)));
    match opened {
        Ok((payload, envelope)) => (payload, Some(envelope)),
        Err(_) => (value, None),
    }
}

fn task(partition: u32, listed: Listed) -> ParkedTask {
    let Listed { key, offset, entry, cause, redriving } = listed;
    let (cause, reason, attempts, parked_at_ms) = match cause {
        Some(cause) => (cause.label, cause.reason, cause.attempts, cause.parked_at_ms),
        None => ("behind".to_owned(), String::new(), 0, 0),
    };
    let bytes = entry.weight.value;
    ParkedTask { partition, offset: offset.0, key, bytes, cause, reason, attempts, parked_at_ms, redriving }
}
