//! Random interleavings of everything, each from its seed, judged by the ledger: C1 (every task ends), C2 (the tasks of a key in order,
//! also when they are parked and redriven), C4
//! (committed is never past what ended, and never goes back), C7 (no start of an old epoch after a newer one's).

use super::*;
use crate::{ParkedSelection, testing::Step};
use partita_proto::v1::{
    Parked,
    parked::{End, Kind},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

const PARTITIONS: u32 = 3;
/// Seeds of an ordinary run; `PARTITA_SEEDS` says how many others.
const SEEDS: u64 = 2000;

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
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("PARTITA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PARTITA_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
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
    let calm = Arc::new(AtomicBool::new(false));
    let calmed = calm.clone();
    let script = move |_: &TaskContext| match calmed.load(Relaxed) {
        true => Act::Succeed,
        false => act(seed, asked.fetch_add(1, Relaxed)),
    };
    let mut keys = Keys::new();
    let (pipeline, ledger) = pipeline_by_hand(config, PARTITIONS, script);
    let mut dice = Dice(seed);
    let mut owned = BTreeSet::new();
    for _ in 0..120 {
        let partition = dice.roll(u64::from(PARTITIONS)) as u32;
        match dice.roll(14) {
            0..3 => {
                let key = key_of(partition, PARTITIONS, dice.roll(2) as usize);
                let receipt = pipeline.send((key.clone(), "payload")).await;
                keys.insert((partition, receipt.offset.0), key);
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
            11 => _ = pipeline.operations().redrive(&ParkedSelection::All),
            12 if dice.roll(3) == 0 => give_one_up(&pipeline, &mut dice),
            _ => tokio::time::sleep(Duration::from_millis(dice.roll(700))).await,
        }
        if dice.roll(3) == 0 {
            tokio::task::yield_now().await;
        }
        judge_commits(&pipeline, &ledger);
    }
    settle(&pipeline, owned).await;
    // Where nothing was left to be handled, that may have been before the owner began.
    pipeline.owns(&(0..PARTITIONS).collect::<Vec<_>>()).await;
    calm.store(true, Relaxed);
    redrive_all(&pipeline).await;
    judge_commits(&pipeline, &ledger);
    judge_epochs(&ledger);
    judge_order(&pipeline, &ledger, &keys);
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

/// One of the parked tasks is dropped, sooner or later.
fn give_one_up(pipeline: &TestPipeline, dice: &mut Dice) {
    let parked = pipeline.operations().list_parked(&ParkedSelection::All).unwrap();
    if parked.is_empty() {
        return;
    }
    let task = &parked[dice.roll(parked.len() as u64) as usize];
    let (desk, selection) = (pipeline.operations(), ParkedSelection::Task(task.partition, task.offset));
    actix_rt::spawn(async move { desk.drop_parked(&selection, "the dice say so").await });
}

/// Until nothing is parked any more, as far as every partition has read.
async fn redrive_all(pipeline: &TestPipeline) {
    pipeline
        .wait_until("nothing is parked", |pipeline| {
            let operations = pipeline.operations();
            let redriven = operations.redrive(&ParkedSelection::All).unwrap();
            redriven.tasks == 0 && operations.unread_partitions().is_empty()
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

/// C7.
fn judge_epochs(ledger: &Ledger) {
    let mut last: BTreeMap<u32, Entry> = BTreeMap::new();
    for entry in ledger.of(What::Start) {
        if let Some(before) = last.insert(entry.partition, entry) {
            assert!(entry.epoch >= before.epoch, "{entry:?} after {before:?}");
        }
    }
}

/// The key of each task.
type Keys = BTreeMap<(u32, u64), String>;

/// C2: the tasks of a key are first begun, and first done, in their order. Within an epoch none is begun after a later one of its key.
/// A task that was rejected or dropped had its end: that an owner who was not told of it has it done is a redelivery.
fn judge_order(pipeline: &TestPipeline, ledger: &Ledger, keys: &Keys) {
    let given_up =
        |note: &Parked| note.kind() == Kind::Rejected || matches!(note.end(), End::Rejected | End::Dropped);
    let given_up: BTreeSet<(u32, u64)> = (0..PARTITIONS)
        .flat_map(|partition| pipeline.log().journal_of(partition))
        .filter(given_up)
        .map(|note| (note.partition, note.offset))
        .collect();
    for what in [What::Start, What::Done] {
        let mut first: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        let mut within: BTreeMap<(&str, u64), u64> = BTreeMap::new();
        for entry in ledger.of(what) {
            let key = &keys[&(entry.partition, entry.offset)];
            let seen = first.entry(key).or_default();
            if !seen.contains(&entry.offset) && !given_up.contains(&(entry.partition, entry.offset)) {
                seen.push(entry.offset);
            }
            let before = within.insert((key, entry.epoch), entry.offset);
            assert!(before <= Some(entry.offset), "{entry:?} of {key} after {before:?}");
        }
        assert!(first.values().all(|offsets| offsets.is_sorted()), "{what:?}: {first:?}");
    }
}

/// C1: each task is done, rejected or dropped.
fn judge_ends(pipeline: &TestPipeline, ledger: &Ledger) {
    for partition in 0..PARTITIONS {
        let end = pipeline.log().end(partition).0;
        let mut ended: BTreeSet<u64> = ledger.offsets(What::Done, partition).into_iter().collect();
        let rejected =
            pipeline.log().parked(partition).into_iter().filter(|note| note.kind() == Kind::Rejected);
        ended.extend(rejected.map(|note| note.offset));
        ended.extend(pipeline.log().history().iter().filter_map(|step| match step {
            Step::Closed(closed, offset) if closed.0 == partition => Some(offset.0),
            Step::Closed(..) | Step::Parked(..) | Step::Committed(..) => None,
        }));
        assert_eq!(ended, (0..end).collect(), "partition {partition}");
    }
}
