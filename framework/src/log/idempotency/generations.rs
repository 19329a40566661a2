//! The files of the index: `requests-<number>.db`, the last one written to, the one before it only read.

use super::{IdempotencyKey, filter::Filter, runs};
use crate::Error;
use rusqlite::{Connection, OpenFlags, Result};
use smallvec::SmallVec;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// A few blocks to a page.
const PAGE_SIZE: i64 = 16 << 10;
/// Pages in the WAL before they are moved to the file: a few MiB.
const CHECKPOINT_PAGES: i64 = 256;
const WRITER_CACHE_KIB: i64 = 4 << 10;
const READER_CACHE_KIB: i64 = 4 << 10;

const STATE: &str = "
    -- Up to where the log's requests are in here, and how long this has been the generation that is written to.
    CREATE TABLE IF NOT EXISTS state (id INTEGER PRIMARY KEY CHECK (id = 0), position BLOB NOT NULL, age_ms INTEGER NOT NULL);
    INSERT OR IGNORE INTO state VALUES (0, x'', 0);
";

/// What is remembered of one request, as its log writes it. The embedded log's has room here.
pub(crate) type Value = SmallVec<[u8; 28]>;

/// The generations of a directory, to write to.
pub(crate) struct Generations {
    dir: PathBuf,
    window: Duration,
    number: u64,
    current: Connection,
    position: Vec<u8>,
    /// By this process's monotonic clock and what is noted: a changed wall clock forgets nothing.
    age: Duration,
    since: Instant,
}

impl Generations {
    /// Opens the generations in `dir`, making the first.
    pub(crate) fn open(dir: &Path, window: Duration) -> std::result::Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::Log(format!(
                "cannot open the index of idempotency keys in {}: {error}; check its permissions and the disk. A damaged one can be removed: over \
                 Kafka it is read again from the log, the embedded log forgets the keys that were in it",
                dir.display()
            ))
        };
        fs::create_dir_all(dir).map_err(|error| failed(&error))?;
        let numbers = numbers(dir).map_err(|error| failed(&error))?;
        let number = numbers.last().copied().unwrap_or(1);
        let opened = open_writer(dir, number).and_then(|current| {
            let (position, age_ms): (Vec<u8>, i64) =
                current.query_row("SELECT position, age_ms FROM state", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            Ok((current, position, Duration::from_millis(age_ms as u64)))
        });
        let (current, position, age) = opened.map_err(|error| failed(&error))?;
        if numbers.contains(&(number - 1)) {
            // It may be of a former form.
            open_writer(dir, number - 1).map_err(|error| failed(&error))?;
        }
        let opened =
            Self { dir: dir.to_owned(), window, number, current, position, age, since: Instant::now() };
        opened.delete_old().map_err(|error| failed(&error))?;
        Ok(opened)
    }

    /// Up to where the log's requests had been merged.
    pub(crate) fn position(&self) -> &[u8] {
        &self.position
    }

    /// The number of the generation that is written to.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The filters of the generation that is written to and of the one before it.
    pub(super) fn filters(&self) -> Result<Filters> {
        let mut former = None;
        if path(&self.dir, self.number - 1).exists() {
            former = Some(filter_of(&open_reader(&self.dir, self.number - 1)?)?);
        }
        Ok(Filters { number: self.number, current: filter_of(&self.current)?, former })
    }

    /// How long each takes requests.
    pub(super) fn window(&self) -> Duration {
        self.window
    }

    /// Where they are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds what a log has remembered up to `position`, by rising keys, durably. The same may be added again.
    pub(super) fn merge<V: AsRef<[u8]>>(
        &mut self,
        entries: &[(IdempotencyKey, V)],
        position: &[u8],
    ) -> Result<()> {
        if self.age() >= self.window {
            // Not with what is about to be merged: it is not in there yet.
            let before = self.position.clone();
            self.begin_next(&before)?;
        }
        while runs::is_crowded(&self.current)? && self.tidy()? {}
        let age_ms = self.age().as_millis() as i64;
        self.current.pragma_update(None, "synchronous", "FULL")?;
        let transaction = self.current.transaction()?;
        runs::add(&transaction, entries)?;
        transaction.execute("UPDATE state SET position = ?1, age_ms = ?2", (position, age_ms))?;
        transaction.commit()?;
        self.position = position.to_owned();
        Ok(())
    }

    /// Does a part of what makes lookups faster. `false`: there was nothing to do.
    pub(super) fn tidy(&mut self) -> Result<bool> {
        // What it writes is durable with the next merge: after a crash it is done again.
        self.current.pragma_update(None, "synchronous", "NORMAL")?;
        runs::tidy(&mut self.current)
    }

    fn age(&self) -> Duration {
        self.age + self.since.elapsed()
    }

    fn begin_next(&mut self, position: &[u8]) -> Result<()> {
        let next = open_writer(&self.dir, self.number + 1)?;
        next.execute("UPDATE state SET position = ?1", [position])?;
        self.current = next;
        self.number += 1;
        self.age = Duration::ZERO;
        self.since = Instant::now();
        if let Err(error) = self.delete_old() {
            tracing::warn!(%error, dir = %self.dir.display(), "a former generation of idempotency keys could not be deleted");
        }
        Ok(())
    }

    /// Deletes what is older than the generation before this one.
    fn delete_old(&self) -> io::Result<()> {
        for number in numbers(&self.dir)?.into_iter().filter(|number| number + 1 < self.number) {
            for suffix in ["", "-wal", "-shm"] {
                let path = PathBuf::from(format!("{}{suffix}", path(&self.dir, number).display()));
                match fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn filter_of(connection: &Connection) -> Result<Filter> {
    let mut filter = Filter::default();
    runs::for_each_key(connection, |key| filter.insert(key))?;
    Ok(filter)
}

/// What is certainly not in the generations.
pub(super) struct Filters {
    number: u64,
    current: Filter,
    /// There is none before the first generation has ended.
    former: Option<Filter>,
}

impl Filters {
    pub(super) fn may_have(&self, key: &IdempotencyKey) -> bool {
        self.current.may_have(key) || self.former.as_ref().is_some_and(|former| former.may_have(key))
    }

    /// Notes what was merged into the generation of this number.
    pub(super) fn merged<'k>(&mut self, number: u64, keys: impl Iterator<Item = &'k IdempotencyKey>) {
        if number != self.number {
            self.number = number;
            self.former = Some(std::mem::take(&mut self.current));
        }
        keys.for_each(|key| self.current.insert(key));
    }
}

/// The generations, to read from.
pub(super) struct Readers {
    dir: PathBuf,
    number: u64,
    /// The one that is written to, and the one before it where there is one.
    connections: Vec<Connection>,
}

impl Readers {
    pub(super) fn open(dir: &Path, number: u64) -> Result<Self> {
        let mut connections = vec![open_reader(dir, number)?];
        if number > 1 && path(dir, number - 1).exists() {
            connections.push(open_reader(dir, number - 1)?);
        }
        Ok(Self { dir: dir.to_owned(), number, connections })
    }

    /// Goes on with the generation of this number.
    pub(super) fn turn_to(&mut self, number: u64) -> Result<()> {
        if number != self.number {
            *self = Self::open(&self.dir, number)?;
        }
        Ok(())
    }

    pub(super) fn find(&self, key: &IdempotencyKey) -> Result<Option<Value>> {
        for connection in &self.connections {
            if let Some(value) = runs::find(connection, key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("requests-{number}.db"))
}

/// The numbers of the generations in `dir`, rising.
fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("requests-")?.strip_suffix(".db"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn open_writer(dir: &Path, number: u64) -> Result<Connection> {
    let mut connection = Connection::open(path(dir, number))?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "page_size", PAGE_SIZE)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
    connection.execute_batch(STATE)?;
    runs::create(&mut connection)?;
    // SQLite syncs no directory for the database itself.
    let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    Ok(connection)
}

fn open_reader(dir: &Path, number: u64) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path(dir, number), flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> IdempotencyKey {
        IdempotencyKey([number; 16])
    }

    fn merge(generations: &mut Generations, number: u8) {
        generations.merge(&[(key(number), vec![number])], &[number]).unwrap();
    }

    fn found(generations: &Generations) -> Vec<u8> {
        let readers = Readers::open(generations.dir(), generations.number()).unwrap();
        (0..10).filter(|number| readers.find(&key(*number)).unwrap().is_some()).collect()
    }

    #[test]
    fn what_was_merged_is_found_for_a_window_and_gone_after_two() {
        let dir = tempfile::tempdir().unwrap();
        let window = Duration::from_secs(3600);
        let mut generations = Generations::open(dir.path(), window).unwrap();
        let later = |generations: &mut Generations| generations.age += window;
        merge(&mut generations, 1);
        later(&mut generations);
        merge(&mut generations, 2);
        assert_eq!(found(&generations), [1, 2]);
        later(&mut generations);
        merge(&mut generations, 3);
        assert_eq!(found(&generations), [2, 3]);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count() % 2,
            0,
            "two files, each with what belongs to it"
        );
    }

    #[test]
    fn a_generation_that_was_begun_and_got_nothing_knows_no_more_than_the_one_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let window = Duration::from_secs(3600);
        let mut generations = Generations::open(dir.path(), window).unwrap();
        merge(&mut generations, 1);
        generations.age += window;
        // As if the process was killed between the two steps of the next merge.
        let before = generations.position.clone();
        generations.begin_next(&before).unwrap();
        drop(generations);
        let mut again = Generations::open(dir.path(), window).unwrap();
        assert_eq!((again.number(), again.position()), (2, &[1_u8][..]));
        merge(&mut again, 2);
        assert_eq!(found(&again), [1, 2]);
        // And as the next merge itself does it.
        again.age += window;
        let full = again.merge(&[(key(3), vec![3])], &[3]);
        assert!(full.is_ok());
        drop(again);
        assert_eq!(Generations::open(dir.path(), window).unwrap().position(), [3]);
    }

    #[test]
    fn an_age_outlives_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let window = Duration::from_secs(3600);
        let mut generations = Generations::open(dir.path(), window).unwrap();
        generations.age = window - Duration::from_secs(1);
        merge(&mut generations, 1);
        drop(generations);
        let mut again = Generations::open(dir.path(), window).unwrap();
        assert_eq!((again.position(), again.number()), (&[1_u8][..], 1));
        again.age += Duration::from_secs(2);
        merge(&mut again, 2);
        assert_eq!((again.number(), found(&again)), (2, vec![1, 2]));
    }
}
