use super::*;
use crate::memory::MemoryPool;
use proptest::prelude::*;

/// Everything in the log, by partition, as a consumer that starts from the committed offsets gets it.
fn read(dir: &Path, partitions: u32, counts: &[usize]) -> Vec<Vec<Record>> {
    let Opened { consumer, log } = open(dir, partitions);
    let mut consuming = Consuming::start(consumer);
    let inboxes = consuming.assign();
    let all = inboxes.iter().zip(counts).map(|(inbox, count)| inbox.take_all(*count)).collect();
    consuming.close();
    drop(log);
    all
}

#[test]
fn values_of_any_size_come_back_byte_for_byte_from_memory_and_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let sizes =
        [0, 1, 100, 4096, 4097, 10_000, 100_000, 524_288, 524_289, 1_000_000, 30_000_000, 100_000_000];
    let Opened { log, consumer } = open(dir.path(), 1);
    let mut consuming = Consuming::start(consumer);
    let inboxes = consuming.assign();
    for (index, size) in sizes.iter().enumerate() {
        let receipt = append(&log, 0, bytes(index as u64, *size)).unwrap();
        assert_eq!(receipt.offset, Offset(index as u64));
        let taken = inboxes[0].take_all(1);
        assert_eq!(taken[0].offset, receipt.offset);
        assert!(taken[0].value == bytes(index as u64, *size), "{size} bytes came back otherwise");
        assert_eq!(&taken[0].key[..], b"key");
    }
    consuming.close();
    drop(log);
    for (index, record) in read(dir.path(), 1, &[sizes.len()])[0].iter().enumerate() {
        assert!(
            record.value == bytes(index as u64, sizes[index]),
            "{} bytes came back otherwise",
            sizes[index]
        );
    }
}

#[test]
fn a_copy_of_the_files_taken_after_an_answer_has_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 4);
    let log = opened.log.clone();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let acked: Arc<Mutex<Vec<Receipt>>> = Arc::default();
    let writers: Vec<_> = (0..4)
        .map(|partition| {
            let (log, stop, acked) = (log.clone(), stop.clone(), acked.clone());
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let size = if count % 20 == 19 { 1_500_000 } else { 3_000 };
                    let receipt = append(&log, partition, bytes(count, size)).unwrap();
                    acked.lock().unwrap().push(receipt);
                    count += 1;
                }
            })
        })
        .collect();
    for round in 0..6 {
        let more = acked.lock().unwrap().len() + 40;
        while acked.lock().unwrap().len() < more {
            std::thread::yield_now();
        }
        let known = acked.lock().unwrap().clone();
        let copy = tempfile::tempdir().unwrap();
        // The database first: a checkpoint that runs meanwhile takes nothing out of the WAL.
        for name in ["log.db", "log.db-wal"] {
            std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        let mut counts = [0; 4];
        for receipt in &known {
            let count = &mut counts[receipt.partition.0 as usize];
            *count = (*count).max(receipt.offset.0 as usize + 1);
        }
        for (partition, records) in read(copy.path(), 4, &counts).iter().enumerate() {
            for (index, record) in records.iter().enumerate() {
                assert_eq!(record.offset.0, index as u64, "round {round}, partition {partition}");
                let size = if index % 20 == 19 { 1_500_000 } else { 3_000 };
                assert!(record.value == bytes(index as u64, size), "round {round}: {partition}-{index}");
            }
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
}

#[test]
fn a_large_value_that_was_cut_short_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), 1));
    let path = super::super::schema::database(dir.path());
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch("INSERT INTO staging VALUES (5, 40); INSERT INTO chunks VALUES (5, 'x'), (6, 'x')")
        .unwrap();
    drop(connection);
    let opened = open(dir.path(), 1);
    append(&opened.log, 0, bytes(1, 3_000_000)).unwrap();
    drop(opened);
    let connection = rusqlite::Connection::open(&path).unwrap();
    let count = |table: &str| -> i64 {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("staging"), count("chunks")), (0, 6));
    drop(connection);
    assert!(read(dir.path(), 1, &[1])[0][0].value == bytes(1, 3_000_000));
}

#[actix_rt::test]
async fn a_journal_is_read_back_in_order_and_each_partitions_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let park = async |log: &EmbeddedLog, size: usize, partition: u32| {
        let record = ParkedRecord {
            key: "k".into(),
            value: bytes(size as u64, size),
            parked: format!("because {size}").into(),
        };
        log.park(Partition(partition), record).await.unwrap().position()
    };
    let opened = open(dir.path(), 4);
    let first = park(&opened.log, 10, 1).await;
    park(&opened.log, 5, 2).await;
    let large = park(&opened.log, 20_000_000, 1).await;
    opened.log.close().await;
    let last = park(&opened.log, 0, 1).await;
    drop(opened);
    let opened = open(dir.path(), 4);
    let page = opened.log.journal(Partition(1), Position(0), JournalRead::Notes).await.unwrap();
    let seen: Vec<_> =
        page.records.iter().map(|record| (record.position, record.size, record.parked.clone())).collect();
    let because = |size: usize| Bytes::from(format!("because {size}"));
    assert_eq!(
        seen,
        [(first, 10, because(10)), (large, 20_000_000, because(20_000_000)), (last, 0, because(0))]
    );
    assert!(page.records.iter().all(|record| record.value.is_empty()));
    assert_eq!((page.next, page.at_end), (last.next(), true));
    let one = opened.log.journal(Partition(1), large, JournalRead::Values(0)).await.unwrap();
    assert!(one.records.len() == 1 && one.records[0].value == bytes(20_000_000, 20_000_000));
    let starts = Consuming::start(opened.consumer).starts;
    let ends: Vec<_> = starts.iter().map(|start| start.journal_end.0).collect();
    assert_eq!(ends, [0, last.0 + 1, first.0 + 2, 0]);
}

#[test]
fn a_mark_is_stored_with_its_offset_and_comes_back_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mark = Mark {
        from: Position(7),
        claims: vec![partita_core::Claim { at: Position(9), epoch: Epoch::new(3, 4) }],
    };
    let Opened { log, consumer } = open(dir.path(), 2);
    append(&log, 1, bytes(1, 10)).unwrap();
    let consuming = Consuming::start(consumer);
    consuming.commit_marked(vec![(Partition(1), Offset(1), mark.clone())]);
    consuming.close();
    drop(log);
    let starts = Consuming::start(open(dir.path(), 2).consumer).starts;
    assert_eq!((starts[0].offset, &starts[0].mark), (Offset(0), &Mark::default()));
    assert_eq!((starts[1].offset, &starts[1].mark), (Offset(1), &mark));
}

#[test]
fn closing_answers_what_was_taken_and_refuses_what_comes_after() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 2);
    let taken: Vec<_> = (0..50)
        .map(|index| opened.log.append(Partition(index % 2), record("k", bytes(1, 200_000))))
        .collect();
    block_on(opened.log.close());
    block_on(opened.log.close());
    for answer in taken {
        block_on(answer).unwrap();
    }
    let refused = append(&opened.log, 0, "late").unwrap_err();
    assert!(
        matches!(refused, AppendError::NotWritten { code: crate::log::NotWritten::Closing, .. }),
        "{refused:?}"
    );
}

#[test]
fn a_reservation_is_held_until_the_record_is_durable_and_not_longer() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 1);
    let pool = MemoryPool::new("intake", 1 << 30);
    let mut new = record("k", bytes(1, 40_000_000));
    new.reservation = pool.try_reserve(40_000_000);
    let answer = opened.log.append(Partition(0), new);
    assert_eq!(pool.reserved(), 40_000_000);
    block_on(answer).unwrap();
    assert_eq!(pool.reserved(), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Append(u32, usize),
    Commit(u32),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![8 => 0..5_000_usize, 2 => 5_000..200_000_usize, 1 => 500_000..1_200_000_usize];
    let step = prop_oneof![
        12 => (0..3_u32, size).prop_map(|(partition, size)| Step::Append(partition, size)),
        2 => (0..3_u32).prop_map(Step::Commit),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The model is a list for each partition, and how much of it is committed.
    #[test]
    fn a_log_is_what_was_appended_to_it_across_any_reopening(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut appended: Vec<Vec<Bytes>> = vec![Vec::new(); 3];
        let mut delivered = [0_usize; 3];
        let mut committed = [0_usize; 3];
        let mut opened = open(dir.path(), 3);
        let mut consuming = Consuming::start(opened.consumer);
        let mut inboxes = consuming.assign();
        for (seed, step) in steps.into_iter().chain([Step::Reopen]).enumerate() {
            match step {
                Step::Append(partition, size) => {
                    let value = bytes(seed as u64, size);
                    let receipt = append(&opened.log, partition, value.clone()).unwrap();
                    let list = &mut appended[partition as usize];
                    prop_assert_eq!(receipt.offset.0, list.len() as u64);
                    list.push(value);
                }
                Step::Commit(partition) => {
                    let index = partition as usize;
                    let new = appended[index].len() - delivered[index];
                    for record in inboxes[index].take_all(new) {
                        prop_assert_eq!(record.offset.0 as usize, delivered[index]);
                        prop_assert!(record.value == appended[index][delivered[index]]);
                        delivered[index] += 1;
                    }
                    consuming.commit(&[(partition, delivered[index] as u64)]);
                    committed[index] = delivered[index];
                }
                Step::Reopen => {
                    consuming.close();
                    drop(opened.log);
                    opened = open(dir.path(), 3);
                    consuming = Consuming::start(opened.consumer);
                    let offered: Vec<usize> = consuming.offered.iter().map(|(_, start)| start.0 as usize).collect();
                    prop_assert_eq!(&offered[..], &committed[..]);
                    delivered = committed;
                    inboxes = consuming.assign();
                }
            }
        }
        for partition in 0..3 {
            let rest = &appended[partition][committed[partition]..];
            let records = inboxes[partition].take_all(rest.len());
            prop_assert!(records.iter().map(|record| &record.value).eq(rest));
        }
        consuming.close();
    }
}
