//! Files that somebody else writes anew while they are in use.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, SystemTime},
};

/// How often such a file is looked at, at most.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// What tells one state of a file from another: one that is replaced may be as large, and as old, as the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: SystemTime,
    length: u64,
    inode: u64,
}

impl Stamp {
    /// Of a file as it is now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::metadata(path)?;
        Ok(Self { modified: meta.modified()?, length: meta.len(), inode: meta.ino() })
    }
}
