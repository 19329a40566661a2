//! The log's file: its tables, and what is checked before it is used.
//!
//! All partitions share one table in the order of arrival (`seq`), so that a group of appends fills the same few pages whatever
//! partitions it is for. A value above [`CHUNK`] bytes is stored in `chunks`, ids `chunk` to `chunk + ceil(size / CHUNK) - 1`, so
//! that no transaction and no buffer ever holds all of it. `ends` is the next offset of each partition as of `ends_seq`; the
//! rows from there on say the rest.

use super::lookup;
use crate::{Error, config::EmbeddedConfig, log::journal::mark_from_text};
use partita_core::{Mark, Position};
use rusqlite::{Connection, OpenFlags};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

/// The largest value that is stored in its row, and the size of a chunk.
pub(super) const CHUNK: usize = 512 << 10;

/// What this version writes and reads.
const SCHEMA_VERSION: i64 = 4;

/// "prta": `file` and the like can tell what it is.
const APPLICATION_ID: i64 = 0x7072_7461;

/// Large pages: fewer frames, checksums and system calls for each byte of a large task.
pub(super) const PAGE_SIZE: u64 = 32 << 10;

/// The writer's page cache in KiB: above it, SQLite spills to the WAL.
const WRITER_CACHE_KIB: i64 = 12 << 10;
const READER_CACHE_KIB: i64 = 4 << 10;

const TABLES: &str = "
    CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 0),
        topic_id TEXT NOT NULL,
        partitions INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        ends_seq INTEGER NOT NULL,
        ends BLOB NOT NULL
    );
    CREATE TABLE records (
        seq INTEGER PRIMARY KEY,
        partition INTEGER NOT NULL,
        offset INTEGER NOT NULL,
        timestamp_ms INTEGER NOT NULL,
        size INTEGER NOT NULL,
        chunk INTEGER,
        key BLOB NOT NULL,
        value BLOB
    );
    CREATE TABLE chunks (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
    -- Chunk ranges whose record is not written yet: after a crash they belong to nobody.
    CREATE TABLE staging (chunk INTEGER PRIMARY KEY, count INTEGER NOT NULL);
    -- The next offset to read of each partition, and a seq that no later record of it is before.
    CREATE TABLE offsets (partition INTEGER PRIMARY KEY, committed INTEGER NOT NULL, seq INTEGER NOT NULL);
    CREATE TABLE parked (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        partition INTEGER NOT NULL,
        timestamp_ms INTEGER NOT NULL,
        size INTEGER NOT NULL,
        chunk INTEGER,
        key BLOB NOT NULL,
        parked BLOB NOT NULL,
        value BLOB
    );
    CREATE TABLE probe (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
";

/// What each version added to the one before it, from version 2 on.
const ADDITIONS: &[&str] = &[
    "
    -- What the next owner has to know to read the parking journal of the partition.
    ALTER TABLE offsets ADD COLUMN mark TEXT NOT NULL DEFAULT '';
    -- The parking table is the journal of each partition.
    CREATE INDEX parked_of_partition ON parked (partition, id);
",
    "
    -- The idempotent appends among the records (`seq`), until the index of them has them on the disk.
    CREATE TABLE requests (seq INTEGER PRIMARY KEY, key BLOB NOT NULL, value BLOB NOT NULL);
",
    "
    -- Those of one transaction in one row, at the `seq` of the last of them.
    ALTER TABLE requests RENAME TO requests_one_by_one;
    CREATE TABLE requests (seq INTEGER PRIMARY KEY, entries BLOB NOT NULL);
    INSERT INTO requests SELECT seq, CAST(key || value AS BLOB) FROM requests_one_by_one;
    DROP TABLE requests_one_by_one;
    -- The secret that payloads are digested with.
    ALTER TABLE meta ADD COLUMN digest_key BLOB NOT NULL DEFAULT x'';
    UPDATE meta SET digest_key = randomblob(32);
",
];

/// What a log is, as found when it was opened.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) topic_id: String,
    /// What payloads are digested with.
    pub(super) digest_key: [u8; 32],
    /// Grows with each opening.
    pub(super) generation: u32,
    pub(super) tail: Tail,
    /// For each partition: the next offset to read, and the seq from where to look for it.
    pub(super) offsets: Vec<(u64, u64)>,
    /// For each partition: the mark that was committed, and where its parking journal ends.
    pub(super) journals: Vec<(Mark, Position)>,
    /// The first id that no chunk has.
    pub(super) next_chunk: u64,
}

/// Where the log ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// The next seq.
    pub(super) seq: u64,
    /// The next offset of each partition.
    pub(super) ends: Vec<u64>,
}

/// The database's path in a log directory.
pub(super) fn database(dir: &Path) -> PathBuf {
    dir.join("log.db")
}

/// Opens the writing connection, making the log where there is none.
pub(super) fn open_writer(config: &EmbeddedConfig) -> Result<(Connection, Found), Error> {
    let path = database(&config.dir);
    let fresh = !path.exists();
    let failed = |error: rusqlite::Error| unusable(&path, &error);
    let mut connection = Connection::open(&path).map_err(failed)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(failed)?;
    refuse_newer(&connection, &path)?;
    settle(&connection).map_err(failed)?;
    create(&mut connection, config.partitions).map_err(failed)?;
    if fresh {
        sync_directories(&config.dir).map_err(|error| {
            Error::Log(format!("cannot sync {}: {error}; check the disk", config.dir.display()))
        })?;
    }
    let found = inspect(&mut connection, config, &path)?;
    Ok((connection, found))
}

/// Opens a connection that only reads records.
pub(super) fn open_reader(dir: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database(dir), flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

fn unusable(path: &Path, error: &rusqlite::Error) -> Error {
    Error::Log(format!(
        "cannot open the embedded log {}: {error}; check log.embedded.dir, its permissions and the disk",
        path.display()
    ))
}

fn refuse_newer(connection: &Connection, path: &Path) -> Result<(), Error> {
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| unusable(path, &error))?;
    if version > SCHEMA_VERSION {
        return Err(Error::Log(format!(
            "the embedded log {} has schema version {version}, this partita knows up to {SCHEMA_VERSION}: it was written by a newer \
             partita; run that one, or use another log.embedded.dir",
            path.display()
        )));
    }
    Ok(())
}

fn settle(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.pragma_update(None, "page_size", PAGE_SIZE as i64)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

fn create(connection: &mut Connection, partitions: u32) -> Result<(), rusqlite::Error> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    if version == 0 {
        transaction.execute_batch(TABLES)?;
        let ends = encode_ends(&vec![0; partitions as usize]);
        transaction
            .execute("INSERT INTO meta VALUES (0, ?1, ?2, 0, 0, ?3)", (random_uuid(), partitions, ends))?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    // All of a file's additions happen, or none.
    for addition in &ADDITIONS[version.max(1) as usize - 1..] {
        transaction.execute_batch(addition)?;
    }
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()
}

/// SQLite syncs the directory for the files it makes beside the database, but not for the database itself.
fn sync_directories(dir: &Path) -> std::io::Result<()> {
    let dir = fs::canonicalize(dir)?;
    File::open(&dir)?.sync_all()?;
    match dir.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn inspect(connection: &mut Connection, config: &EmbeddedConfig, path: &Path) -> Result<Found, Error> {
    let failed = |error: rusqlite::Error| unusable(path, &error);
    let (topic_id, partitions): (String, u32) = connection
        .query_row("SELECT topic_id, partitions FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(failed)?;
    if partitions != config.partitions {
        return Err(Error::Log(format!(
            "the embedded log {} was made with {partitions} partitions, log.embedded.partitions is {}: a key's partition depends on \
             it; set log.embedded.partitions = {partitions}, or use another log.embedded.dir",
            path.display(),
            config.partitions
        )));
    }
    let transaction = connection.transaction().map_err(failed)?;
    let found = read_state(&transaction, topic_id, partitions).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    Ok(found)
}

fn read_state(connection: &Connection, topic_id: String, partitions: u32) -> Result<Found, rusqlite::Error> {
    connection.execute("UPDATE meta SET generation = generation + 1", [])?;
    forget_unfinished(connection)?;
    let (generation, digest_key) =
        connection
            .query_row("SELECT generation, digest_key FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let tail = read_tail(connection, partitions)?;
    let mut offsets = vec![(0, 0); partitions as usize];
    let ends = lookup::ends(connection, partitions)?;
    let mut journals: Vec<_> = ends.into_iter().map(|end| (Mark::default(), end)).collect();
    let mut stored = connection.prepare("SELECT partition, committed, seq, mark FROM offsets")?;
    let mut rows = stored.query([])?;
    while let Some(row) = rows.next()? {
        let (partition, committed, seq): (u32, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if let Some(slot) = offsets.get_mut(partition as usize) {
            *slot = (committed as u64, seq as u64);
            let mark: String = row.get(3)?;
            journals[partition as usize].0 = mark_from_text(&mark).unwrap_or_default();
        }
    }
    let next_chunk: i64 = connection.query_row(
        "SELECT max(coalesce((SELECT max(id) + 1 FROM chunks), 1), coalesce((SELECT max(chunk + count) FROM staging), 1))",
        [],
        |row| row.get(0),
    )?;
    Ok(Found { topic_id, digest_key, generation, tail, offsets, journals, next_chunk: next_chunk as u64 })
}

/// Deletes the chunks of values whose writing was cut short: nobody was told that they are there.
fn forget_unfinished(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute(
        "DELETE FROM chunks WHERE id IN \
         (SELECT chunks.id FROM staging JOIN chunks ON chunks.id >= staging.chunk AND chunks.id < staging.chunk + staging.count)",
        [],
    )?;
    connection.execute("DELETE FROM staging", [])?;
    Ok(())
}

/// Reads where the log ends: the stored ends, and the rows after them.
pub(super) fn read_tail(connection: &Connection, partitions: u32) -> Result<Tail, rusqlite::Error> {
    let (mut seq, ends): (i64, Vec<u8>) =
        connection.query_row("SELECT ends_seq, ends FROM meta", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut ends = decode_ends(&ends, partitions);
    let mut later =
        connection.prepare("SELECT seq, partition, offset FROM records WHERE seq >= ?1 ORDER BY seq")?;
    let mut rows = later.query([seq])?;
    while let Some(row) = rows.next()? {
        let (at, partition, offset): (i64, u32, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        seq = at + 1;
        if let Some(end) = ends.get_mut(partition as usize) {
            *end = offset as u64 + 1;
        }
    }
    Ok(Tail { seq: seq as u64, ends })
}

/// The form of `meta.ends`: 8 bytes a partition, little-endian.
pub(super) fn encode_ends(ends: &[u64]) -> Vec<u8> {
    ends.iter().flat_map(|end| end.to_le_bytes()).collect()
}

fn decode_ends(bytes: &[u8], partitions: u32) -> Vec<u64> {
    let mut ends: Vec<u64> = bytes
        .chunks_exact(8)
        .map(|word| {
            u64::from_le_bytes([word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]])
        })
        .collect();
    ends.resize(partitions as usize, 0);
    ends
}

fn random_uuid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
