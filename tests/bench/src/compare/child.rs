//! The measured programs as child processes.

use super::Setup;
use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// A command for one of the programs beside this one.
pub(super) fn program(setup: &Setup, name: &str) -> Command {
    let mut command = Command::new(setup.bin_dir.join(name));
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    command
}

/// Runs a program to its end; its last line of output is its report.
pub(super) fn report<T: DeserializeOwned>(mut command: Command) -> Result<T> {
    let what = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("running {what}; was it built?"))?;
    if !output.status.success() {
        bail!("{what} failed: {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("{what} reported {last:?}"))
}

/// A server that is ended with this.
pub(super) struct Server {
    child: Child,
    /// Where it listens, as host:port.
    pub(super) address: String,
}

impl Server {
    /// Starts a server and waits until it says where it listens.
    pub(super) fn start(mut command: Command) -> Result<Self> {
        let what = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {what}; was it built?"))?;
        let stdout = child.stdout.take().context("the server's output")?;
        let mut server = Self { child, address: String::new() };
        for line in BufReader::new(stdout).lines() {
            if let Some(address) = line?.strip_prefix("listening on ") {
                address.clone_into(&mut server.address);
                return Ok(server);
            }
        }
        bail!("{what} ended before it listened")
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
