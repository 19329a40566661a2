//! What may be on a disk after the power went: all that was synced, and of the rest whatever the disk happened to have written.
//!
//! The model. A write is durable when a sync of its file that began after it has ended. Until then each of its 512-byte sectors may
//! be there or not, in any combination, and one may be torn: its first bytes new, the others old. A length that was set may be
//! there or not. What happens to names is durable when their directory was synced; until then it is there up to some point, in
//! order, as file systems with a journal have it. A file whose name is not there is not there, whatever was synced of it.

use super::trace::{Change, What};
use crate::random::Random;
use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

const SECTOR: u64 = 512;

/// A disk, as a trace of changes leaves it: what is durable, and what is not yet.
#[derive(Debug, Default)]
pub struct Disk {
    files: Vec<File>,
    /// The names as the server sees them.
    names: BTreeMap<PathBuf, Node>,
    /// The names that are durable.
    durable: BTreeMap<PathBuf, Node>,
    /// What happened to names since, in order.
    pending: VecDeque<NameChange>,
    /// How many changes of each file, or of names, a sync that has begun covers.
    syncs: BTreeMap<u64, Covered>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

/// A name is given, or goes.
#[derive(Debug)]
struct NameChange {
    number: u64,
    path: PathBuf,
    node: Option<Node>,
}

#[derive(Debug)]
enum Covered {
    File { file: usize, until: u64 },
    Dir { path: PathBuf, until: u64 },
}

/// A file's durable bytes, and what was done to it since.
#[derive(Debug, Default)]
struct File {
    bytes: Vec<u8>,
    pending: VecDeque<(u64, Data)>,
}

#[derive(Debug)]
enum Data {
    Write(u64, Vec<u8>),
    Length(u64),
}

/// How much of what was not synced is there.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Luck {
    Nothing,
    Everything,
    /// Each write or not.
    Writes,
    /// Each sector or not.
    Sectors,
    /// So many of the writes, in order; the next one is torn.
    Prefix(f64),
}

impl Disk {
    /// A disk on which everything below `root` is durable, but for what the watch leaves out.
    pub fn of(root: &Path) -> Result<Self> {
        let mut disk = Self::default();
        let mut dirs = vec![root.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir)? {
                let path = entry?.path();
                let name = path.strip_prefix(root)?.to_owned();
                if path.is_dir() {
                    disk.durable.insert(name, Node::Dir);
                    dirs.push(path);
                } else if !["log", "toml"].iter().any(|end| path.extension() == Some(OsStr::new(end))) {
                    disk.files.push(File { bytes: fs::read(&path)?, pending: VecDeque::new() });
                    disk.durable.insert(name, Node::File(disk.files.len() - 1));
                }
            }
        }
        disk.names.clone_from(&disk.durable);
        Ok(disk)
    }

    /// Makes the next change of the trace, which has this number.
    pub fn apply(&mut self, number: u64, change: &Change) -> Result<()> {
        let path = &change.path;
        match &change.what {
            What::Create => {
                self.files.push(File::default());
                self.name(number, path, Some(Node::File(self.files.len() - 1)));
            }
            What::MakeDir => self.name(number, path, Some(Node::Dir)),
            What::SetLength(length) => self.data(path)?.pending.push_back((number, Data::Length(*length))),
            What::Write(offset, bytes) => {
                self.data(path)?.pending.push_back((number, Data::Write(*offset, bytes.clone())));
            }
            What::SyncBegins(sync) => {
                let covered = match self.names.get(path) {
                    Some(Node::File(file)) => Covered::File { file: *file, until: number },
                    // The directory that was watched has no name itself.
                    _ => Covered::Dir { path: path.clone(), until: number },
                };
                self.syncs.insert(*sync, covered);
            }
            What::SyncEnds(sync) => {
                match self.syncs.remove(sync).with_context(|| format!("sync {sync} never began"))? {
                    Covered::File { file, until } => self.files[file].settle(until),
                    Covered::Dir { path, until } => self.settle_names(&path, until),
                }
            }
            What::Unlink => self.name(number, path, None),
            What::Rename(to) => {
                let node = self.names.get(path).copied();
                self.name(number, to, node);
                self.name(number, path, None);
            }
            What::Link(to) => {
                let node = self.names.get(path).copied();
                self.name(number, to, node);
            }
        }
        Ok(())
    }

    fn name(&mut self, number: u64, path: &Path, node: Option<Node>) {
        give(&mut self.names, path, node);
        self.pending.push_back(NameChange { number, path: path.to_owned(), node });
    }

    fn data(&mut self, path: &Path) -> Result<&mut File> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(&mut self.files[*file]),
            other => anyhow::bail!("{} was written to, but it is {other:?}", path.display()),
        }
    }

    fn settle_names(&mut self, dir: &Path, until: u64) {
        let (settled, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change| change.number < until && change.path.parent() == Some(dir));
        for change in settled {
            give(&mut self.durable, &change.path, change.node);
        }
        self.pending = rest.into();
    }

    /// Writes what may be left, by the dice, below `root`.
    pub fn crash(&self, root: &Path, random: &mut Random) -> Result<()> {
        let mut names = self.durable.clone();
        let kept = match random.below(4) {
            0 => 0,
            1 => self.pending.len(),
            _ => random.below(self.pending.len() as u64 + 1) as usize,
        };
        for change in self.pending.iter().take(kept) {
            give(&mut names, &change.path, change.node);
        }
        for (path, node) in names {
            let to = root.join(&path);
            // A directory whose own name was lost has nothing in it.
            if !to.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match node {
                Node::Dir => fs::create_dir(&to),
                Node::File(file) => fs::write(&to, self.files[file].crash(random)),
            }
            .with_context(|| to.display().to_string())?;
        }
        Ok(())
    }
}

fn give(names: &mut BTreeMap<PathBuf, Node>, path: &Path, node: Option<Node>) {
    match node {
        Some(node) => names.insert(path.to_owned(), node),
        None => names.remove(path),
    };
}

impl File {
    /// What was done before `until` is durable.
    fn settle(&mut self, until: u64) {
        while let Some((_, data)) = self.pending.pop_front_if(|(number, _)| *number < until) {
            data.apply(&mut self.bytes);
        }
    }

    fn crash(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let luck = match random.below(5) {
            0 => Luck::Nothing,
            1 => Luck::Everything,
            2 => Luck::Writes,
            3 => Luck::Sectors,
            _ => Luck::Prefix(random.fraction()),
        };
        for (index, (_, data)) in self.pending.iter().enumerate() {
            let reached = |share: f64| (self.pending.len() as f64 * share) as usize;
            match luck {
                Luck::Nothing => break,
                Luck::Prefix(share) if index > reached(share) => break,
                Luck::Prefix(share) if index == reached(share) => data.tear(&mut bytes, random),
                Luck::Sectors => data.tear(&mut bytes, random),
                Luck::Writes if random.below(2) == 0 => {}
                Luck::Writes | Luck::Everything | Luck::Prefix(_) => data.apply(&mut bytes),
            }
        }
        bytes
    }
}

impl Data {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length as usize, 0),
            Self::Write(offset, data) => put(bytes, *offset, data),
        }
    }

    /// Some of its sectors, one of them perhaps in half.
    fn tear(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        let Self::Write(offset, data) = self else {
            if random.below(2) == 0 {
                self.apply(bytes);
            }
            return;
        };
        let (mut at, mut rest) = (*offset, &data[..]);
        while !rest.is_empty() {
            let length = (SECTOR - at % SECTOR).min(rest.len() as u64);
            let (sector, after) = rest.split_at(length as usize);
            match random.below(16) {
                0..8 => put(bytes, at, sector),
                8 => put(bytes, at, &sector[..random.below(length) as usize]),
                _ => {}
            }
            (at, rest) = (at + length, after);
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let offset = offset as usize;
    if bytes.len() < offset + data.len() {
        bytes.resize(offset + data.len(), 0);
    }
    bytes[offset..offset + data.len()].copy_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn disk(changes: &[(&str, What)]) -> Disk {
        let mut disk = Disk::default();
        for (number, (path, what)) in changes.iter().enumerate() {
            let change = Change { time: SystemTime::UNIX_EPOCH, path: path.into(), what: what.clone() };
            disk.apply(number as u64, &change).unwrap();
        }
        disk
    }

    /// What a file may hold after the power went; `None` if it may be gone.
    fn left(disk: &Disk, path: &str) -> std::collections::BTreeSet<Option<Vec<u8>>> {
        let look = |seed| {
            let root = tempfile::tempdir().unwrap();
            disk.crash(root.path(), &mut Random::new(seed)).unwrap();
            fs::read(root.path().join(path)).ok()
        };
        (0..300).map(look).collect()
    }

    fn write(offset: u64, text: &str) -> What {
        What::Write(offset, text.into())
    }

    #[test]
    fn what_was_synced_is_there_and_what_was_not_may_be() {
        let made = [("a", What::Create), ("", What::SyncBegins(1)), ("", What::SyncEnds(1))];
        let synced = [("a", write(0, "old")), ("a", What::SyncBegins(2)), ("a", What::SyncEnds(2))];
        let pending = [("a", write(1, "ew")), ("a", What::SetLength(1))];
        let found = left(&disk(&[&made[..], &synced[..], &pending[..]].concat()), "a");
        for possible in ["old", "oew", "o"] {
            assert!(found.contains(&Some(possible.into())), "{possible} in {found:?}");
        }
        assert!(found.iter().all(|bytes| bytes.as_ref().is_some_and(|bytes| bytes.starts_with(b"o"))));
    }

    #[test]
    fn a_sync_covers_only_what_was_written_before_it_began_and_only_once_it_has_ended() {
        let begun = [
            ("a", What::Create),
            ("", What::SyncBegins(1)),
            ("", What::SyncEnds(1)),
            ("a", write(0, "x")),
            ("a", What::SyncBegins(2)),
            ("a", write(1, "y")),
        ];
        assert!(left(&disk(&begun), "a").contains(&Some(Vec::new())));
        let ended = [&begun[..], &[("a", What::SyncEnds(2))]].concat();
        let found = left(&disk(&ended), "a");
        assert!(found.contains(&Some("x".into())) && found.contains(&Some("xy".into())), "{found:?}");
        assert!(found.iter().all(|bytes| bytes.as_ref().is_some_and(|bytes| bytes.starts_with(b"x"))));
    }

    #[test]
    fn a_synced_file_is_gone_with_its_name_until_its_directory_is_synced() {
        let made =
            [("a", What::Create), ("a", write(0, "x")), ("a", What::SyncBegins(1)), ("a", What::SyncEnds(1))];
        assert_eq!(left(&disk(&made), "a"), [None, Some("x".into())].into());
        let named = [&made[..], &[("", What::SyncBegins(2)), ("", What::SyncEnds(2))]].concat();
        assert_eq!(left(&disk(&named), "a"), [Some("x".into())].into());
        let renamed = [&named[..], &[("a", What::Rename("b".into()))]].concat();
        assert_eq!(left(&disk(&renamed), "b"), [None, Some("x".into())].into());
    }

    #[test]
    fn a_write_may_be_there_in_sectors_and_a_sector_in_part() {
        let long = "n".repeat(3 * SECTOR as usize);
        let made =
            [("a", What::Create), ("", What::SyncBegins(1)), ("", What::SyncEnds(1)), ("a", write(0, &long))];
        let found = left(&disk(&made), "a");
        let holes = |bytes: &Option<Vec<u8>>| {
            bytes.as_ref().is_some_and(|bytes| bytes.len() > SECTOR as usize && bytes[0] == 0)
        };
        assert!(found.iter().any(holes));
        let torn =
            |bytes: &Option<Vec<u8>>| bytes.as_ref().is_some_and(|bytes| bytes.len() % SECTOR as usize != 0);
        assert!(found.iter().any(torn));
    }
}
