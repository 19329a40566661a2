//! What a worker did, written down by its handler as it did it: each start and each end of each attempt, one line each.
//!
//! A line is one `write` to a file opened for appending: a process that is killed has written all of it or nothing. Times are the
//! machine's monotonic clock's, so that the journals of several processes can be merged.

use crate::{
    clock,
    history::{End, Position, at},
};
use anyhow::{Context, Result};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// An attempt began.
    Start,
    /// It ended the task.
    End,
    /// It failed; another will follow.
    Failed,
    /// It was given up, or panicked.
    Dropped,
}

impl Event {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Start, "start"), (Self::End, "end"), (Self::Failed, "failed"), (Self::Dropped, "dropped")];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(event, _)| *event == self).map_or("", |(_, name)| name)
    }
}

/// Which attempt of which task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The task's key; the tests' keys have no spaces.
    pub key: String,
    /// The SHA-256 of its payload; "-" at its start.
    pub digest: String,
    /// Where it was read.
    pub partition: u32,
    /// Where it was read.
    pub offset: u64,
    /// Under which assignment.
    pub epoch: u64,
    /// From 1.
    pub attempt: u32,
}

impl Entry {
    /// The record's place.
    pub fn position(&self) -> Position {
        at(self.partition, self.offset)
    }
}

/// The writing half.
#[derive(Debug, Clone)]
pub struct Journal(Arc<File>);

impl Journal {
    /// Goes on with a file, or begins it.
    pub fn append_to(path: &Path) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(|file| Self(Arc::new(file)))
    }

    /// Writes one line.
    pub fn write(&self, event: Event, entry: &Entry) -> io::Result<()> {
        let time = clock::monotonic().as_nanos() as u64;
        let Entry { key, digest, partition, offset, epoch, attempt } = entry;
        let line = format!("{time} {} {partition} {offset} {epoch} {attempt} {digest} {key}\n", event.name());
        (&*self.0).write_all(line.as_bytes())
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// By the machine's monotonic clock.
    pub time: Duration,
    /// What happened.
    pub event: Event,
    /// To which attempt.
    pub entry: Entry,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(' ').collect();
        let [time, event, partition, offset, epoch, attempt, digest, key] = fields[..] else { return None };
        let event = Event::ALL.iter().find(|(_, name)| *name == event)?.0;
        let entry = Entry {
            key: key.into(),
            digest: digest.into(),
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
            epoch: epoch.parse().ok()?,
            attempt: attempt.parse().ok()?,
        };
        Some(Self { time: Duration::from_nanos(time.parse().ok()?), event, entry })
    }

    /// The end that it is, if it is one.
    pub fn end(&self) -> Option<End> {
        let entry = &self.entry;
        (self.event == Event::End).then(|| End {
            key: entry.key.clone(),
            digest: entry.digest.clone(),
            position: entry.position(),
        })
    }
}

/// All lines of all journals (`*.journal`) of a directory, in the order in which they were written.
pub fn read(dir: &Path) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "journal") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        // The last line may be on its way.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        for line in whole.lines() {
            lines.push(Line::parse(line).with_context(|| format!("{}: {line:?}", path.display()))?);
        }
    }
    lines.sort_by_key(|line| line.time);
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_half_a_line_is_left_for_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one.journal");
        let journal = Journal::append_to(&path).unwrap();
        let entry =
            Entry { key: "k".into(), digest: "d".into(), partition: 3, offset: 9, epoch: 7, attempt: 1 };
        journal.write(Event::Start, &entry).unwrap();
        journal.write(Event::End, &entry).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"17 sta").unwrap();
        let lines = read(dir.path()).unwrap();
        assert_eq!(lines.iter().map(|line| line.event).collect::<Vec<_>>(), [Event::Start, Event::End]);
        assert!(lines.iter().all(|line| line.entry == entry));
        assert_eq!(lines[1].end().unwrap().position, at(3, 9));
    }
}
