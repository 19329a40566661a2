//! `partita config print`

use crate::{cli::ConfigArgs, handlers::HandlerConfig};
use std::{io::Write, process::ExitCode};

/// Prints the settings in force.
pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let layered = args.load()?;
    HandlerConfig::read(&layered.config.handler)?;
    // A reader that has seen enough (`| head`) is no failure.
    let _ = std::io::stdout().lock().write_all(layered.print().as_bytes());
    Ok(ExitCode::SUCCESS)
}
