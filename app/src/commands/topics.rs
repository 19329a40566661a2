//! `partita topics create`

use crate::cli::ConfigArgs;
use partita::config::{ConfigError, LogKind};
use std::{io::Write, process::ExitCode};

/// Makes the topics that are not there, and says what is there.
pub(super) fn create(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let layered = args.load()?;
    if layered.config.log.kind != LogKind::Kafka {
        return Err(ConfigError(format!(
            "log.kind is \"embedded\" ({}): the embedded log makes its partitions by itself\nhelp: for topics in Kafka set log.kind = \"kafka\"",
            layered.origin("log.kind")
        ))
        .into());
    }
    let reports = super::engine::create_topics(&layered.config)?;
    let mut out = std::io::stdout().lock();
    for (topic, detail) in reports {
        let _ = writeln!(out, "topic {topic}: {detail}");
    }
    Ok(ExitCode::SUCCESS)
}
