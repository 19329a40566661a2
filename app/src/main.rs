//! The `partita` binary.

mod allocator;
mod bench;
mod cli;
mod commands;
mod failure;
mod handlers;
mod logging;
mod push;
mod recorder;
mod send;
mod telemetry;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // For every client of this process that speaks TLS. It is the first and only one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        // Clap knows which of its answers are errors: --help and --version are not.
        Err(answer) => {
            let _ = answer.print();
            return if answer.use_stderr() { failure::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}
