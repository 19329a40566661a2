use super::*;
use std::collections::BTreeMap;

#[test]
fn concurrent_appends_are_delivered_in_the_order_of_their_receipts() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { log, consumer } = open(dir.path(), 5);
    let mut consuming = Consuming::start(consumer);
    let inboxes = consuming.assign();
    let threads: Vec<_> = (0..8_u64)
        .map(|thread| {
            let log = log.clone();
            std::thread::spawn(move || {
                let mut receipts = Vec::new();
                for round in 0..30_u64 {
                    let group: Vec<_> = (0..20_u64)
                        .map(|index| {
                            let seed = thread << 32 | round << 8 | index;
                            let size = if index == 7 && round % 10 == 3 {
                                2_000_000
                            } else {
                                (seed % 9000) as usize
                            };
                            let partition = Partition((seed % 5) as u32);
                            (seed, size, log.append(partition, record("k", bytes(seed, size))))
                        })
                        .collect();
                    for (seed, size, answer) in group {
                        receipts.push((block_on(answer).unwrap(), seed, size));
                    }
                }
                receipts
            })
        })
        .collect();
    let mut expected: BTreeMap<(u32, u64), (u64, usize)> = BTreeMap::new();
    for receipts in threads.into_iter().map(|thread| thread.join().unwrap()) {
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for (receipt, seed, size) in receipts {
            let place = (receipt.partition.0, receipt.offset.0);
            assert!(expected.insert(place, (seed, size)).is_none(), "{place:?} was given twice");
            let before = last.insert(place.0, place.1);
            assert!(before.is_none_or(|before| before < place.1), "one caller's order was lost");
        }
    }
    assert_eq!(expected.len(), 4800);
    for (partition, inbox) in inboxes.iter().enumerate() {
        let count = expected.range((partition as u32, 0)..(partition as u32 + 1, 0)).count();
        for (index, record) in inbox.take_all(count).into_iter().enumerate() {
            assert_eq!(record.offset.0, index as u64);
            let (seed, size) = expected[&(partition as u32, index as u64)];
            assert!(record.value == bytes(seed, size), "{partition}-{index}");
        }
    }
    consuming.close();
}

#[test]
fn who_has_a_receipt_finds_the_log_reaching_beyond_it() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { log, .. } = open(dir.path(), 2);
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let log = &log;
            scope.spawn(move || {
                for _ in 0..100 {
                    let receipt = append(log, thread % 2, "x").unwrap();
                    let end = log.shared.published.view().ends[receipt.partition.0 as usize];
                    assert!(receipt.offset.0 < end, "{receipt:?}, and it ends at {end}");
                }
            });
        }
    });
}

#[test]
fn what_was_appended_and_not_committed_is_delivered_again() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 2);
    let mut consuming = Consuming::start(opened.consumer);
    let inboxes = consuming.assign();
    for index in 0..100 {
        append(&opened.log, index % 2, bytes(u64::from(index), 500)).unwrap();
    }
    inboxes[0].take_all(50);
    inboxes[1].take_all(50);
    consuming.commit(&[(0, 20), (1, 50)]);
    consuming.close();
    drop(opened.log);
    let opened = open(dir.path(), 2);
    let mut consuming = Consuming::start(opened.consumer);
    assert_eq!(consuming.offered, [(Partition(0), Offset(20)), (Partition(1), Offset(50))]);
    let inboxes = consuming.assign();
    let again: Vec<u64> = inboxes[0].take_all(30).iter().map(|record| record.offset.0).collect();
    assert_eq!(again, (20..50).collect::<Vec<_>>());
    append(&opened.log, 1, "next").unwrap();
    assert_eq!(inboxes[1].take_all(1)[0].offset, Offset(50));
    consuming.close();
}

#[test]
fn a_slow_inbox_pauses_its_lane_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let limits = DeliveryLimits { partition_records: 2000, partition_bytes: 1 << 30, total_bytes: 1 << 31 };
    let Opened { log, consumer } = EmbeddedLog::open(&config(dir.path(), 2), limits).unwrap();
    let mut consuming = Consuming::start(consumer);
    let inboxes = consuming.assign();
    let answers: Vec<_> = (0..20_000_u32)
        .map(|index| log.append(Partition(index % 2), record("k", bytes(u64::from(index), 200))))
        .collect();
    block_on(futures_util::future::try_join_all(answers)).unwrap();
    // All of partition 1 comes through though nothing of partition 0 is taken.
    let fast = inboxes[1].take_all(10_000);
    assert!(fast.iter().enumerate().all(|(index, record)| record.offset.0 == index as u64));
    consuming.wait_for(|event| match event {
        ConsumerEvent::Paused { partition: Partition(0), paused: true } => Some(()),
        _ => None,
    });
    assert!(inboxes[0].peak().records < 2000 + 1024, "{:?}", inboxes[0].peak());
    let slow = inboxes[0].take_all(10_000);
    assert!(slow.iter().enumerate().all(|(index, record)| record.offset.0 == index as u64));
    assert!(inboxes[0].peak().records < 2000 + 1024, "{:?}", inboxes[0].peak());
    consuming.wait_for(|event| match event {
        ConsumerEvent::Paused { partition: Partition(0), paused: false } => Some(()),
        _ => None,
    });
    consuming.close();
}

#[test]
fn large_records_of_many_partitions_are_not_fetched_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let total = 12_000_000;
    let limits = DeliveryLimits { partition_records: 100, partition_bytes: total, total_bytes: total };
    let Opened { log, consumer } = EmbeddedLog::open(&config(dir.path(), 4), limits).unwrap();
    for index in 0..12 {
        append(&log, index % 4, bytes(u64::from(index), 8_000_000)).unwrap();
    }
    let mut consuming = Consuming::start(consumer);
    let inboxes = consuming.assign();
    let mut taken = [0; 4];
    while taken.iter().sum::<usize>() < 12 {
        let outstanding: u64 = inboxes.iter().map(|inbox| inbox.outstanding().bytes).sum();
        assert!(outstanding <= total, "{outstanding} bytes at once");
        for (inbox, taken) in inboxes.iter().zip(&mut taken) {
            *taken += inbox.take(1).len();
        }
        std::thread::yield_now();
    }
    assert_eq!(taken, [3; 4]);
    consuming.close();
}

#[test]
fn a_reopened_lane_starts_where_it_is_told_under_its_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { log, consumer } = open(dir.path(), 2);
    let mut consuming = Consuming::start(consumer);
    let inboxes = consuming.assign();
    for index in 0..3000 {
        drop(log.append(Partition(index % 2), record("k", bytes(u64::from(index), 100))));
    }
    inboxes[0].take_all(1500);
    inboxes[1].take_all(1500);
    for start in [1499, 700, 0, 1500] {
        let inbox = Arc::new(Kept::default());
        let lane = consuming.lane(0, start, &inbox);
        let epoch = lane.epoch;
        consuming.handle.send(ConsumerCommand::Reopen(lane));
        let again = inbox.take_all(1500 - start as usize);
        assert!(again.iter().map(|record| record.offset.0).eq(start..1500), "from {start}");
        assert!(inbox.state.lock().unwrap().epochs.iter().all(|seen| *seen == epoch));
    }
    consuming.close();
}

#[test]
fn a_closed_lane_gets_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { log, consumer } = open(dir.path(), 2);
    let mut consuming = Consuming::start(consumer);
    let inboxes = consuming.assign();
    append(&log, 0, "a").unwrap();
    inboxes[0].take_all(1);
    let epoch = Epoch::new(consuming.generation, 1);
    consuming.handle.send(ConsumerCommand::CloseLane { partition: Partition(0), epoch });
    consuming.commit(&[(0, 1)]);
    append(&log, 0, "b").unwrap();
    append(&log, 1, "c").unwrap();
    inboxes[1].take_all(1);
    assert_eq!(inboxes[0].take(1).len(), 0);
    consuming.close();
}

#[test]
fn missing_records_close_the_lane_and_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path(), 2);
    for index in 0..10 {
        append(&opened.log, index % 2, "x").unwrap();
    }
    drop(opened);
    let path = super::super::schema::database(dir.path());
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute("DELETE FROM records WHERE partition = 1 AND offset IN (2, 3)", [])
        .unwrap();
    let Opened { log, consumer } = open(dir.path(), 2);
    let mut consuming = Consuming::start(consumer);
    let inboxes = consuming.assign();
    let detail = consuming.wait_for(|event| match event {
        ConsumerEvent::Discontinuity { partition: Partition(1), detail, .. } => Some(detail),
        _ => None,
    });
    assert!(detail.contains("expected offset 2, found 4"), "{detail}");
    assert_eq!(inboxes[0].take_all(5).len(), 5);
    assert_eq!(inboxes[1].take(10).len(), 2);
    append(&log, 1, "y").unwrap();
    append(&log, 0, "y").unwrap();
    inboxes[0].take_all(1);
    assert_eq!(inboxes[1].take(10).len(), 0);
    consuming.close();
}

#[test]
fn high_watermarks_tell_how_far_the_log_reaches() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { log, consumer } = open(dir.path(), 2);
    let mut consuming = Consuming::start(consumer);
    consuming.assign();
    append(&log, 1, "x").unwrap();
    append(&log, 1, "x").unwrap();
    let wanted = [(Partition(0), Offset(0)), (Partition(1), Offset(2))];
    consuming.wait_for(|event| {
        matches!(event, ConsumerEvent::HighWatermarks(ends) if ends == wanted).then_some(())
    });
    consuming.close();
}

#[actix_rt::test]
async fn a_backlog_is_what_is_stored_and_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let Opened { log, consumer } = open(dir.path(), 2);
    for _ in 0..5 {
        log.append(Partition(1), record("k", "x")).await.unwrap();
    }
    let consuming = Consuming::start(consumer);
    consuming.commit(&[(1, 3)]);
    let reaches = log.backlog().await.unwrap();
    let seen: Vec<_> = reaches.iter().map(|reach| (reach.committed, reach.first, reach.end)).collect();
    assert_eq!(seen, [(None, Offset(0), Offset(0)), (Some(Offset(3)), Offset(0), Offset(5))]);
    assert_eq!(log.committed(Partition(1)).await, Ok(Some(Offset(3))));
    assert_eq!(log.committed(Partition(0)).await, Ok(None));
    consuming.close();
}
