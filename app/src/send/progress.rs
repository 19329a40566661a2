//! How far lines have been sent: a note that names the input and what was in it so far, so that it is not taken for another's.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The bytes before it.
    pub(super) offset: u64,
    /// Their SHA-256, in hexadecimal digits; empty at the start.
    pub(super) sha256: String,
}

/// What became of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Totals {
    pub(super) accepted: u64,
    pub(super) rejected: u64,
}

/// What is noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// The inputs, in their order.
    files: Vec<PathBuf>,
    /// Of which all before are done.
    file: usize,
    /// Before which this one is.
    mark: Mark,
    /// In this run and those before it.
    totals: Totals,
}

/// The note, if there is to be one.
#[derive(Debug)]
pub(super) struct Progress {
    path: Option<PathBuf>,
    note: Note,
}

impl Progress {
    /// Reads how far it had come. An error says that the note is another run's.
    pub(super) fn open(path: Option<&Path>, files: &[PathBuf]) -> Result<Self> {
        let fresh = Note { files: files.to_vec(), file: 0, mark: Mark::default(), totals: Totals::default() };
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
    pub(super) fn start(&self, file: usize) -> Option<Mark> {
        match file.cmp(&self.note.file) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => Some(self.note.mark.clone()),
            std::cmp::Ordering::Greater => Some(Mark::default()),
        }
    }

    /// What became of the lines before.
    pub(super) fn totals(&self) -> Totals {
        self.note.totals
    }

    /// Notes that everything before this is settled.
    pub(super) fn reached(&mut self, file: usize, mark: Mark, totals: Totals) -> Result<()> {
        (self.note.file, self.note.mark, self.note.totals) = (file, mark, totals);
        let Some(path) = &self.path else { return Ok(()) };
        // Whole, or not at all.
        let mut next = path.clone().into_os_string();
        next.push(".next");
        let write = fs::write(&next, serde_json::to_vec(&self.note)?).and_then(|()| fs::rename(&next, path));
        write.with_context(|| path.display().to_string())
    }

    /// There is nothing to go on with: the next run begins from the start.
    pub(super) fn finish(self) -> Result<()> {
        match self.path {
            Some(path) => fs::remove_file(&path).with_context(|| path.display().to_string()),
            None => Ok(()),
        }
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
        assert_eq!((progress.start(0), progress.start(1)), (Some(Mark::default()), Some(Mark::default())));
        let (mark, totals) = (Mark { offset: 17, sha256: "ab".into() }, Totals { accepted: 3, rejected: 1 });
        progress.reached(1, mark.clone(), totals).unwrap();
        let again = Progress::open(Some(&path), &files).unwrap();
        assert_eq!((again.start(0), again.start(1), again.totals()), (None, Some(mark), totals));
        assert!(Progress::open(Some(&path), &files[..1]).unwrap_err().to_string().contains("other files"));
        again.finish().unwrap();
        assert_eq!(Progress::open(Some(&path), &files).unwrap().start(0), Some(Mark::default()));
        fs::write(&path, "nonsense").unwrap();
        assert!(Progress::open(Some(&path), &files).is_err());
    }
}
