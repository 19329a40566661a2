use super::*;
use crate::log::{Idempotency, IdempotencyKey, LogHealth, NotWritten, PayloadHash};
use proptest::prelude::*;
use std::collections::HashMap;

fn request(name: u64, value: &Bytes) -> NewRecord {
    let key = IdempotencyKey::of_request(b"key", &name.to_string(), 0);
    let idempotency = Some(Idempotency { key, digest: PayloadHash::default().of(value) });
    NewRecord { idempotency, ..record("key", value.clone()) }
}

fn count(dir: &Path, table: &str) -> i64 {
    let connection = rusqlite::Connection::open(super::super::schema::database(dir)).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    /// Requests with these names at once, each with the payload of a seed.
    Append(Vec<(u64, u64)>),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let request = (0..12_u64, prop_oneof![9 => Just(0_u64), 1 => Just(1)]);
    let step = prop_oneof![
        6 => prop::collection::vec(request, 1..8).prop_map(Step::Append),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..30)
}

/// Some are stored in their rows, some in chunks over several transactions.
fn payload(name: u64, seed: u64) -> Bytes {
    let sizes = [0, 100, 30_000, 600_000, 9_000_000];
    bytes(name * 2 + seed, sizes[name as usize % sizes.len()] + 8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The model is a map: the first payload under a name is stored, and everybody who sends it again gets its receipt.
    #[test]
    fn of_all_requests_with_a_name_one_is_stored(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut opened = open(dir.path(), 2);
        let mut first: HashMap<u64, (u64, Receipt)> = HashMap::new();
        for step in steps {
            let Step::Append(requests) = step else {
                drop(opened);
                opened = open(dir.path(), 2);
                continue;
            };
            let partition = |name: u64| Partition((name % 2) as u32);
            let answers: Vec<_> = requests
                .iter()
                .map(|(name, seed)| opened.log.append(partition(*name), request(*name, &payload(*name, *seed))))
                .collect();
            for ((name, seed), answer) in requests.into_iter().zip(answers) {
                match (first.get(&name), block_on(answer)) {
                    (None, Ok(receipt)) => {
                        prop_assert!(!receipt.repeated);
                        first.insert(name, (seed, receipt));
                    }
                    (Some((same, receipt)), Ok(again)) => {
                        prop_assert_eq!(*same, seed);
                        prop_assert_eq!(again, Receipt { repeated: true, ..*receipt });
                    }
                    (Some((other, _)), Err(AppendError::NotWritten { code: NotWritten::Reused, .. })) => {
                        prop_assert!(*other != seed);
                    }
                    (known, answer) => prop_assert!(false, "{name}: {known:?}, {answer:?}"),
                }
            }
        }
        drop(opened);
        prop_assert_eq!(count(dir.path(), "records"), first.len() as i64);
        prop_assert_eq!(count(dir.path(), "staging"), 0);
    }
}

#[test]
fn the_same_name_under_another_key_is_another_request() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 1);
    for key in ["a", "b"] {
        let idempotency = Idempotency {
            key: IdempotencyKey::of_request(key.as_bytes(), "name", 0),
            digest: PayloadHash::default().of(b"x"),
        };
        let record = NewRecord { idempotency: Some(idempotency), ..record(key, "x") };
        assert!(!block_on(opened.log.append(Partition(0), record)).unwrap().repeated, "{key}");
    }
}

#[test]
fn requests_leave_the_log_for_the_index_and_are_known_all_the_same() {
    const COUNT: u64 = 70_000;
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 1);
    let value = Bytes::from_static(b"x");
    let append = |log: &EmbeddedLog, names: std::ops::Range<u64>| {
        let mut answers = Vec::new();
        for name in names {
            answers.push(log.append(Partition(0), request(name, &value)));
            if answers.len() == 8192 {
                answers.drain(..).for_each(|answer| assert!(!block_on(answer).unwrap().repeated));
            }
        }
        answers.drain(..).for_each(|answer| assert!(!block_on(answer).unwrap().repeated));
    };
    append(&opened.log, 0..COUNT);
    let end = Instant::now() + LONG;
    let mut next = COUNT;
    while count(dir.path(), "requests") > 40_000 {
        assert!(Instant::now() < end, "the table is not cleared");
        append(&opened.log, next..next + 1);
        next += 1;
    }
    drop(opened);
    let opened = open(dir.path(), 1);
    for name in (0..next).step_by(501) {
        let receipt = block_on(opened.log.append(Partition(0), request(name, &value))).unwrap();
        assert_eq!((receipt.offset.0, receipt.repeated), (name, true));
    }
}

/// As version 3 wrote them: one row for each, with another digest of the payload.
const TO_VERSION_3: &str = "
    ALTER TABLE requests RENAME TO later;
    CREATE TABLE requests (seq INTEGER PRIMARY KEY, key BLOB NOT NULL, value BLOB NOT NULL);
    INSERT INTO requests
        SELECT seq, substr(entries, 1, 16), CAST(randomblob(16) || x'00000000' || substr(entries, 37) AS BLOB) FROM later;
    DROP TABLE later;
    ALTER TABLE meta DROP COLUMN digest_key;
    PRAGMA user_version = 3";

#[test]
fn requests_of_a_file_of_the_third_version_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let send = |log: &EmbeddedLog, name: u64| {
        block_on(log.append(Partition(0), request(name, &bytes(name, 10)))).unwrap()
    };
    let opened = open(dir.path(), 1);
    // One after the other, and so each in a transaction of its own.
    let first: Vec<Receipt> = (0..3).map(|name| send(&opened.log, name)).collect();
    drop(opened);
    rusqlite::Connection::open(super::super::schema::database(dir.path()))
        .unwrap()
        .execute_batch(TO_VERSION_3)
        .unwrap();
    for _ in 0..2 {
        let opened = open(dir.path(), 1);
        for name in 0..3 {
            assert_eq!(send(&opened.log, name), Receipt { repeated: true, ..first[name as usize] });
        }
        let after = opened.log.append(Partition(0), request(3, &bytes(0, 10)));
        assert_eq!(block_on(after).unwrap().offset.0, 3);
        let another = block_on(opened.log.append(Partition(0), request(3, &bytes(1, 10))));
        assert!(
            matches!(another, Err(AppendError::NotWritten { code: NotWritten::Reused, .. })),
            "{another:?}"
        );
    }
}

#[test]
fn what_a_full_disk_refused_is_stored_when_it_comes_again() {
    // One that is written over several transactions, and many in one: of those the first were written before there was no room.
    for requests in
        [vec![(1, bytes(1, 9_000_000))], (1..30).map(|name| (name, bytes(name, 200_000))).collect()]
    {
        let dir = tempfile::tempdir().unwrap();
        let opened = open(dir.path(), 1);
        append(&opened.log, 0, "x").unwrap();
        opened.log.shared.page_limit.store(100, std::sync::atomic::Ordering::Relaxed);
        let send = |(name, value): &(u64, Bytes)| opened.log.append(Partition(0), request(*name, value));
        let answers: Vec<_> = requests.iter().map(send).collect();
        let refused: Vec<bool> = answers.into_iter().map(|answer| is_full(block_on(answer))).collect();
        assert!(refused.contains(&true));
        opened.log.shared.page_limit.store(0, std::sync::atomic::Ordering::Relaxed);
        let end = Instant::now() + LONG;
        while opened.log.health() != LogHealth::Ready {
            assert!(Instant::now() < end, "it does not recover");
            std::thread::yield_now();
        }
        for (index, (request, was_refused)) in requests.iter().zip(refused).enumerate() {
            let receipt = block_on(send(request)).unwrap();
            let stored = Receipt::new(Partition(0), Offset(1 + index as u64));
            assert_eq!(receipt, Receipt { repeated: !was_refused, ..stored });
            assert_eq!(block_on(send(request)).unwrap(), Receipt { repeated: true, ..stored });
        }
    }
}

fn is_full(answer: Result<Receipt, AppendError>) -> bool {
    match answer {
        Ok(_) => false,
        Err(AppendError::NotWritten { code: NotWritten::Full, .. }) => true,
        Err(error) => panic!("{error:?}"),
    }
}
