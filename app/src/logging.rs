//! The process's log, on standard error.

use crate::cli::{LogFormat, LoggingArgs};
use partita::config::ConfigError;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// What a panic says may quote a payload: a handler's is kept with its task, and the log says only where it was.
fn say_where_panics_are() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!("thread '{}' panicked at {place}", thread.name().unwrap_or("unnamed"));
    }));
}

/// Starts logging. Once, before anything is logged.
pub(crate) fn start(args: &LoggingArgs) -> Result<(), ConfigError> {
    let filter = EnvFilter::try_new(&args.filter).map_err(|error| {
        ConfigError(format!(
            "--log (or RUST_LOG) {:?} is not a filter: {error}\nhelp: for example  --log info  or  --log partita=debug,warn",
            args.filter
        ))
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    say_where_panics_are();
    match args.log_format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}
