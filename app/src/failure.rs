//! How a command that failed says so, and with which exit code.

use partita::config::ConfigError;
use std::{io::Write, process::ExitCode};

/// A runtime failure.
pub(crate) const FAILED: u8 = 1;

/// A usage or configuration error.
pub(crate) const USAGE: u8 = 2;

/// Writes one block, `error:` and where it is known `help:`, and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    // One line a cause: each says what the next could not know.
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
    }
    let _ = writeln!(std::io::stderr().lock(), "error: {text}");
    exit_code(error).into()
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let is_config = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<ConfigError>()
            || matches!(cause.downcast_ref(), Some(partita::Error::Config(_)))
            || matches!(cause.downcast_ref(), Some(partita_client::Error::Usage(_)))
    };
    if error.chain().any(is_config) { USAGE } else { FAILED }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_wrong_configuration_ends_with_2_and_everything_else_with_1() {
        let config = || ConfigError("x".into());
        let wrapped: Result<(), _> = Err(partita::Error::from(config()));
        assert_eq!(exit_code(&config().into()), USAGE);
        assert_eq!(exit_code(&wrapped.context("while starting").unwrap_err()), USAGE);
        assert_eq!(exit_code(&partita_client::Client::new("nonsense").unwrap_err().into()), USAGE);
        assert_eq!(exit_code(&partita::Error::Fatal("x".into()).into()), FAILED);
        assert_eq!(exit_code(&anyhow::anyhow!("x")), FAILED);
    }
}
