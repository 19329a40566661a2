//! Partita beside bare programs that do the same, in one run.

use clap::Parser;
use partita_bench::compare::Cli;

fn main() -> anyhow::Result<()> {
    Cli::parse().run()
}
