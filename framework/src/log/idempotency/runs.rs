//! What a generation's file holds. The requests that come together are a *run*, spread over blocks by the first bits of their keys;
//! runs of one level become one of the next, a little at a time: a log-structured merge tree (O'Neil, Cheng, Gawlick and O'Neil, "The
//! Log-Structured Merge-Tree", 1996) with tiers. A key is a hash, so a tree sorted by keys would dirty a page for each request.
//!
//! A block is one row. Block `n` of a run with 2^`bits` blocks has the id `first + n`, and no row if it is empty.

use super::{
    IdempotencyKey,
    blocks::{Entries, MOST_BITS, bits_of, block_of, push},
    generations::Value,
};
use rusqlite::{Connection, Error, Result, Row};

/// Runs of a level that become one, and so the most that a lookup looks through on each level, when there is time to tidy up.
const FAN_IN: usize = 4;
/// Runs of a level above which tidying up comes first.
const CROWD: usize = 8;
/// Entries that one step writes.
const STEP_ENTRIES: usize = 32 << 10;
/// Blocks that one step deletes.
const STEP_BLOCKS: u64 = 4 << 10;

const TABLES: &str = "
    -- Runs of a lower level are newer, and on each level those with a higher `first`. `state`: 0 it is whole, 1 and is being merged, 2 it
    -- is being made of those, 3 it is being deleted. `done`: of the last two, how far.
    CREATE TABLE IF NOT EXISTS runs (
        level INTEGER NOT NULL,
        first INTEGER NOT NULL,
        bits INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        state INTEGER NOT NULL,
        done INTEGER NOT NULL,
        PRIMARY KEY (level, first DESC)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS blocks (id INTEGER PRIMARY KEY, data BLOB NOT NULL);
";

/// Makes the tables, and takes over the one that there was before them.
pub(super) fn create(connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    if transaction.table_exists(None, "requests")? {
        let mut entries: Vec<(IdempotencyKey, Value)> = Vec::new();
        {
            let mut former = transaction.prepare("SELECT key, value FROM requests ORDER BY key")?;
            let mut rows = former.query([])?;
            while let Some(row) = rows.next()? {
                entries.push((IdempotencyKey(row.get(0)?), row.get::<_, Vec<u8>>(1)?.into()));
                if entries.len() == STEP_ENTRIES {
                    add(&transaction, &entries)?;
                    entries.clear();
                }
            }
        }
        add(&transaction, &entries)?;
        transaction.execute_batch("DROP TABLE requests")?;
    }
    transaction.commit()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole = 0,
    Source = 1,
    Target = 2,
    Dead = 3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    level: u32,
    first: u64,
    bits: u32,
    entries: u64,
    state: State,
    done: u64,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// All whole runs of this level are to become one.
    Begin(u32),
    /// This run is to be made further, of the level before its own.
    Build(Run),
    /// This run is to be deleted further.
    Delete(Run),
}

/// Adds requests, by rising keys. Those that were added before under the same keys are not found any more.
pub(super) fn add<V: AsRef<[u8]>>(connection: &Connection, entries: &[(IdempotencyKey, V)]) -> Result<()> {
    let count = entries.len() as u64;
    if count == 0 {
        return Ok(());
    }
    let run = Run {
        level: 0,
        first: free_block(&all(connection)?),
        bits: bits_of(count),
        entries: count,
        state: State::Whole,
        done: 0,
    };
    write(connection, &run, entries.iter().map(|(key, value)| (*key, value.as_ref())))?;
    put(connection, &run)
}

/// What was added last under this key. One statement, and so one state of the file.
pub(super) fn find(connection: &Connection, key: &IdempotencyKey) -> Result<Option<Value>> {
    let mut blocks = connection.prepare_cached(
        "SELECT data FROM runs CROSS JOIN blocks ON blocks.id = runs.first + (?1 >> (32 - runs.bits)) \
         WHERE runs.state < 2 ORDER BY runs.level, runs.first DESC",
    )?;
    let mut rows = blocks.query([block_of(key, MOST_BITS) as i64])?;
    while let Some(row) = rows.next()? {
        for entry in Entries(row.get_ref(0)?.as_blob()?) {
            let (other, value) = entry?;
            if other == *key {
                return Ok(Some(value.into()));
            }
        }
    }
    Ok(None)
}

/// All keys, some of them more than once.
pub(super) fn for_each_key(connection: &Connection, mut take: impl FnMut(&IdempotencyKey)) -> Result<()> {
    let mut blocks = connection.prepare(
        "SELECT data FROM runs CROSS JOIN blocks ON blocks.id >= runs.first AND blocks.id < runs.first + (1 << runs.bits) \
         WHERE runs.state < 2",
    )?;
    let mut rows = blocks.query([])?;
    while let Some(row) = rows.next()? {
        for entry in Entries(row.get_ref(0)?.as_blob()?) {
            take(&entry?.0);
        }
    }
    Ok(())
}

/// Whether lookups suffer until it is tidied up.
pub(super) fn is_crowded(connection: &Connection) -> Result<bool> {
    let runs = all(connection)?;
    Ok(runs.iter().any(|run| whole_of(&runs, run.level).count() >= CROWD))
}

/// Does a part of what there is to do. `false`: there was nothing.
pub(super) fn tidy(connection: &mut Connection) -> Result<bool> {
    let transaction = connection.transaction()?;
    let runs = all(&transaction)?;
    match next(&runs) {
        None => return Ok(false),
        Some(Step::Begin(level)) => begin(&transaction, &runs, level)?,
        Some(Step::Build(target)) => build(&transaction, &runs, target)?,
        Some(Step::Delete(run)) => delete(&transaction, run)?,
    }
    transaction.commit()?;
    Ok(true)
}

/// Lower levels first: they are small, and lookups find most of their runs there.
fn next(runs: &[Run]) -> Option<Step> {
    if let Some(dead) = runs.iter().find(|run| run.state == State::Dead) {
        return Some(Step::Delete(*dead));
    }
    let highest = runs.iter().map(|run| run.level).max()?;
    (0..=highest).find_map(|level| {
        match runs.iter().find(|run| run.state == State::Target && run.level == level + 1) {
            Some(target) => Some(Step::Build(*target)),
            None => (whole_of(runs, level).count() >= FAN_IN).then_some(Step::Begin(level)),
        }
    })
}

fn begin(connection: &Connection, runs: &[Run], level: u32) -> Result<()> {
    let (mut entries, mut most_bits) = (0, 0);
    for run in whole_of(runs, level) {
        entries += run.entries;
        most_bits = most_bits.max(run.bits);
        put(connection, &Run { state: State::Source, ..*run })?;
    }
    let bits = bits_of(entries).max(most_bits);
    let first = free_block(runs);
    put(connection, &Run { level: level + 1, first, bits, entries: 0, state: State::Target, done: 0 })
}

/// A slice is what has the same first bits, as many as tell the blocks of the largest source apart: one block of each source.
fn build(connection: &Connection, runs: &[Run], mut target: Run) -> Result<()> {
    // Newest first, as they are read.
    let sources: Vec<Run> = runs
        .iter()
        .filter(|run| run.state == State::Source && run.level + 1 == target.level)
        .copied()
        .collect();
    let bits = sources.iter().map(|run| run.bits).max().unwrap_or(0);
    let before = target.entries;
    let mut read = connection.prepare_cached("SELECT data FROM blocks WHERE id = ?1")?;
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    while target.done < 1 << bits && target.entries - before < STEP_ENTRIES as u64 {
        let slice = target.done;
        blocks.clear();
        for source in &sources {
            let mut rows = read.query([(source.first + (slice >> (bits - source.bits))) as i64])?;
            if let Some(row) = rows.next()? {
                blocks.push(row.get(0)?);
            }
        }
        let mut entries = Vec::new();
        for entry in blocks.iter().flat_map(|block| Entries(block)) {
            let (key, value) = entry?;
            if block_of(&key, bits) == slice {
                entries.push((key, value));
            }
        }
        // It is stable: of those with the same key the newest stays.
        entries.sort_by_key(|(key, _)| *key);
        entries.dedup_by_key(|(key, _)| *key);
        target.entries += entries.len() as u64;
        write(connection, &target, entries.into_iter())?;
        target.done += 1;
    }
    if target.done == 1 << bits {
        target = Run { state: State::Whole, done: 0, ..target };
        for source in &sources {
            put(connection, &Run { state: State::Dead, ..*source })?;
        }
    }
    put(connection, &target)
}

fn delete(connection: &Connection, run: Run) -> Result<()> {
    let (from, end) = (run.first + run.done, run.first + (1 << run.bits));
    let until = end.min(from + STEP_BLOCKS);
    let mut delete = connection.prepare_cached("DELETE FROM blocks WHERE id >= ?1 AND id < ?2")?;
    delete.execute((from as i64, until as i64))?;
    if until < end {
        return put(connection, &Run { done: until - run.first, ..run });
    }
    let mut forget = connection.prepare_cached("DELETE FROM runs WHERE level = ?1 AND first = ?2")?;
    forget.execute((run.level, run.first as i64)).map(|_| ())
}

fn write<'e>(
    connection: &Connection,
    run: &Run,
    entries: impl Iterator<Item = (IdempotencyKey, &'e [u8])>,
) -> Result<()> {
    let mut insert = connection.prepare_cached("INSERT INTO blocks VALUES (?1, ?2)")?;
    let (mut block, mut data) = (0, Vec::new());
    for (key, value) in entries {
        let of = block_of(&key, run.bits);
        if of != block && !data.is_empty() {
            insert.execute(((run.first + block) as i64, &data[..]))?;
            data.clear();
        }
        block = of;
        push(&mut data, &key, value)?;
    }
    if !data.is_empty() {
        insert.execute(((run.first + block) as i64, &data[..]))?;
    }
    Ok(())
}

fn put(connection: &Connection, run: &Run) -> Result<()> {
    let Run { level, first, bits, entries, state, done } = *run;
    let mut put = connection.prepare_cached("INSERT OR REPLACE INTO runs VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    put.execute((level, first as i64, bits, entries as i64, state as i64, done as i64)).map(|_| ())
}

/// By rising levels, on each the newest first.
fn all(connection: &Connection) -> Result<Vec<Run>> {
    let mut select = connection.prepare_cached(
        "SELECT level, first, bits, entries, state, done FROM runs ORDER BY level, first DESC",
    )?;
    let runs = select.query_map([], run)?;
    runs.collect()
}

fn run(row: &Row<'_>) -> Result<Run> {
    let number = |index| row.get::<_, i64>(index).map(|number| number as u64);
    let state = match number(4)? {
        0 => State::Whole,
        1 => State::Source,
        2 => State::Target,
        3 => State::Dead,
        other => return Err(Error::IntegralValueOutOfRange(4, other as i64)),
    };
    let bits: u32 = row.get(2)?;
    if bits > MOST_BITS {
        return Err(Error::IntegralValueOutOfRange(2, bits.into()));
    }
    Ok(Run { level: row.get(0)?, first: number(1)?, bits, entries: number(3)?, state, done: number(5)? })
}

fn whole_of(runs: &[Run], level: u32) -> impl Iterator<Item = &Run> {
    runs.iter().filter(move |run| run.state == State::Whole && run.level == level)
}

/// The first id that no block of these has.
fn free_block(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.first + (1 << run.bits)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn open() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        create(&mut connection).unwrap();
        connection
    }

    fn key(number: u64) -> IdempotencyKey {
        IdempotencyKey::of(&[&number.to_le_bytes()])
    }

    fn add_all(connection: &Connection, entries: &BTreeMap<IdempotencyKey, Value>) {
        let entries: Vec<_> = entries.iter().map(|(key, value)| (*key, value.clone())).collect();
        add(connection, &entries).unwrap();
    }

    #[derive(Debug, Clone)]
    enum Act {
        /// Keys from a number on, so many, with a value of so many bytes.
        Add(u64, u64, usize),
        Tidy(u32),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            3 => (0..3000_u64, prop_oneof![0..5_u64, 0..3000_u64], 0..60_usize).prop_map(|(from, count, size)| Act::Add(from, count, size)),
            2 => (1..40_u32).prop_map(Act::Tidy),
        ];
        prop::collection::vec(act, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// The model is a map, whatever is tidied up when.
        #[test]
        fn what_was_added_last_is_found(acts in acts()) {
            let mut connection = open();
            let mut model: BTreeMap<IdempotencyKey, Value> = BTreeMap::new();
            for (index, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Add(from, count, size) => {
                        let entry = |number| (key(number), Value::from_elem(index as u8, size));
                        let entries: BTreeMap<_, _> = (from..from + count).map(entry).collect();
                        add_all(&connection, &entries);
                        model.extend(entries);
                    }
                    Act::Tidy(steps) => for _ in 0..steps {
                        tidy(&mut connection).unwrap();
                    },
                }
                for number in (0..6000).step_by(601) {
                    let key = key(number);
                    prop_assert_eq!(find(&connection, &key).unwrap(), model.get(&key).cloned());
                }
            }
            while tidy(&mut connection).unwrap() {}
            for number in 0..6000 {
                let key = key(number);
                prop_assert_eq!(find(&connection, &key).unwrap(), model.get(&key).cloned());
            }
            let runs = all(&connection).unwrap();
            prop_assert!(runs.iter().all(|run| run.state == State::Whole));
            prop_assert!(runs.iter().all(|run| whole_of(&runs, run.level).count() < FAN_IN));
            let mut keys = std::collections::BTreeSet::new();
            for_each_key(&connection, |key| { keys.insert(*key); }).unwrap();
            prop_assert!(keys.iter().eq(model.keys()));
            let blocks: u64 = runs.iter().map(|run| 1 << run.bits).sum();
            let rows = connection.query_row("SELECT count(*) FROM blocks", [], |row| row.get::<_, i64>(0)).unwrap();
            prop_assert!(rows as u64 <= blocks, "what was merged is still there");
        }
    }

    #[test]
    fn a_crowd_is_tidied_up_though_more_comes_all_the_time() {
        let mut connection = open();
        let mut most = 0;
        for number in 0..1000_u64 {
            while is_crowded(&connection).unwrap() {
                assert!(tidy(&mut connection).unwrap());
            }
            add_all(&connection, &BTreeMap::from([(key(number), Value::default())]));
            most = most.max(all(&connection).unwrap().len());
        }
        // Of each of five levels what is being merged and what has come since.
        assert!(most <= 5 * 2 * CROWD, "{most}");
    }

    #[test]
    fn what_a_file_of_the_former_form_has_is_found() {
        const COUNT: u64 = 70_000;
        let mut connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE requests (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
            .unwrap();
        for number in 0..COUNT {
            let value = number.to_le_bytes();
            connection.execute("INSERT INTO requests VALUES (?1, ?2)", (key(number).0, value)).unwrap();
        }
        for _ in 0..2 {
            create(&mut connection).unwrap();
        }
        for number in (0..COUNT).step_by(97) {
            assert_eq!(find(&connection, &key(number)).unwrap().unwrap()[..], number.to_le_bytes());
        }
        assert_eq!(find(&connection, &key(COUNT)).unwrap(), None);
    }

    #[test]
    fn a_damaged_block_is_an_error_and_not_an_absence() {
        let connection = open();
        add_all(&connection, &BTreeMap::from([(key(1), vec![1; 20].into())]));
        connection.execute("UPDATE blocks SET data = substr(data, 1, 30)", []).unwrap();
        assert!(find(&connection, &key(1)).is_err());
        assert!(find(&connection, &key(2)).is_err());
    }
}
