//! Tasks that were put aside, for the operator.

use super::{schema::open_reader, store::chunks_of};
use crate::Error;
use bytes::{Bytes, BytesMut};
use partita_core::Partition;
use rusqlite::{Connection, OptionalExtension};
use std::path::Path;

/// One parked task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedTask {
    /// Its number; later ones are greater.
    pub id: u64,
    /// The partition that it was read from.
    pub partition: Partition,
    /// When it was parked, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The task's key.
    pub key: Bytes,
    /// Why, as an encoded `partita.v1.Parked`.
    pub parked: Bytes,
    /// The record's value, as it was read.
    pub value: Bytes,
}

/// An iterator over parked tasks that holds one in memory at a time.
pub struct ParkedTasks {
    connection: Connection,
    after: i64,
}

impl ParkedTasks {
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let connection = open_reader(dir).map_err(|error| failed(&error))?;
        Ok(Self { connection, after: 0 })
    }

    fn read(&mut self) -> rusqlite::Result<Option<ParkedTask>> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT id, partition, timestamp_ms, size, chunk, key, parked, value FROM parked WHERE id > ?1 ORDER BY id LIMIT 1",
            )?
            .query_row([self.after], |row| {
                let bytes = |index: usize| -> rusqlite::Result<Bytes> {
                    Ok(row.get_ref(index)?.as_blob_or_null()?.map(Bytes::copy_from_slice).unwrap_or_default())
                };
                let (size, chunk): (i64, Option<i64>) = (row.get(3)?, row.get(4)?);
                let task = ParkedTask {
                    id: row.get::<_, i64>(0)? as u64,
                    partition: Partition(row.get(1)?),
                    timestamp_ms: row.get(2)?,
                    key: bytes(5)?,
                    parked: bytes(6)?,
                    value: bytes(7)?,
                };
                Ok((task, size as usize, chunk))
            })
            .optional()?;
        let Some((mut task, size, chunk)) = found else { return Ok(None) };
        if let Some(first) = chunk {
            task.value = read_chunks(&self.connection, first as u64, size)?;
        }
        self.after = task.id as i64;
        Ok(Some(task))
    }
}

impl Iterator for ParkedTasks {
    type Item = Result<ParkedTask, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().map_err(|error| failed(&error)).transpose()
    }
}

/// Reads a value that is stored in chunks into one buffer of its size, each chunk in a transaction of its own.
pub(super) fn read_chunks(connection: &Connection, first: u64, size: usize) -> rusqlite::Result<Bytes> {
    let mut value = BytesMut::with_capacity(size);
    let mut chunk = connection.prepare_cached("SELECT data FROM chunks WHERE id = ?1")?;
    for id in first..first + chunks_of(size) {
        chunk.query_row([id as i64], |row| {
            value.extend_from_slice(row.get_ref(0)?.as_blob()?);
            Ok(())
        })?;
    }
    if value.len() != size {
        return Err(rusqlite::Error::IntegralValueOutOfRange(0, value.len() as i64));
    }
    Ok(value.freeze())
}

fn failed(error: &rusqlite::Error) -> Error {
    Error::Log(format!("cannot read the embedded log's parked tasks: {error}"))
}
