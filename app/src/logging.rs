//! The process's log, on standard error.

use crate::cli::{LogFormat, LoggingArgs};
use partita::config::ConfigError;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Starts logging. Once, before anything is logged.
pub(crate) fn start(args: &LoggingArgs) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&args.filter).map_err(|error| {
        ConfigError(format!(
            "--log (or RUST_LOG) {:?} is not a filter: {error}\nhelp: for example  --log info  or  --log partita=debug,warn",
            args.filter
        ))
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}
