//! The writing half of the scripted log.

use super::{ScriptedLog, Step};
use crate::log::{
    AppendError, AppendFuture, BacklogFuture, CommittedFuture, Extent, ExtentFuture, JournalFuture,
    JournalPage, JournalRead, JournalRecord, LogHealth, NewRecord, NotWritten, ParkedRecord, Reach, Receipt,
    Reply, TaskLog,
};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, ready};
use partita_core::{Offset, Partition, Position};
use partita_proto::v1::{Parked, parked::Kind};
use prost::Message;

/// Records of a journal that are read at once: few, so that tests turn pages.
const PAGE: usize = 2;

impl TaskLog for ScriptedLog {
    fn topic(&self) -> &str {
        "scripted"
    }

    fn topic_id(&self) -> &str {
        "scripted-0"
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn submit(&self, partition: Partition, record: NewRecord, reply: Reply) {
        let mut state = self.state();
        let offset = state.end(partition);
        let appended = match state.partitions.get_mut(partition.0 as usize) {
            Some(stored) => {
                stored.records.push((record.key, record.value));
                Ok(Receipt::new(partition, offset))
            }
            None => Err(refused(NotWritten::Away, "there is no such partition")),
        };
        if !state.manual {
            state.deliver(partition, usize::MAX);
        }
        drop(state);
        reply.send(appended);
    }

    fn park(&self, partition: Partition, record: ParkedRecord) -> AppendFuture {
        let mut state = self.state();
        if state.fail_parks > 0 {
            state.fail_parks -= 1;
            return ready(Err(refused(NotWritten::Away, "the script says that parking fails"))).boxed();
        }
        let note = Parked::decode(record.parked.clone()).ok();
        let Some((note, stored)) = note.zip(state.partitions.get_mut(partition.0 as usize)) else {
            return ready(Err(refused(NotWritten::Away, "this is no note of a parked task"))).boxed();
        };
        let position = Offset(stored.journal.len() as u64);
        stored.journal.push(record);
        let offset = Offset(note.offset);
        state.history.push(match note.kind() {
            Kind::Closed => Step::Closed(partition, offset),
            Kind::Parked | Kind::Rejected | Kind::Unspecified => Step::Parked(partition, offset),
        });
        self.changed.notify_one();
        ready(Ok(Receipt::new(partition, position))).boxed()
    }

    fn committed(&self, partition: Partition) -> CommittedFuture {
        let state = self.state();
        let stored = state.partitions.get(partition.0 as usize);
        let committed = stored.and_then(|stored| stored.committed.as_ref()).map(|(offset, _)| *offset);
        ready(Ok(committed)).boxed()
    }

    fn backlog(&self) -> BacklogFuture {
        let state = self.state();
        let reach = |number| {
            let partition = Partition(number);
            let stored = state.partitions.get(number as usize);
            let committed = stored.and_then(|stored| stored.committed.as_ref()).map(|(offset, _)| *offset);
            Reach { partition, committed, first: Offset(0), end: state.end(partition) }
        };
        ready(Ok((0..self.partitions).map(reach).collect())).boxed()
    }

    fn journal(&self, partition: Partition, from: Position, read: JournalRead) -> JournalFuture {
        let state = self.state();
        let stored = state.partitions.get(partition.0 as usize);
        let journal = stored.map_or(&[][..], |stored| &stored.journal);
        let limit = if read == JournalRead::Values(0) { 1 } else { PAGE };
        let records = journal.iter().enumerate().skip(from.0 as usize).take(limit);
        let records: Vec<_> = records
            .map(|(position, record)| JournalRecord {
                position: Position(position as u64),
                timestamp_ms: 0,
                key: record.key.clone(),
                parked: record.parked.clone(),
                size: record.value.len() as u64,
                value: if read == JournalRead::Notes { Bytes::new() } else { record.value.clone() },
            })
            .collect();
        let next = Position(from.0 + records.len() as u64);
        ready(Ok(JournalPage { at_end: next.0 >= journal.len() as u64, records, next })).boxed()
    }

    fn extent(&self, partition: Partition, _: Option<i64>) -> ExtentFuture {
        ready(Ok(Extent { first: Offset(0), end: self.end(partition.0), at: None })).boxed()
    }

    fn health(&self) -> LogHealth {
        LogHealth::Ready
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        ready(()).boxed()
    }
}

fn refused(code: NotWritten, reason: &str) -> AppendError {
    AppendError::NotWritten { code, reason: reason.into() }
}
