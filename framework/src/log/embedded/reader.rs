//! Reads rows in the order of the log: from memory where the writer still has them, else from the file.

use super::{
    published::{Row, RowValue},
    shared::Shared,
    store::read_chunks,
};
use bytes::Bytes;
use partita_core::{Offset, Partition};
use rusqlite::{Connection, Result, types::ValueRef};
use std::sync::PoisonError;

/// Rows that one scan of the file looks at.
const SCAN_ROWS: usize = 8 << 10;
/// Rows that one scan of the memory takes: the writer waits for it.
const MEMORY_ROWS: usize = 1024;

/// Where the last scan ended.
pub(super) struct Scanned {
    /// The seq after the last row looked at.
    pub(super) to: u64,
}

/// A row as a scan shows it: its value is copied out only if it is wanted.
pub(super) struct Seen<'a> {
    pub(super) seq: u64,
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    pub(super) size: u64,
    source: Source<'a>,
}

enum Source<'a> {
    Memory(&'a Row),
    File(&'a rusqlite::Row<'a>),
}

/// A record's key and value.
pub(super) struct Content<'a> {
    pub(super) timestamp_ms: i64,
    pub(super) key: &'a [u8],
    pub(super) value: Value<'a>,
}

/// A value, or where it is.
pub(super) enum Value<'a> {
    /// It can be shared.
    Shared(&'a Bytes),
    /// It has to be copied.
    Borrowed(&'a [u8]),
    /// It is to be read with [`Reader::value`] when the scan has ended.
    Elsewhere(RowValue),
}

/// What a scan does after a row.
#[derive(PartialEq, Eq)]
pub(super) enum Next {
    /// On to the next one.
    More,
    /// The row was dealt with, the scan ends.
    Enough,
    /// The scan ends before the row.
    Before,
}

impl<'a> Seen<'a> {
    /// The record.
    pub(super) fn content(&self) -> Result<Content<'a>> {
        match self.source {
            Source::Memory(row) => Ok(Content {
                timestamp_ms: row.timestamp_ms,
                key: &row.key,
                value: match &row.value {
                    RowValue::Here(bytes) => Value::Shared(bytes),
                    elsewhere => Value::Elsewhere(elsewhere.clone()),
                },
            }),
            Source::File(row) => Ok(Content {
                timestamp_ms: row.get(3)?,
                key: row.get_ref(6)?.as_blob()?,
                value: match row.get_ref(5)? {
                    ValueRef::Integer(first) => {
                        Value::Elsewhere(RowValue::Chunks { first: first as u64, size: self.size })
                    }
                    _ => Value::Borrowed(row.get_ref(7)?.as_blob()?),
                },
            }),
        }
    }
}

/// The consumer's connection.
pub(super) struct Reader {
    connection: Connection,
}

impl Reader {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection }
    }

    /// Shows the rows from `from` to before `end`, in order, until `visit` has enough or a bound is reached.
    pub(super) fn scan(
        &self,
        shared: &Shared,
        from: u64,
        end: u64,
        mut visit: impl FnMut(&Seen<'_>) -> Result<Next>,
    ) -> Result<Scanned> {
        match shared.published.recent(from, MEMORY_ROWS) {
            Some(rows) => scan_memory(&rows, from, end, &mut visit),
            None => self.scan_file(shared, from, end, &mut visit),
        }
    }

    fn scan_file(
        &self,
        shared: &Shared,
        from: u64,
        end: u64,
        visit: &mut impl FnMut(&Seen<'_>) -> Result<Next>,
    ) -> Result<Scanned> {
        let _shared_with_writer = shared.gate.read().unwrap_or_else(PoisonError::into_inner);
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, partition, offset, timestamp_ms, size, chunk, key, value FROM records \
             WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT ?3",
        )?;
        let mut rows = statement.query((from as i64, end as i64, SCAN_ROWS as i64))?;
        let (mut count, mut to) = (0, from);
        while let Some(row) = rows.next()? {
            let seen = Seen {
                seq: row.get::<_, i64>(0)? as u64,
                partition: Partition(row.get(1)?),
                offset: Offset(row.get::<_, i64>(2)? as u64),
                size: row.get::<_, i64>(4)? as u64,
                source: Source::File(row),
            };
            match visit(&seen)? {
                Next::More => to = seen.seq + 1,
                Next::Enough => return Ok(Scanned { to: seen.seq + 1 }),
                Next::Before => return Ok(Scanned { to: seen.seq }),
            }
            count += 1;
        }
        Ok(Scanned { to: if count < SCAN_ROWS { end } else { to } })
    }

    /// Reads a value that a scan only pointed to.
    pub(super) fn value(&self, shared: &Shared, seq: u64, place: &RowValue) -> Result<Bytes> {
        match place {
            RowValue::Here(bytes) => Ok(bytes.clone()),
            RowValue::Chunks { first, size } => read_chunks(&self.connection, *first, *size as usize),
            RowValue::InRow { .. } => {
                let _shared_with_writer = shared.gate.read().unwrap_or_else(PoisonError::into_inner);
                let mut statement =
                    self.connection.prepare_cached("SELECT value FROM records WHERE seq = ?1")?;
                statement
                    .query_row([seq as i64], |row| Ok(Bytes::copy_from_slice(row.get_ref(0)?.as_blob()?)))
            }
        }
    }
}

fn scan_memory(
    rows: &[Row],
    from: u64,
    end: u64,
    visit: &mut impl FnMut(&Seen<'_>) -> Result<Next>,
) -> Result<Scanned> {
    let mut to = from;
    for row in rows.iter().take_while(|row| row.seq < end) {
        let seen = Seen {
            seq: row.seq,
            partition: row.partition,
            offset: row.offset,
            size: row.value.size(),
            source: Source::Memory(row),
        };
        match visit(&seen)? {
            Next::More => to = row.seq + 1,
            Next::Enough => return Ok(Scanned { to: row.seq + 1 }),
            Next::Before => return Ok(Scanned { to: row.seq }),
        }
    }
    Ok(Scanned { to })
}
