//! The changes that a server made to its files, in their order: what `shim.c` noted.

use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When it was made: before it was noted, and after the change before it.
    pub time: SystemTime,
    /// To which file or directory, below the directory that was watched.
    pub path: PathBuf,
    /// What.
    pub what: What,
}

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file that was not there.
    Create,
    /// A directory that was not there.
    MakeDir,
    /// A file's length.
    SetLength(u64),
    /// Bytes, from an offset on.
    Write(u64, Vec<u8>),
    /// A sync of a file or directory, with its number, begins.
    SyncBegins(u64),
    /// It has succeeded.
    SyncEnds(u64),
    /// The name goes.
    Unlink,
    /// The name becomes this one.
    Rename(PathBuf),
    /// This is a second name.
    Link(PathBuf),
}

/// Reads a trace. A note that is cut off at its end was not made.
pub fn read(path: &Path) -> Result<Vec<Change>> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let (mut changes, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((head, after)) = rest.split_first_chunk::<40>() {
        let number = |index: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[index * 8 + byte]));
        let (path, data) = (number(3) as usize, number(4) as usize);
        let Some((body, after)) = after.split_at_checked(path + data) else { break };
        let (path, data) = body.split_at(path);
        let name = |bytes: &[u8]| PathBuf::from(String::from_utf8_lossy(bytes).into_owned());
        let what = match head[0] {
            b'C' => What::Create,
            b'M' => What::MakeDir,
            b'T' => What::SetLength(number(2)),
            b'W' => What::Write(number(2), data.to_vec()),
            b'S' => What::SyncBegins(number(2)),
            b'E' => What::SyncEnds(number(2)),
            b'U' => What::Unlink,
            b'R' => What::Rename(name(data)),
            b'L' => What::Link(name(data)),
            other => bail!("a trace with a note of kind {other}"),
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(number(1));
        changes.push(Change { time, path: name(path), what });
        rest = after;
    }
    Ok(changes)
}
