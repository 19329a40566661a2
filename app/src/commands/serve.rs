//! `partita serve`: front door and workers, until it is told to stop.

use crate::{
    cli::{RoleArg, ServeArgs},
    recorder::{RecorderConfig, Recordings},
    telemetry,
};
use partita::config::{ConfigError, Layered, LogKind};
use std::{process::ExitCode, sync::Arc};

/// Serves.
pub(super) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let layered = args.load()?;
    refuse_half_of_embedded(args.role, &layered)?;
    let recorder = RecorderConfig::read(&layered.config.handler)?;
    let recordings = Arc::new(Recordings::open(&recorder)?);
    let metrics = telemetry::install()?;
    let _ = (recordings, metrics);
    anyhow::bail!("the pipeline is not built into this version")
}

/// The embedded log belongs to one process: a half of it alone would serve nobody.
fn refuse_half_of_embedded(role: RoleArg, layered: &Layered) -> Result<(), ConfigError> {
    if role == RoleArg::All || layered.config.log.kind == LogKind::Kafka {
        return Ok(());
    }
    Err(ConfigError(format!(
        "one role alone needs log.kind = \"kafka\"; it is \"embedded\" ({}), which is one process\nhelp: leave --role out, or add --set log.kind=kafka",
        layered.origin("log.kind")
    )))
}
