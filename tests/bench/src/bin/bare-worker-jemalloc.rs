//! One thread, `BaseConsumer::poll`, the handler inline, a commit a second; with jemalloc, to tell the allocator from the design.

use clap::Parser;
use partita_bench::{bare_worker, worker::WorkerArgs};

#[path = "../../../../app/src/allocator.rs"]
mod allocator;

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(flatten)]
    worker: WorkerArgs,
}

fn main() -> anyhow::Result<()> {
    bare_worker::run(&Cli::parse().worker)?.print()
}
