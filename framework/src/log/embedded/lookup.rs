//! What is looked up beside the stream of tasks: the parking table, which is the journal of every partition (`id` is the position, and a
//! partition's ids grow), and how far partitions reach.

use super::{schema::open_reader, store::read_chunks};
use crate::log::{Extent, JournalPage, JournalRead, JournalRecord, ReadError};
use bytes::Bytes;
use partita_core::{Offset, Partition, Position};
use rusqlite::{Connection, OptionalExtension, Result, Row};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

/// A page ends at this many records.
const PAGE: i64 = 4096;

/// The connection that is asked, opened at the first question. Its answers are blocking reads.
pub(super) struct Lookup {
    dir: PathBuf,
    connection: Mutex<Option<Connection>>,
}

impl Lookup {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, connection: Mutex::default() }
    }

    /// A page of a partition's parking journal.
    pub(super) fn journal(
        &self,
        partition: Partition,
        from: Position,
        read: JournalRead,
    ) -> std::result::Result<JournalPage, ReadError> {
        self.ask(|connection| page(connection, partition, from, read))
    }

    /// What a partition of the log, which ends at `end`, reaches over.
    pub(super) fn extent(
        &self,
        partition: Partition,
        end: Offset,
        time_ms: Option<i64>,
    ) -> std::result::Result<Extent, ReadError> {
        self.ask(|connection| extent(connection, partition, end, time_ms))
    }

    /// The next offset to read of a partition, as it is stored.
    pub(super) fn committed(&self, partition: Partition) -> std::result::Result<Option<Offset>, ReadError> {
        self.ask(|connection| {
            let mut select =
                connection.prepare_cached("SELECT committed FROM offsets WHERE partition = ?1")?;
            let offset = select.query_row([partition.0], |row| row.get::<_, i64>(0)).optional()?;
            Ok(offset.map(|offset| Offset(offset as u64)))
        })
    }

    /// The next offset to read of each partition of which one is stored.
    pub(super) fn all_committed(&self) -> std::result::Result<HashMap<Partition, Offset>, ReadError> {
        self.ask(|connection| {
            let mut select = connection.prepare_cached("SELECT partition, committed FROM offsets")?;
            let stored = select
                .query_map([], |row| Ok((Partition(row.get(0)?), Offset(row.get::<_, i64>(1)? as u64))))?;
            stored.collect()
        })
    }

    fn ask<T>(&self, question: impl FnOnce(&Connection) -> Result<T>) -> std::result::Result<T, ReadError> {
        let mut slot = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match slot.as_ref() {
            Some(connection) => question(connection),
            None => open_reader(&self.dir).and_then(|connection| question(slot.insert(connection))),
        };
        answer.map_err(|error| ReadError(error.to_string()))
    }
}

fn extent(
    connection: &Connection,
    partition: Partition,
    end: Offset,
    time_ms: Option<i64>,
) -> Result<Extent> {
    // In the order of arrival, which is that of the offsets of a partition.
    let first_since = |time_ms: i64| -> Result<Option<Offset>> {
        connection
            .query_row(
                "SELECT offset FROM records WHERE partition = ?1 AND timestamp_ms >= ?2 ORDER BY seq LIMIT 1",
                (partition.0, time_ms),
                |row| Ok(Offset(row.get::<_, i64>(0)? as u64)),
            )
            .optional()
    };
    let at = time_ms.map(first_since).transpose()?.flatten();
    Ok(Extent { first: first_since(i64::MIN)?.unwrap_or(end), end, at })
}

fn page(
    connection: &Connection,
    partition: Partition,
    from: Position,
    read: JournalRead,
) -> Result<JournalPage> {
    let whole = read != JournalRead::Notes;
    let limit = if read == JournalRead::Values(0) { 1 } else { PAGE };
    let mut statement = connection.prepare_cached(if whole {
        "SELECT id, timestamp_ms, size, key, parked, chunk, value FROM parked WHERE partition = ?1 AND id >= ?2 ORDER BY id LIMIT ?3"
    } else {
        "SELECT id, timestamp_ms, size, key, parked FROM parked WHERE partition = ?1 AND id >= ?2 ORDER BY id LIMIT ?3"
    })?;
    let from_id = i64::try_from(from.0).unwrap_or(i64::MAX);
    let mut rows = statement.query((partition.0, from_id, limit))?;
    let mut page = JournalPage { next: from, ..JournalPage::default() };
    while let Some(row) = rows.next()? {
        let mut record = record(row)?;
        if !page.takes(record.size, read) {
            return Ok(page);
        }
        if whole {
            record.value = match row.get::<_, Option<i64>>(5)? {
                Some(first) => read_chunks(connection, first as u64, record.size as usize)?,
                None => bytes(row, 6)?,
            };
        }
        page.next = record.position.next();
        page.records.push(record);
    }
    page.at_end = (page.records.len() as i64) < limit;
    Ok(page)
}

fn record(row: &Row<'_>) -> Result<JournalRecord> {
    Ok(JournalRecord {
        position: Position(row.get::<_, i64>(0)? as u64),
        timestamp_ms: row.get(1)?,
        size: row.get::<_, i64>(2)? as u64,
        key: bytes(row, 3)?,
        parked: bytes(row, 4)?,
        value: Bytes::new(),
    })
}

fn bytes(row: &Row<'_>, index: usize) -> Result<Bytes> {
    Ok(row.get_ref(index)?.as_blob_or_null()?.map(Bytes::copy_from_slice).unwrap_or_default())
}

/// For each partition, where its journal ends.
pub(super) fn ends(connection: &Connection, partitions: u32) -> Result<Vec<Position>> {
    let mut ends = vec![Position(0); partitions as usize];
    let mut last = connection.prepare("SELECT partition, max(id) FROM parked GROUP BY partition")?;
    let mut rows = last.query([])?;
    while let Some(row) = rows.next()? {
        let (partition, id): (u32, i64) = (row.get(0)?, row.get(1)?);
        if let Some(end) = ends.get_mut(partition as usize) {
            *end = Position(id as u64).next();
        }
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_chunks_needs_all_of_them() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE chunks (id INTEGER PRIMARY KEY, data BLOB NOT NULL)").unwrap();
        assert!(read_chunks(&connection, 1, 1 << 20).is_err());
    }
}
