//! The statements of the writing connection.

use super::{
    queue::{OffsetCommit, Write},
    schema::{CHUNK, Tail, encode_ends},
};
use bytes::{Bytes, BytesMut};
use rusqlite::{Connection, Result, Statement};

/// Prepared once, used by one thread.
pub(super) struct Store<'c> {
    connection: &'c Connection,
    begin: Statement<'c>,
    commit: Statement<'c>,
    insert: Statement<'c>,
    park: Statement<'c>,
    requests: Statement<'c>,
    forget: Statement<'c>,
    stage: Statement<'c>,
    unstage: Statement<'c>,
    chunk: Statement<'c>,
    offset: Statement<'c>,
    ends: Statement<'c>,
    synced: bool,
}

/// Where and when a record is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) seq: u64,
    pub(super) offset: u64,
    pub(super) timestamp_ms: i64,
}

/// Where a value is to be stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// In its row.
    InRow,
    /// In the chunks from this id on.
    Chunks(u64),
}

impl<'c> Store<'c> {
    pub(super) fn new(connection: &'c Connection) -> Result<Self> {
        Ok(Self {
            connection,
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            insert: connection.prepare("INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?,
            park: connection.prepare(
                "INSERT INTO parked (partition, timestamp_ms, size, chunk, key, parked, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?,
            requests: connection.prepare("INSERT INTO requests VALUES (?1, ?2)")?,
            forget: connection.prepare("DELETE FROM requests WHERE seq < ?1")?,
            stage: connection.prepare("INSERT INTO staging VALUES (?1, ?2)")?,
            unstage: connection.prepare("DELETE FROM staging WHERE chunk = ?1")?,
            chunk: connection.prepare("INSERT INTO chunks VALUES (?1, ?2)")?,
            offset: connection.prepare(
                "INSERT INTO offsets VALUES (?1, ?2, ?3, ?4) ON CONFLICT (partition) \
                 DO UPDATE SET committed = excluded.committed, seq = excluded.seq, mark = excluded.mark",
            )?,
            ends: connection.prepare("UPDATE meta SET ends_seq = ?1, ends = ?2")?,
            synced: true,
        })
    }

    /// The connection, between transactions.
    pub(super) fn connection(&self) -> &'c Connection {
        self.connection
    }

    /// Begins a transaction whose commit is synced, or not: what an unsynced one wrote is durable with the next synced one.
    pub(super) fn begin(&mut self, synced: bool) -> Result<()> {
        if synced != self.synced {
            self.connection.pragma_update(None, "synchronous", if synced { "FULL" } else { "NORMAL" })?;
            self.synced = synced;
        }
        self.begin.raw_execute().map(|_| ())
    }

    pub(super) fn commit(&mut self) -> Result<()> {
        self.commit.raw_execute().map(|_| ())
    }

    /// Ends a transaction that failed, if SQLite has not done so by itself.
    pub(super) fn rollback(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the embedded log could not roll back");
        }
    }

    /// Writes a record's row.
    pub(super) fn insert(&mut self, at: At, write: &Write, place: Place) -> Result<()> {
        let (chunk, inline) = columns(place, &write.value);
        let size = write.value.len() as i64;
        let (seq, offset, key) = (at.seq as i64, at.offset as i64, &write.key[..]);
        self.insert
            .execute((seq, write.partition.0, offset, at.timestamp_ms, size, chunk, key, inline))
            .map(|_| ())
    }

    /// Writes a parked task's row and returns its id.
    pub(super) fn park(
        &mut self,
        write: &Write,
        parked: &[u8],
        timestamp_ms: i64,
        place: Place,
    ) -> Result<u64> {
        let (chunk, inline) = columns(place, &write.value);
        let size = write.value.len() as i64;
        let id = self.park.insert((
            write.partition.0,
            timestamp_ms,
            size,
            chunk,
            &write.key[..],
            parked,
            inline,
        ))?;
        Ok(id as u64)
    }

    /// Notes which records are those of idempotent appends. The last of them is at `seq`.
    pub(super) fn requests(&mut self, seq: u64, entries: &[u8]) -> Result<()> {
        self.requests.execute((seq as i64, entries)).map(|_| ())
    }

    /// Deletes the notes of the records before `seq`: the index has them.
    pub(super) fn forget_requests(&mut self, seq: u64) -> Result<()> {
        self.forget.execute((seq as i64,)).map(|_| ())
    }

    /// Notes that chunks are being written for a record that is not there yet.
    pub(super) fn stage(&mut self, first: u64, count: u64) -> Result<()> {
        self.stage.execute((first as i64, count as i64)).map(|_| ())
    }

    /// The record is there: its chunks are its own.
    pub(super) fn unstage(&mut self, first: u64) -> Result<()> {
        self.unstage.execute((first as i64,)).map(|_| ())
    }

    /// Writes the chunk at `index` of a value whose first chunk is `first`.
    pub(super) fn chunk(&mut self, first: u64, index: u64, value: &[u8]) -> Result<()> {
        let start = index as usize * CHUNK;
        let end = (start + CHUNK).min(value.len());
        self.chunk.execute(((first + index) as i64, &value[start..end])).map(|_| ())
    }

    pub(super) fn commit_offsets(&mut self, commit: &OffsetCommit) -> Result<()> {
        for one in &commit.offsets {
            self.offset.execute((one.partition.0, one.offset.0 as i64, one.seq as i64, &one.mark))?;
        }
        Ok(())
    }

    /// Notes where the log ends, so that opening it need not read it from the start.
    pub(super) fn note_ends(&mut self, tail: &Tail) -> Result<()> {
        self.ends.execute((tail.seq as i64, encode_ends(&tail.ends))).map(|_| ())
    }
}

fn columns(place: Place, value: &[u8]) -> (Option<i64>, Option<&[u8]>) {
    match place {
        Place::InRow => (None, Some(value)),
        Place::Chunks(first) => (Some(first as i64), None),
    }
}

/// The chunks that a value of `size` bytes takes; 0 for one that is stored in its row.
pub(super) fn chunks_of(size: usize) -> u64 {
    if size <= CHUNK { 0 } else { size.div_ceil(CHUNK) as u64 }
}

/// Reads a value that is stored in chunks into one buffer of its size, each chunk in a transaction of its own.
pub(super) fn read_chunks(connection: &Connection, first: u64, size: usize) -> Result<Bytes> {
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
