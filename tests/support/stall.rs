//! The one memory number while handlers stand still: everything that may fill does.

use crate::{
    checkers::{self, Bounds},
    history::{History, Outcome},
    journal::{self, Line},
    load::Load,
    process,
    random::Random,
    server::Setup,
};
use anyhow::{Context, Result, ensure};
use std::{fs, time::Duration};

const PATIENCE: Duration = Duration::from_secs(300);
/// What may be resident beside the budget.
const BESIDE: u64 = 64 << 20;

/// A budget and the largest task that it is tried with, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// `memory.budget`.
    pub budget: u64,
    /// `limits.max_task`.
    pub max_task: u64,
}

/// What the issue of memory is tried with.
pub const SIZES: [Size; 4] = [
    Size { budget: 64 << 20, max_task: 16_000_000 },
    Size { budget: 256 << 20, max_task: 60_000_000 },
    Size { budget: 512 << 20, max_task: 100_000_000 },
    Size { budget: 1 << 30, max_task: 100_000_000 },
];

/// What was seen.
#[derive(Debug)]
pub struct Stall {
    /// Tasks accepted.
    pub accepted: usize,
    /// The most that was resident while the handlers stood still, in bytes.
    pub stalled: u64,
    /// The most that ever was, their work after that included.
    pub peak: u64,
}

/// Fills a new service over `partitions` partitions, whose handlers stand still, with many small tasks and some of the largest size, about
/// as many bytes as its budget; then lets them go on. Fails if more is resident than the budget and 64 MiB, or anything is lost or out
/// of order.
pub async fn through(setup: &Setup, partitions: usize, size: Size, random: &mut Random) -> Result<Stall> {
    let Size { budget, max_task } = size;
    let gate = setup.home().join("open");
    let server = setup
        .journal_worker(&format!("stalled-{}", budget >> 20), &["--serve", "--gated"])
        .set("memory.budget", budget.to_string())
        .set("limits.max_task", max_task.to_string())
        .start()
        .await?;
    let address = server.setup().front();
    let many =
        Load { name: "small", tasks: 2000 + budget / 500_000, keys: 4000, clients: 16, ..Load::default() };
    let large = Load {
        name: "large",
        tasks: (budget / max_task).max(8),
        keys: 8,
        clients: 4,
        sizes: max_task / 2..=max_task,
        ..Load::default()
    };
    let loads = [many, large].map(|load| load.start(address, Random::new(random.bits())));
    let mut attempts = Vec::new();
    for mut load in loads {
        attempts.extend(load.finish().await.context("while the handlers stand still")?.attempts());
    }
    let stalled = process::peak_resident(server.pid())?;
    let acknowledged = attempts.iter().filter_map(|attempt| match attempt.outcome {
        Outcome::Ok(position) => Some(position),
        _ => None,
    });
    let acknowledged: Vec<_> = acknowledged.collect();

    fs::write(&gate, "")?;
    server.committed_is_end(partitions, &acknowledged, PATIENCE).await?;
    let ends = journal::read(setup.home())?.iter().filter_map(Line::end).collect();
    let history = History { attempts, ends, steps: Vec::new() };
    let wrong = checkers::violations(&history, Bounds::default());
    ensure!(wrong.is_empty(), "{wrong:?}");
    server.is_sound().await?;
    let stall = Stall { accepted: acknowledged.len(), stalled, peak: process::peak_resident(server.pid())? };
    let status = server.stop(Duration::from_secs(60)).await?;
    ensure!(status.success(), "{status}");
    ensure!(stall.peak <= budget + BESIDE, "{} MiB of {size:?} became resident: {stall:?}", stall.peak >> 20);
    Ok(stall)
}
