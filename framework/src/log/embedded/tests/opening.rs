use super::*;
use rusqlite::Connection;

fn refusal(dir: &Path, partitions: u32) -> String {
    match EmbeddedLog::open(&config(dir, partitions), limits()) {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_second_opening_is_refused_and_names_the_owner() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), 4);
    let refused = refusal(dir.path(), 4);
    assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
    assert!(refused.contains("log.embedded.dir"), "{refused}");
    drop(first);
    open(dir.path(), 4);
}

#[test]
fn another_partition_count_is_refused_and_both_numbers_are_named() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), 4));
    let refused = refusal(dir.path(), 5);
    assert!(
        refused.contains("4 partitions") && refused.contains("log.embedded.partitions is 5"),
        "{refused}"
    );
    drop(open(dir.path(), 4));
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), 4));
    let path = super::super::schema::database(dir.path());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let before = std::fs::read(&path).unwrap();
    let refused = refusal(dir.path(), 4);
    assert!(refused.contains("schema version 7") && refused.contains("up to 4"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// What version 1 lacked is taken away again.
const TO_VERSION_1: &str = "DROP TABLE requests; ALTER TABLE meta DROP COLUMN digest_key; DROP INDEX parked_of_partition; ALTER TABLE offsets DROP COLUMN mark; PRAGMA user_version = 1";

#[test]
fn a_file_of_the_first_version_is_opened_with_all_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { log, consumer } = open(dir.path(), 2);
    append(&log, 1, bytes(1, 10)).unwrap();
    append(&log, 1, bytes(2, 10)).unwrap();
    let consuming = Consuming::start(consumer);
    consuming.commit(&[(1, 1)]);
    consuming.close();
    drop(log);
    Connection::open(super::super::schema::database(dir.path()))
        .unwrap()
        .execute_batch(TO_VERSION_1)
        .unwrap();
    for _ in 0..2 {
        let consuming = Consuming::start(open(dir.path(), 2).consumer);
        assert_eq!(consuming.offered, [(Partition(0), Offset(0)), (Partition(1), Offset(1))]);
        consuming.close();
    }
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(super::super::schema::database(dir.path()), bytes(1, 10_000)).unwrap();
    assert!(refusal(dir.path(), 4).contains("log.db"));
}

#[test]
fn the_topic_id_stays_and_the_generation_grows() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen: Vec<(String, u32)> = Vec::new();
    for _ in 0..3 {
        let Opened { log, consumer } = open(dir.path(), 4);
        let consuming = Consuming::start(consumer);
        seen.push((log.topic_id().to_owned(), consuming.generation));
        consuming.close();
    }
    assert!(seen.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[0].1 < pair[1].1), "{seen:?}");
    assert_eq!(seen[0].0.len(), 36);
    let other = tempfile::tempdir().unwrap();
    assert_ne!(open(other.path(), 4).log.topic_id(), seen[0].0);
}
