//! Keeps the WAL's file longer than what stands in it.
//!
//! The sync of a write that makes a file longer has to note the new length too, and takes half as long again. So zeros are put
//! there before SQLite comes by. They are appended, so they lie behind all that SQLite has written; it takes them for no frames,
//! since these carry a salt and a checksum, and writes over them.

use super::{checkpoint::LIMIT, schema};
use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// How many bytes are there at least before the writer comes by.
const AHEAD: u64 = 4 << 20;
/// Bytes appended at a time: the writer's sync may have to wait for so many.
const STEP: usize = 512 << 10;

static ZEROS: [u8; STEP] = [0; STEP];

/// The WAL's file, to be made longer.
pub(super) struct Room {
    file: Option<File>,
}

impl Room {
    /// The WAL must be there: a connection has read or written.
    pub(super) fn open(dir: &Path) -> Self {
        let mut path = OsString::from(schema::database(dir));
        path.push("-wal");
        let file = OpenOptions::new().append(true).open(&path);
        if let Err(error) = &file {
            tracing::debug!(%error, "the embedded log's WAL will grow with each write");
        }
        Self { file: file.ok() }
    }

    /// The writer has come to about this frame.
    pub(super) fn keep_ahead_of(&mut self, frames: u64) {
        let Some(file) = &mut self.file else { return };
        let wanted = (frames * schema::PAGE_SIZE + AHEAD).min(LIMIT * schema::PAGE_SIZE);
        if let Err(error) = extend(file, wanted) {
            // Without room on the disk SQLite will notice too, and say so.
            tracing::debug!(%error, "the embedded log's WAL could not be made longer ahead of its use");
            self.file = None;
        }
    }
}

fn extend(file: &mut File, wanted: u64) -> io::Result<()> {
    while file.metadata()?.len() < wanted {
        file.write_all(&ZEROS)?;
        file.sync_data()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_put_behind_what_stands_there_up_to_the_wal_s_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.db-wal");
        std::fs::write(&path, [7; 100_000]).unwrap();
        let mut room = Room::open(dir.path());
        room.keep_ahead_of(0);
        let file = std::fs::read(&path).unwrap();
        assert!((AHEAD..AHEAD + STEP as u64 + 100_000).contains(&(file.len() as u64)));
        assert!(
            file[..100_000].iter().all(|byte| *byte == 7) && file[100_000..].iter().all(|byte| *byte == 0)
        );
        room.keep_ahead_of(64);
        let longer = std::fs::metadata(&path).unwrap().len();
        assert!(longer >= 64 * schema::PAGE_SIZE + AHEAD, "{longer}");
        File::options().write(true).open(&path).unwrap().set_len(LIMIT * schema::PAGE_SIZE).unwrap();
        room.keep_ahead_of(LIMIT * 2);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), LIMIT * schema::PAGE_SIZE);
    }
}
