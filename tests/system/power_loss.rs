//! The power goes at any write: what may then be on the disk is made from a watched run, and a server started on it.

use crate::PARTITIONS;
use anyhow::{Context, Result, ensure};
use partita_tests::{
    checkers::{self, Bounds},
    disk::{
        image::Disk,
        trace::{self, Change},
    },
    ledger::Ledger,
    load::Load,
    observe::Observer,
    random::Random,
    server::Setup,
    size::number,
};
use std::time::Duration;

/// The recorded run: records in rows and in chunks, checkpoints, deletions, and a close.
fn setup() -> Setup {
    Setup::embedded().set("log.embedded.retention", "\"1s\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_task_is_there_and_in_order_wherever_the_power_goes() {
    let mut random = Random::from_env();
    let images = number("PARTITA_TEST_IMAGES", 24);
    let tasks = number("PARTITA_TEST_TASKS", 150);
    let (ledger, changes) = recorded(tasks, &mut random).await.unwrap();
    let mut cuts: Vec<u64> = (0..images).map(|_| random.below(changes.len() as u64)).collect();
    cuts.sort_unstable();
    let mut disk = Disk::default();
    let mut cuts = cuts.into_iter().peekable();
    for (number, change) in changes.iter().enumerate() {
        while cuts.next_if_eq(&(number as u64)).is_some() {
            let known = ledger.as_of(change.time);
            let left = after_the_cut(&disk, &known, &mut random).await;
            left.with_context(|| format!("cut before change {number}, of {}", change.path.display()))
                .unwrap();
        }
        disk.apply(number as u64, change).unwrap();
    }
    eprintln!("{:?}, {} changes, {images} images", ledger.counts(), changes.len());
}

/// A run under load from the first start to the last stop, with what its clients know and what it did to its files.
async fn recorded(tasks: u64, random: &mut Random) -> Result<(Ledger, Vec<Change>)> {
    let setup = setup().watched();
    let server = setup.start().await?;
    let load = Load { tasks, keys: 60, clients: 12, sizes: 100..=5_000_000, ..Load::default() };
    let ledger = load.start(setup.front(), Random::new(random.bits())).finish().await?;
    server.committed_is_end(PARTITIONS, &ledger.acknowledged(), Duration::from_secs(60)).await?;
    let status = server.stop(Duration::from_secs(30)).await?;
    ensure!(status.success(), "{status}");
    Ok((ledger, trace::read(&setup.watch().trace())?))
}

/// The power goes, perhaps once more while the next server starts; then a server is started, works off what it finds, and is judged.
async fn after_the_cut(disk: &Disk, ledger: &Ledger, random: &mut Random) -> Result<()> {
    let mut left = setup().watched();
    disk.crash(left.home(), random)?;
    if random.below(3) == 0 {
        left = cut_again(left, random).await.context("the second cut")?;
    }
    let server = left.start().await?;
    server.committed_is_end(PARTITIONS, &ledger.acknowledged(), Duration::from_secs(60)).await?;
    let mut observer = Observer::default();
    observer.look(&server.client(), &[]).await?;
    let wrong = checkers::violations(&observer.history(ledger), Bounds::default());
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.client().accept("another", "one more").await?;
    server.is_sound().await?;
    let status = server.stop(Duration::from_secs(30)).await?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// Starts a server on what is left, and takes the power away at any of its own writes.
async fn cut_again(setup: Setup, random: &mut Random) -> Result<Setup> {
    let mut disk = Disk::of(setup.home())?;
    let server = setup.start().await?;
    tokio::time::sleep(Duration::from_millis(random.below(500))).await;
    server.kill();
    let changes = trace::read(&setup.watch().trace())?;
    let cut = random.below(changes.len() as u64 + 1);
    for (number, change) in changes.iter().enumerate().take(cut as usize) {
        disk.apply(number as u64, change)?;
    }
    let left = self::setup().watched();
    disk.crash(left.home(), random)?;
    Ok(left)
}
