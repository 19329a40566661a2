//! Records on their way from the consumer's thread to one partition's actor, many at a time.

use bytes::{Bytes, BytesMut};
use partita_core::{Epoch, Offset};
use std::ops::Range;

/// Consecutive records of one partition under one epoch.
///
/// Small records are copied into one buffer that the whole batch shares, so a record costs no allocation; a large one
/// keeps the buffer it was fetched in.
#[derive(Debug, Default)]
pub struct Batch {
    epoch: Epoch,
    data: Bytes,
    filling: BytesMut,
    entries: Vec<Entry>,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    offset: Offset,
    timestamp_ms: i64,
    key: Range<u32>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Shared(Range<u32>),
    Own(Bytes),
}

/// One record of a batch.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its offset.
    pub offset: Offset,
    /// When the log took it, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Bytes,
    /// The encoded envelope.
    pub value: Bytes,
}

impl Batch {
    /// An empty batch of `epoch`.
    pub fn new(epoch: Epoch) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// An empty batch of `epoch` that copies into `buffer`.
    pub(crate) fn copying_into(epoch: Epoch, buffer: BytesMut) -> Self {
        Self { epoch, filling: buffer, ..Self::default() }
    }

    /// Whether so many bytes can be copied without allocating.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.filling.capacity() - self.filling.len() >= bytes
    }

    /// The assignment these records were delivered under.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no records.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The bytes of all keys and values.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a record by copying it.
    pub fn push_copied(&mut self, offset: Offset, timestamp_ms: i64, key: &[u8], value: &[u8]) {
        let key = self.copy(key);
        let value_range = self.copy(value);
        self.bytes += u64::from(key.end - key.start) + value.len() as u64;
        self.entries.push(Entry { offset, timestamp_ms, key, value: Value::Shared(value_range) });
    }

    /// Adds a record whose value stays in the buffer it is in.
    pub fn push_owned(&mut self, offset: Offset, timestamp_ms: i64, key: &[u8], value: Bytes) {
        let key = self.copy(key);
        self.bytes += u64::from(key.end - key.start) + value.len() as u64;
        self.entries.push(Entry { offset, timestamp_ms, key, value: Value::Own(value) });
    }

    /// Ends the filling. To be called once, before `record`. What is left of the buffer may be used for another batch.
    pub fn seal(&mut self) -> BytesMut {
        self.data = self.filling.split().freeze();
        std::mem::take(&mut self.filling)
    }

    /// The record at `index`, with its bytes and key length counted as `weight` says.
    pub fn record(&self, index: usize) -> Option<Record> {
        let entry = self.entries.get(index)?;
        let shared = |range: &Range<u32>| self.data.slice(range.start as usize..range.end as usize);
        let value = match &entry.value {
            Value::Shared(range) => shared(range),
            Value::Own(bytes) => bytes.clone(),
        };
        Some(Record {
            offset: entry.offset,
            timestamp_ms: entry.timestamp_ms,
            key: shared(&entry.key),
            value,
        })
    }

    /// Takes the record at `index` out, so that a large value is freed when its task ends and not when the batch does.
    pub fn take(&mut self, index: usize) -> Option<Record> {
        let record = self.record(index)?;
        if let Some(Entry { value: Value::Own(bytes), .. }) = self.entries.get_mut(index) {
            *bytes = Bytes::new();
        }
        Some(record)
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.filling.len() as u32;
        self.filling.extend_from_slice(bytes);
        start..self.filling.len() as u32
    }
}

impl Record {
    /// The bytes it counts for.
    pub fn weight(&self) -> u64 {
        (self.key.len() + self.value.len()) as u64
    }
}
