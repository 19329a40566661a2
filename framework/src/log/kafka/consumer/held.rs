//! Records that stay in the buffer they were fetched in.
//!
//! A held record keeps its whole fetch alive. Large ones are always held: the fetch is little more than the record. Smaller ones are
//! held only on their way to an actor that keeps up, and only up to a number of bytes; else they are copied, so that one slow
//! partition's last records cannot pin a fetch each.

use super::super::native::{Fetched, NativeConsumer};
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Records of at least this size are always held.
const ALWAYS: usize = 64 << 10;
/// Records up to this size are always copied.
const NEVER: usize = 4 << 10;

/// Decides and counts.
pub(super) struct Holder {
    native: Arc<NativeConsumer>,
    held: Arc<AtomicU64>,
    limit: u64,
}

impl Holder {
    /// Holds at most `limit` bytes of records below [`ALWAYS`].
    pub(super) fn new(native: Arc<NativeConsumer>, limit: u64) -> Self {
        Self { native, held: Arc::default(), limit }
    }

    /// Whether a record of this many bytes is to be held.
    pub(super) fn wants(&self, bytes: usize, keeps_up: bool) -> bool {
        bytes >= ALWAYS || (bytes > NEVER && keeps_up && self.held.load(Ordering::Relaxed) < self.limit)
    }

    /// The record's value, without a copy.
    pub(super) fn hold(&self, record: Fetched) -> Bytes {
        let bytes = record.value().len() as u64;
        let count = if bytes < ALWAYS as u64 { bytes } else { 0 };
        self.held.fetch_add(count, Ordering::Relaxed);
        Bytes::from_owner(Held { record, count, held: self.held.clone(), _native: self.native.clone() })
    }
}

/// A record with a share of the consumer it came from, which must outlive it. Fields drop in order: the record first.
struct Held {
    record: Fetched,
    count: u64,
    held: Arc<AtomicU64>,
    _native: Arc<NativeConsumer>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.record.value()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.held.fetch_sub(self.count, Ordering::Relaxed);
    }
}
