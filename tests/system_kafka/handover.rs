//! How long a partition has no owner when a worker joins or leaves in good order.

use anyhow::{Result, ensure};
use partita_tests::{
    checkers, checkers_starts,
    history::History,
    journal::{self, Event, Line},
    kafka::Kafka,
    load::Load,
    random::Random,
    server::Server,
    wait,
};
use std::{collections::BTreeMap, time::Duration};

const PARTITIONS: u32 = 64;
/// What waits before the first worker starts, so that no partition stands still for want of work.
const BACKLOG: u64 = 16_000;
/// How long one task takes.
const DELAY: &str = "80";
/// How long a partition may have no owner.
const ALLOWED: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_handover_of_64_partitions_takes_a_second_at_most() {
    let kafka = Kafka::up(1).unwrap();
    let base = crate::created(&kafka, PARTITIONS).await;
    let door = base.clone().role("front-door").start().await.unwrap();
    let load = Load { tasks: BACKLOG, keys: 1_000, clients: 48, sizes: 100..=1_000, ..Load::default() };
    let ledger = load.start(door.setup().front(), Random::new(7)).finish().await.unwrap();
    let worker = |name| base.journal_worker(name, &["--delay-ms", DELAY]);
    let first = worker("first").start().await.unwrap();
    owned(&[&first]).await.unwrap();

    let second = worker("second").start().await.unwrap();
    owned(&[&first, &second]).await.unwrap();
    wait::until("the second worker begins all its partitions", Duration::from_secs(30), async || {
        let moved = gaps(&journal::read(base.home())?).len();
        ensure!(moved >= PARTITIONS as usize / 2, "{moved} partitions have moved");
        Ok(Some(()))
    })
    .await
    .unwrap();
    let status = second.stop(Duration::from_secs(30)).await.unwrap();
    assert!(status.success(), "{status}");
    owned(&[&first]).await.unwrap();
    crate::committed_is_end(&kafka, PARTITIONS).await;

    let lines = journal::read(base.home()).unwrap();
    let gaps = gaps(&lines);
    let median = gaps[gaps.len() / 2];
    println!("{} handovers: median {median:.2?}, longest {:.2?}", gaps.len(), gaps[gaps.len() - 1]);
    assert!(
        gaps.len() >= PARTITIONS as usize,
        "half of the partitions go to the second worker and come back"
    );
    assert!(gaps.iter().all(|gap| *gap <= ALLOWED), "{gaps:?}");

    let ends: Vec<_> = lines.iter().filter_map(Line::end).collect();
    let history = History { attempts: ledger.attempts(), ends, steps: Vec::new() };
    assert_eq!(checkers::violations(&history, checkers::Bounds::default()), Vec::<String>::new());
    assert_eq!(checkers_starts::one_at_a_time(&lines), Vec::<String>::new());
    assert_eq!(checkers_starts::no_start_of_a_former_owner(&lines), Vec::<String>::new());
    first.is_sound().await.unwrap();
}

/// Waits until the workers share all partitions, none of them without any.
async fn owned(workers: &[&Server]) -> Result<()> {
    wait::until("all partitions are assigned", Duration::from_secs(30), async || {
        let mut sum = 0;
        for worker in workers {
            let owned = worker.partitions().await?.len();
            ensure!(owned > 0, "a worker owns nothing");
            sum += owned;
        }
        ensure!(sum == PARTITIONS as usize, "{sum} of {PARTITIONS}");
        Ok(Some(()))
    })
    .await
}

/// From the last end under one owner to the first start under the next, for each change of a partition's owner, ascending.
fn gaps(lines: &[Line]) -> Vec<Duration> {
    let mut last: BTreeMap<u32, &Line> = BTreeMap::new();
    let mut gaps = Vec::new();
    for line in lines {
        let entry = &line.entry;
        let before = last.insert(entry.partition, line);
        if let Some(before) = before
            && line.event == Event::Start
            && before.entry.epoch != entry.epoch
        {
            gaps.push(line.time.saturating_sub(before.time));
        }
    }
    gaps.sort_unstable();
    gaps
}
