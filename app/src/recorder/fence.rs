//! Who may write a partition's chunks: the owner with the greatest epoch that has claimed it.
//!
//! Below [`FENCES`] each (topic id, partition) has a directory; a claim is an empty file in it, named by the claimant's epoch. The
//! greatest name is the fence, and it never falls: a name goes only when a greater one is durable. So two claimants need no lock,
//! whichever comes first, and what has no content cannot be torn. The fence compares epochs alone: redeliveries, and redriven tasks,
//! which come late, are told by their chunks' names.
//!
//! Between a look and the write after it a later owner may claim the partition. What the former owner then writes is what its
//! successor writes too: a chunk is named by its task's place, of the same log, and created, never overwritten.

use super::{chunk::Chunk, durable, key_path};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// The directory of all fences. No key's encoding has a dot, so it is no key's.
pub(super) const FENCES: &str = ".fences";

/// The fence of one partition, as one writer meets it.
#[derive(Debug)]
pub(super) struct Fence {
    root: PathBuf,
    place: PathBuf,
    epoch: u64,
    sync: bool,
}

/// The claim that a writer is refused by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LaterClaim {
    /// Greater than the writer's.
    pub(super) epoch: u64,
    /// The file that says so.
    pub(super) file: PathBuf,
}

impl Fence {
    /// For the writer of a chunk, in the recordings at `root`.
    pub(super) fn of(chunk: &Chunk, root: &Path, sync: bool) -> Self {
        let place = root
            .join(FENCES)
            .join(key_path::encode(chunk.topic_id.as_bytes()))
            .join(chunk.partition.to_string());
        Self { root: root.to_owned(), place, epoch: chunk.epoch, sync }
    }

    /// Claims the partition, durably, unless a greater epoch has: then its claim is the answer. A writer that has `claimed` before
    /// only looks.
    pub(super) fn hold(&self, claimed: bool) -> io::Result<Option<LaterClaim>> {
        let greatest = self.claims()?.into_iter().max();
        match greatest {
            Some(epoch) if epoch > self.epoch => Ok(Some(self.later(epoch))),
            Some(epoch) if epoch == self.epoch && claimed => Ok(None),
            _ => self.claim(),
        }
    }

    fn claim(&self) -> io::Result<Option<LaterClaim>> {
        fs::create_dir_all(&self.place)?;
        File::options().write(true).create(true).truncate(false).open(self.file(self.epoch))?;
        if self.sync {
            durable::sync_between(&self.place, &self.root)?;
        }
        // Of two that claim at once, at least the lesser sees the other, here or when it looks before its next write.
        let claims = self.claims()?;
        if let Some(&epoch) = claims.iter().filter(|&&epoch| epoch > self.epoch).max() {
            return Ok(Some(self.later(epoch)));
        }
        for epoch in claims.into_iter().filter(|&epoch| epoch < self.epoch) {
            // One that stays, or comes back when the power goes, says nothing beside a greater one.
            let _ = fs::remove_file(self.file(epoch));
        }
        Ok(None)
    }

    /// The epochs that have claimed. Names of another form are no claims.
    fn claims(&self) -> io::Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut claims = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let epoch = name.to_str().and_then(|name| Some((name, name.parse::<u64>().ok()?)));
            claims.extend(epoch.filter(|(name, epoch)| epoch.to_string() == *name).map(|(_, epoch)| epoch));
        }
        Ok(claims)
    }

    fn later(&self, epoch: u64) -> LaterClaim {
        LaterClaim { epoch, file: self.file(epoch) }
    }

    fn file(&self, epoch: u64) -> PathBuf {
        self.place.join(epoch.to_string())
    }
}
