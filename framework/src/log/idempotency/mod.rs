//! Idempotent appends: what names one, and the index that remembers what became of each.
//!
//! ```text
//! remember -> recent (memory) -> merger's thread -> a run in a generation (SQLite file beside the log)
//! find     -> recent, what is being merged, this generation, the one before it (each behind a filter)
//! ```
//!
//! A generation takes what is remembered for one window and is kept for one more, then its file goes as a whole: each key is
//! remembered for one window at least, and for two as long as others come: generations end when something is remembered. The index is not what makes an append exactly once: the engine
//! writes that down with the record, and tells the index.

mod blocks;
mod filter;
mod generations;
mod index;
mod payload;
mod runs;

pub(crate) use generations::{Generations, Value};
pub(crate) use index::Index;
pub use payload::{PayloadDigest, PayloadHash};

pub(crate) use super::lock::DirLock;

use sha2::{Digest, Sha256};

/// What to say of a key that belongs to another payload.
pub(crate) const REUSED: &str =
    "this idempotency key came with another payload before; a new task needs a new one";

/// What makes an append idempotent: of all with the same key, one is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Which request this is.
    pub key: IdempotencyKey,
    /// The payload's digest, by the log's [`payload_hash`](super::TaskLog::payload_hash). A request that comes again has the same.
    pub digest: PayloadDigest,
}

/// A request's name: the first half of a SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey(pub [u8; 16]);

impl IdempotencyKey {
    /// Of a task of a request that its sender gave this name. `place`: among the request's tasks.
    pub fn of_request(task_key: &[u8], name: &str, place: u64) -> Self {
        Self::of(&[task_key, b"request", name.as_bytes(), &place.to_le_bytes()])
    }

    /// Of an event, which its source and id name (CloudEvents 1.0.2, "Required Attributes").
    pub fn of_event(task_key: &[u8], source: &str, id: &str) -> Self {
        Self::of(&[task_key, b"event", source.as_bytes(), id.as_bytes()])
    }

    /// The name that these parts make together. The first is the task's key: the same words mean another request under another key.
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(half(hash))
    }
}

fn half(hash: Sha256) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

impl std::fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let of = |parts: &[&[u8]]| IdempotencyKey::of(parts);
        assert_eq!(of(&[b"a", b"b"]), of(&[b"a", b"b"]));
        assert_ne!(of(&[b"ab", b""]), of(&[b"a", b"b"]));
        assert_ne!(of(&[b"a"]), of(&[b"a", b""]));
    }
}
