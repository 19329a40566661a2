//! A disk that is watched, fills up, breaks or loses power: `shim.c` below a server, and what can be made of its notes.

pub mod image;
pub mod trace;

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The watch over one server's directory. Its own files are in it, under names that are not watched.
#[derive(Debug, Clone)]
pub struct Watch(PathBuf);

impl Watch {
    /// Of what is done below `home`.
    pub fn over(home: &Path) -> Self {
        Self(home.to_owned())
    }

    /// The environment of the server that is to be watched.
    pub fn environment(&self) -> Result<[(&'static str, PathBuf); 5]> {
        Ok([
            ("LD_PRELOAD", shim()?),
            ("DISK_DIR", self.0.clone()),
            ("DISK_TRACE", self.trace()),
            ("DISK_FULL", self.full()),
            ("DISK_BROKEN", self.broken()),
        ])
    }

    /// Where the changes are noted.
    pub fn trace(&self) -> PathBuf {
        self.0.join("disk-trace.log")
    }

    /// From now on the disk has no room, or has it again.
    pub fn set_full(&self, full: bool) -> Result<()> {
        set(&self.full(), full)
    }

    /// From now on no sync succeeds, or all do again.
    pub fn set_broken(&self, broken: bool) -> Result<()> {
        set(&self.broken(), broken)
    }

    fn full(&self) -> PathBuf {
        self.0.join("disk-full.log")
    }

    fn broken(&self) -> PathBuf {
        self.0.join("disk-broken.log")
    }
}

fn set(flag: &Path, wanted: bool) -> Result<()> {
    if wanted {
        fs::write(flag, "")?;
    } else {
        fs::remove_file(flag)?;
    }
    Ok(())
}

/// The shim, compiled by the C compiler that librdkafka and SQLite are built with.
fn shim() -> Result<PathBuf> {
    static SHIM: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let made = SHIM.get_or_init(|| compile().map_err(|error| format!("{error:#}")));
    made.clone().map_err(anyhow::Error::msg)
}

fn compile() -> Result<PathBuf> {
    let shim = std::env::current_exe()?.with_file_name("libdisk.so");
    // Another test process may be using the one that is there.
    let new = shim.with_extension(std::process::id().to_string());
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/support/disk/shim.c");
    let mut cc = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-o"]);
    let output = cc.arg(&new).arg(source).arg("-ldl").output().context("the C compiler")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(new, &shim)?;
    Ok(shim)
}
