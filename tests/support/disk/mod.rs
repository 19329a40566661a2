//! A disk that is watched, fills up, breaks or loses power: `shim.c` below a server, and what can be made of its notes.

pub mod image;
pub mod trace;

use crate::preload;
use anyhow::Result;
use std::{
    fs,
    path::{Path, PathBuf},
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
    pub fn environment(&self) -> Result<[(&'static str, PathBuf); 6]> {
        Ok([
            ("LD_PRELOAD", preload::library("disk/shim.c")?),
            ("DISK_DIR", self.0.clone()),
            ("DISK_TRACE", self.trace()),
            ("DISK_FULL", self.full()),
            ("DISK_BROKEN", self.broken()),
            ("DISK_HUNG", self.hung()),
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

    /// From now on no sync ends, or all do that wait.
    pub fn set_hung(&self, hung: bool) -> Result<()> {
        set(&self.hung(), hung)
    }

    fn full(&self) -> PathBuf {
        self.0.join("disk-full.log")
    }

    fn broken(&self) -> PathBuf {
        self.0.join("disk-broken.log")
    }

    fn hung(&self) -> PathBuf {
        self.0.join("disk-hung.log")
    }
}

/// Makes a flag for the shim, or takes it away.
pub fn set(flag: &Path, wanted: bool) -> Result<()> {
    if wanted {
        fs::write(flag, "")?;
    } else {
        fs::remove_file(flag)?;
    }
    Ok(())
}
