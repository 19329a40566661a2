//! Random interleavings of everything, each from its seed, judged by the ledger: C1 (every task ends), C2 (in order), C4
//! (committed is never past what ended, and never goes back), C7 (no start of an old epoch after a newer one's).

use super::*;
use crate::testing::Step;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

const PARTITIONS: u32 = 3;
const RUNS: u64 = 300;

/// splitmix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What the handler does depends on the seed and on how often it was asked before.
fn act(seed: u64, asked: u64) -> Act {
    let mut dice = Dice(seed ^ asked << 32);
    match dice.roll(100) {
        0..60 => Act::Succeed,
        60..78 => Act::After(Duration::from_millis(dice.roll(400))),
        78..86 => Act::Fail,
        86..89 => Act::Panic,
        89..93 => Act::Reject,
        93..96 => Act::Park,
        _ => Act::Unavailable,
    }
}

#[test]
fn no_interleaving_loses_reorders_or_commits_too_far() {
    let only = std::env::var("PARTITA_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..RUNS, |seed| seed..seed + 1) {
        let run = std::panic::catch_unwind(|| crate::testing::run(one_run(seed)));
        assert!(run.is_ok(), "run it again with PARTITA_SEED={seed}");
    }
}

async fn one_run(seed: u64) {
    let mut config = config();
    config.retry.attempts = 3;
    config.worker.task_timeout = (seed.is_multiple_of(3)).then_some(Duration::from_millis(250));
    config.worker.drain_timeout = Duration::from_millis(300);
    let asked = AtomicU64::new(0);
    let script = move |_: &TaskContext| act(seed, asked.fetch_add(1, Relaxed));
    let (pipeline, ledger) = pipeline_by_hand(config, PARTITIONS, script);
    let mut dice = Dice(seed);
    let mut owned = BTreeSet::new();
    for _ in 0..80 {
        let partition = dice.roll(u64::from(PARTITIONS)) as u32;
        match dice.roll(12) {
            0..3 => {
                let key = key_of(partition, PARTITIONS, dice.roll(2) as usize);
                pipeline.send((key, "payload")).await;
            }
            3..6 => _ = pipeline.log().deliver(partition, 1 + dice.roll(6) as usize),
            6 | 7 if !pipeline.log().owns(partition) && owned.insert(partition) => {
                pipeline.log().assign(&[partition])
            }
            8 if owned.remove(&partition) => pipeline.log().revoke(&[partition]),
            9 if owned.remove(&partition) => pipeline.log().lose(&[partition]),
            10 => match dice.roll(2) {
                0 => pipeline.log().fail_commits(dice.roll(3) as u32),
                _ => pipeline.log().fail_parks(dice.roll(4) as u32),
            },
            _ => tokio::time::sleep(Duration::from_millis(dice.roll(700))).await,
        }
        if dice.roll(3) == 0 {
            tokio::task::yield_now().await;
        }
        judge_commits(&pipeline, &ledger);
    }
    settle(&pipeline, owned).await;
    judge_commits(&pipeline, &ledger);
    judge_starts(&ledger);
    assert_eq!(pipeline.log().foreign_commits(), []);
    judge_ends(&pipeline, &ledger);
}

async fn settle(pipeline: &TestPipeline, owned: BTreeSet<u32>) {
    let rest: Vec<u32> = (0..PARTITIONS).filter(|partition| !owned.contains(partition)).collect();
    let given_back = |pipeline: &TestPipeline| rest.iter().all(|&partition| !pipeline.log().owns(partition));
    pipeline.wait_until("what was revoked is given back", given_back).await;
    pipeline.log().assign(&rest);
    pipeline
        .wait_until("everything is settled", |pipeline| {
            for partition in 0..PARTITIONS {
                pipeline.log().deliver(partition, usize::MAX);
            }
            pipeline.log().is_settled()
        })
        .await;
}

/// The offsets of a partition whose tasks have ended.
fn ended(pipeline: &TestPipeline, ledger: &Ledger, partition: u32) -> BTreeSet<u64> {
    let done = ledger.offsets(What::Done, partition);
    let parked = pipeline.log().parked(partition);
    done.into_iter().chain(parked.iter().map(|parked| parked.offset)).collect()
}

/// C4.
fn judge_commits(pipeline: &TestPipeline, ledger: &Ledger) {
    for partition in 0..PARTITIONS {
        let ended = ended(pipeline, ledger, partition);
        let unbroken = (0..).find(|offset| !ended.contains(offset)).unwrap();
        let committed = pipeline.log().committed(partition).map_or(0, |offset| offset.0);
        assert!(
            committed <= unbroken,
            "partition {partition}: {committed} is committed, {unbroken} have ended"
        );
    }
    let mut last = BTreeMap::new();
    for step in pipeline.log().history() {
        if let Step::Committed(partition, offset) = step {
            let before = last.insert(partition, offset);
            assert!(before <= Some(offset), "partition {partition} went back from {before:?} to {offset}");
        }
    }
}

/// C2 and C7: within an epoch offsets only grow, epochs only grow, and each task is first begun after the one before.
fn judge_starts(ledger: &Ledger) {
    let mut last: BTreeMap<u32, Entry> = BTreeMap::new();
    let mut first: BTreeMap<u32, u64> = BTreeMap::new();
    for entry in ledger.of(What::Start) {
        if let Some(before) = last.insert(entry.partition, entry) {
            assert!(entry.epoch >= before.epoch, "{entry:?} after {before:?}");
            let again = entry.offset == before.offset && entry.attempt >= before.attempt;
            let next = entry.offset == before.offset + 1;
            assert!(entry.epoch > before.epoch || again || next, "{entry:?} after {before:?}");
        }
        let expected = first.entry(entry.partition).or_default();
        assert!(entry.offset <= *expected, "{entry:?} was begun before offset {expected}");
        *expected = (*expected).max(entry.offset + 1);
    }
}

/// C1.
fn judge_ends(pipeline: &TestPipeline, ledger: &Ledger) {
    for partition in 0..PARTITIONS {
        let end = pipeline.log().end(partition).0;
        assert_eq!(ended(pipeline, ledger, partition), (0..end).collect(), "partition {partition}");
    }
}
