use super::*;
use crate::log::{LogHealth, NotWritten};

/// A page limit on the writer's connection stands in for a full disk: SQLite reports both in the same way.
fn limit_pages(opened: &Opened, pages: Option<u32>) {
    opened.log.shared.page_limit.store(pages.unwrap_or(0), std::sync::atomic::Ordering::Relaxed);
}

#[test]
fn a_full_disk_refuses_for_certain_and_is_left_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 2);
    let first = append(&opened.log, 0, bytes(0, 100_000)).unwrap();
    limit_pages(&opened, Some(20));
    let mut written = vec![first];
    let refused = loop {
        match append(&opened.log, 0, bytes(written.len() as u64, 100_000)) {
            Ok(receipt) => written.push(receipt),
            Err(error) => break error,
        }
        assert!(written.len() < 1000, "it is never full");
    };
    let is_full =
        |error: &AppendError| matches!(error, AppendError::NotWritten { code: NotWritten::Full, .. });
    assert!(is_full(&refused), "{refused:?}");
    assert!(matches!(opened.log.health(), LogHealth::Full(_)));
    assert!(is_full(&append(&opened.log, 1, "x").unwrap_err()));
    limit_pages(&opened, None);
    let end = Instant::now() + LONG;
    while opened.log.health() != LogHealth::Ready {
        assert!(Instant::now() < end, "it does not recover");
        std::thread::yield_now();
    }
    // What was refused took no offset, and nothing of it is there.
    let after = append(&opened.log, 0, bytes(written.len() as u64, 100_000)).unwrap();
    assert_eq!(after.offset.0, written.len() as u64);
    let mut consuming = Consuming::start(opened.consumer);
    let inboxes = consuming.assign();
    for (index, record) in inboxes[0].take_all(written.len() + 1).iter().enumerate() {
        assert!(record.value == bytes(index as u64, 100_000), "{index}");
    }
    append(&opened.log, 1, "y").unwrap();
    assert_eq!(&inboxes[1].take_all(1)[0].value[..], b"y");
    consuming.close();
}

#[test]
fn who_waits_for_a_disk_that_does_not_answer_is_told_in_time_and_what_was_in_hand_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), 1);
    config.append_timeout = Duration::from_millis(200);
    let opened = EmbeddedLog::open(&config, limits()).unwrap();
    append(&opened.log, 0, "before").unwrap();
    // No transaction begins before this is let go, as if the disk took so long.
    let stuck = opened.log.shared.gate.write().unwrap();
    let began = Instant::now();
    let in_hand = opened.log.append(Partition(0), record("k", "in hand"));
    let end = Instant::now() + LONG;
    while opened.log.shared.queue.waiting() > 0 {
        assert!(Instant::now() < end, "the writer takes nothing");
        std::thread::yield_now();
    }
    let queued = opened.log.append(Partition(0), record("k", "queued"));
    let told = block_on(in_hand).unwrap_err();
    assert!(matches!(told, AppendError::Unknown { .. }), "{told:?}");
    assert!(began.elapsed() >= config.append_timeout);
    for refused in [block_on(queued), append(&opened.log, 0, "after")] {
        let is_away = matches!(&refused, Err(AppendError::NotWritten { code: NotWritten::Away, .. }));
        assert!(is_away, "{refused:?}");
    }
    assert!(matches!(opened.log.health(), LogHealth::Away(_)));
    drop(stuck);
    while opened.log.health() != LogHealth::Ready {
        assert!(Instant::now() < end, "it does not recover");
        std::thread::yield_now();
    }
    assert_eq!(append(&opened.log, 0, "again").unwrap().offset, Offset(2));
    let mut consuming = Consuming::start(opened.consumer);
    let values: Vec<_> =
        consuming.assign()[0].take_all(3).iter().map(|record| record.value.clone()).collect();
    assert_eq!(values, ["before", "in hand", "again"]);
    block_on(opened.log.close());
    consuming.close();
}

#[test]
fn a_large_value_that_does_not_fit_gives_its_pages_back() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 1);
    append(&opened.log, 0, "x").unwrap();
    limit_pages(&opened, Some(1000));
    let refused = append(&opened.log, 0, bytes(1, 60_000_000)).unwrap_err();
    assert!(matches!(refused, AppendError::NotWritten { code: NotWritten::Full, .. }), "{refused:?}");
    limit_pages(&opened, Some(1100));
    let end = Instant::now() + LONG;
    while opened.log.health() != LogHealth::Ready {
        assert!(Instant::now() < end, "it does not recover");
        std::thread::yield_now();
    }
    for seed in 0..2 {
        append(&opened.log, 0, bytes(seed, 12_000_000)).unwrap();
    }
}

#[test]
fn retention_deletes_what_was_committed_long_ago_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), 2);
    config.retention = Duration::from_millis(200);
    let Opened { log, consumer } = EmbeddedLog::open(&config, limits()).unwrap();
    let mut consuming = Consuming::start(consumer);
    let inboxes = consuming.assign();
    for index in 0..600 {
        let size = if index % 100 == 50 { 9_000_000 } else { 2_000 };
        append(&log, index % 2, bytes(u64::from(index), size)).unwrap();
    }
    inboxes[0].take_all(300);
    inboxes[1].take_all(300);
    consuming.commit(&[(0, 300), (1, 40)]);
    let path = super::super::schema::database(dir.path());
    let reader =
        rusqlite::Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    reader.busy_timeout(LONG).unwrap();
    let rows = |sql: &str| -> i64 { reader.query_row(sql, [], |row| row.get(0)).unwrap() };
    let end = Instant::now() + LONG;
    while rows("SELECT count(*) FROM records WHERE partition = 0 OR offset < 40") > 0 {
        assert!(Instant::now() < end, "{} rows stay", rows("SELECT count(*) FROM records"));
        std::thread::yield_now();
    }
    // Long after the retention, what is not committed is all there.
    let later = Instant::now() + 3 * config.retention;
    while Instant::now() < later {
        assert_eq!(rows("SELECT count(*) FROM records WHERE partition = 1 AND offset >= 40"), 260);
    }
    assert_eq!(
        rows("SELECT count(*) FROM chunks"),
        rows("SELECT coalesce(sum((size + 524287) / 524288), 0) FROM records WHERE chunk IS NOT NULL")
    );
    drop(reader);
    consuming.close();
    drop(log);
    let Opened { log, consumer } = EmbeddedLog::open(&config, limits()).unwrap();
    let mut consuming = Consuming::start(consumer);
    assert_eq!(consuming.offered, [(Partition(0), Offset(300)), (Partition(1), Offset(40))]);
    let inboxes = consuming.assign();
    assert_eq!(inboxes[1].take_all(260)[0].offset, Offset(40));
    assert_eq!(append(&log, 0, "next").unwrap().offset, Offset(300));
    assert_eq!(inboxes[0].take_all(1)[0].offset, Offset(300));
    consuming.close();
}

#[test]
fn too_much_waiting_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 1);
    let value = bytes(1, 50_000_000);
    let answers: Vec<_> =
        (0..12).map(|_| opened.log.append(Partition(0), record("k", value.clone()))).collect();
    let outcomes: Vec<_> = answers.into_iter().map(block_on).collect();
    let busy = |outcome: &Result<Receipt, AppendError>| {
        matches!(outcome, Err(AppendError::NotWritten { code: NotWritten::Busy, .. }))
    };
    assert!(outcomes.iter().any(busy));
    assert!(outcomes.iter().all(|outcome| outcome.is_ok() || busy(outcome)), "{outcomes:?}");
    let offsets: Vec<u64> = outcomes.iter().flatten().map(|receipt| receipt.offset.0).collect();
    assert!(offsets.iter().copied().eq(0..offsets.len() as u64), "{offsets:?}");
}

#[test]
fn the_wal_does_not_grow_without_limit() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 4);
    let value = bytes(1, 1_000_000);
    let mut largest = 0;
    for _ in 0..15 {
        let answers: Vec<_> = (0..60)
            .map(|index| opened.log.append(Partition(index % 4), record("k", value.clone())))
            .collect();
        block_on(futures_util::future::try_join_all(answers)).unwrap();
        largest = largest.max(std::fs::metadata(dir.path().join("log.db-wal")).unwrap().len());
    }
    assert!(largest < 600 << 20, "900 MB were written, the WAL had {} MiB", largest >> 20);
}
