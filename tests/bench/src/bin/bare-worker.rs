//! One thread, `BaseConsumer::poll`, the handler inline, a commit a second; the system's allocator.

use clap::Parser;
use partita_bench::{bare_worker, worker::WorkerArgs};

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(flatten)]
    worker: WorkerArgs,
}

fn main() -> anyhow::Result<()> {
    bare_worker::run(&Cli::parse().worker)?.print()
}
