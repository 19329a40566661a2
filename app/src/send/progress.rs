//! How far lines have been sent: a file that names the input, so that it is not taken for another's.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What is noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// The inputs, in their order.
    files: Vec<PathBuf>,
    /// Of which all before are done.
    file: usize,
    /// Bytes of it that are.
    offset: u64,
}

/// The file, if there is to be one.
#[derive(Debug)]
pub(super) struct Progress {
    path: Option<PathBuf>,
    note: Note,
}

impl Progress {
    /// Reads how far it had come. An error says that the file is another run's.
    pub(super) fn open(path: Option<&Path>, files: &[PathBuf]) -> Result<Self> {
        let fresh = Note { files: files.to_vec(), file: 0, offset: 0 };
        let Some(path) = path else { return Ok(Self { path: None, note: fresh }) };
        let note = match fs::read(path) {
            Ok(text) => {
                let note: Note = serde_json::from_slice(&text)
                    .with_context(|| format!("{} is no note of how far lines were sent", path.display()))?;
                ensure!(
                    note.files == files,
                    "{} is about other files: remove it to begin from the start",
                    path.display()
                );
                note
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => fresh,
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        Ok(Self { path: Some(path.to_owned()), note })
    }

    /// Where to begin in this file; `None` where it is done.
    pub(super) fn start(&self, file: usize) -> Option<u64> {
        match file.cmp(&self.note.file) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => Some(self.note.offset),
            std::cmp::Ordering::Greater => Some(0),
        }
    }

    /// Notes that everything before this is settled.
    pub(super) fn reached(&mut self, file: usize, offset: u64) -> Result<()> {
        (self.note.file, self.note.offset) = (file, offset);
        let Some(path) = &self.path else { return Ok(()) };
        // Whole, or not at all.
        let next = path.with_extension("next");
        let write = fs::write(&next, serde_json::to_vec(&self.note)?).and_then(|()| fs::rename(&next, path));
        write.with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_where_it_was_and_refuses_anothers_note() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note.json");
        let files = ["a".into(), "b".into()];
        let mut progress = Progress::open(Some(&path), &files).unwrap();
        assert_eq!((progress.start(0), progress.start(1)), (Some(0), Some(0)));
        progress.reached(1, 17).unwrap();
        let again = Progress::open(Some(&path), &files).unwrap();
        assert_eq!((again.start(0), again.start(1)), (None, Some(17)));
        assert!(Progress::open(Some(&path), &files[..1]).unwrap_err().to_string().contains("other files"));
        fs::write(&path, "nonsense").unwrap();
        assert!(Progress::open(Some(&path), &files).is_err());
    }
}
