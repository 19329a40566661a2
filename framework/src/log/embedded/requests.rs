//! The idempotent appends: which there were, and what became of each. Their table is written with their records, so that the two
//! are never apart; the index takes them from there, and then they leave the table.

use super::{schema::Found, store::At};
use crate::{
    Error,
    config::EmbeddedConfig,
    log::{
        AppendError, Idempotency, IdempotencyKey, NotWritten, PayloadDigest,
        idempotency::{Generations, Index, REUSED},
    },
};
use partita_core::Partition;
use rusqlite::Connection;

/// Appends that are deleted from the table in one transaction.
const FORGET: u64 = 4096;

/// What is known of an append before it is written.
pub(super) enum Known {
    /// It was not stored, as far as is remembered.
    New,
    /// It was stored at this offset.
    Stored(u64),
    /// It may not be.
    Refused(AppendError),
}

/// Used by the writer's thread.
pub(super) struct Requests {
    index: Index,
    /// Those of the transaction that is being written, as they are to stand in the table. The index has them already.
    row: Vec<u8>,
    /// Where the last of them is.
    last: u64,
    /// Of the table: the index has what is before this seq.
    indexed: u64,
    forgotten: u64,
}

/// A digest, a partition, an offset.
const VALUE: usize = 16 + 4 + 8;
/// In a partition's place: its request's digest is the log's own. Those of file versions before 4 were half of a SHA-256.
const KEYED: u32 = 1 << 31;
/// A key and its value: what the table's rows consist of.
const ENTRY: usize = 16 + VALUE;

impl Requests {
    /// Opens the index beside the log, and reads what it does not have yet.
    pub(super) fn open(
        connection: &Connection,
        config: &EmbeddedConfig,
        found: &Found,
    ) -> Result<Self, Error> {
        // What is remembered of another log that was here would be receipts for tasks that this one does not have.
        let dir = config.dir.join("requests").join(&found.topic_id);
        let mut generations = Generations::open(&dir, config.idempotency_window)?;
        let mut indexed = position_of(generations.position());
        if indexed > found.tail.seq {
            tracing::error!(
                dir = %dir.display(),
                "the log is older than the index of its idempotency keys, as a backup that was put back is: the keys are forgotten"
            );
            drop(generations);
            std::fs::remove_dir_all(&dir)
                .map_err(|error| Error::Log(format!("cannot remove {}: {error}", dir.display())))?;
            generations = Generations::open(&dir, config.idempotency_window)?;
            indexed = 0;
        }
        let index = Index::new(generations)?;
        let first =
            connection.query_row("SELECT min(seq) FROM requests", [], |row| row.get::<_, Option<i64>>(0));
        let opened = first.and_then(|first| {
            let forgotten = first.map_or(indexed, |first| first as u64);
            let mut requests = Self { index, row: Vec::new(), last: 0, indexed, forgotten };
            requests.read_again(connection)?;
            Ok(requests)
        });
        opened.map_err(|error| {
            Error::Log(format!("cannot read the idempotency keys of {}: {error}", config.dir.display()))
        })
    }

    /// Remembers everything that the table has beyond the index.
    pub(super) fn read_again(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut select = connection.prepare("SELECT entries FROM requests WHERE seq >= ?1")?;
        let mut rows = select.query([self.indexed as i64])?;
        while let Some(row) = rows.next()? {
            let (entries, rest) = row.get_ref(0)?.as_blob()?.as_chunks::<ENTRY>();
            if !rest.is_empty() {
                return Err(rusqlite::Error::IntegralValueOutOfRange(0, rest.len() as i64));
            }
            for entry in entries {
                if let Some((key, value)) = entry.split_first_chunk() {
                    self.index.remember(IdempotencyKey(*key), value.into());
                }
            }
        }
        Ok(())
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.row.clear();
    }

    /// It wrote nothing, or nobody knows: what it did write is found when the table is read again.
    pub(super) fn failed(&mut self) {
        for entry in self.row.as_chunks::<ENTRY>().0 {
            if let Some(key) = entry.first_chunk() {
                self.index.forget(&IdempotencyKey(*key));
            }
        }
    }

    /// What it wrote is durable.
    pub(super) fn committed(&mut self) {
        self.forgotten = self.forgettable().unwrap_or(self.forgotten);
    }

    pub(super) fn look(&self, idempotency: Option<&Idempotency>) -> Known {
        let Some(Idempotency { key, digest }) = idempotency else { return Known::New };
        match self.index.find(key) {
            Ok(Some(value)) => judge(&value, digest),
            Ok(None) if self.index.is_full() => refused(
                NotWritten::Busy,
                "the index of idempotency keys cannot be written: check the disk of log.embedded.dir",
            ),
            Ok(None) => Known::New,
            Err(error) => {
                tracing::error!(%error, "the index of idempotency keys cannot be read");
                refused(NotWritten::Away, &format!("the index of idempotency keys cannot be read: {error}"))
            }
        }
    }

    /// Notes where a new append is being stored.
    pub(super) fn stored(&mut self, idempotency: &Idempotency, partition: Partition, at: At) {
        let mut value = [0; VALUE];
        value[..16].copy_from_slice(&idempotency.digest.0);
        value[16..20].copy_from_slice(&(partition.0 | KEYED).to_le_bytes());
        value[20..].copy_from_slice(&at.offset.to_le_bytes());
        self.row.extend_from_slice(&idempotency.key.0);
        self.row.extend_from_slice(&value);
        self.index.remember(idempotency.key, value.into());
        self.last = at.seq;
    }

    /// What the transaction has to write of them: a row, and its seq.
    pub(super) fn staged(&self) -> Option<(u64, &[u8])> {
        (!self.row.is_empty()).then_some((self.last, &self.row))
    }

    /// The seq before which the table may be cleared, if there is anything to clear: a part at a time.
    pub(super) fn forgettable(&self) -> Option<u64> {
        let next = self.indexed.min(self.forgotten + FORGET);
        (next > self.forgotten).then_some(next)
    }

    /// Lets the index move on. `seq`: the next record's.
    pub(super) fn turn(&mut self, seq: u64) {
        match self.index.turn(|| seq.to_le_bytes().to_vec()) {
            Ok(Some(position)) => self.indexed = position_of(&position),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the index of idempotency keys cannot be read"),
        }
    }
}

fn judge(value: &[u8], digest: &PayloadDigest) -> Known {
    let Ok(value) = <&[u8; VALUE]>::try_from(value) else {
        return refused(NotWritten::Away, "the index of idempotency keys is damaged");
    };
    let (stored, place) = value.split_at(16);
    let partition = u32::from_le_bytes(std::array::from_fn(|byte| place[byte]));
    // Of a former version's only the name can be compared.
    if partition & KEYED != 0 && stored != digest.0 {
        return refused(NotWritten::Reused, REUSED);
    }
    Known::Stored(u64::from_le_bytes(std::array::from_fn(|byte| place[4 + byte])))
}

fn refused(code: NotWritten, reason: &str) -> Known {
    Known::Refused(AppendError::NotWritten { code, reason: reason.into() })
}

fn position_of(position: &[u8]) -> u64 {
    position.try_into().map_or(0, u64::from_le_bytes)
}
