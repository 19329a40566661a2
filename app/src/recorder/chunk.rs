//! One chunk as one object: a header, then the payload.
//!
//! The header is a line of JSON, padded with spaces to a multiple of [`BLOCK`] bytes. It stands in the same object as the payload, so
//! that both appear at once and one sync makes both durable; and its length is in the object's name (where it is
//! not one block), so that a listing knows the payload's size without opening anything.

use bytes::Bytes;
use humantime_serde::re::humantime;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// Headers are multiples of this.
const BLOCK: usize = 512;

/// What the header has beside `type` and `content_type`, at most.
const FIXED: usize = 300;

/// What is known of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunk {
    /// The task's partition.
    pub(crate) partition: u32,
    /// The task's offset.
    pub(crate) offset: u64,
    /// The payload's type name.
    #[serde(rename = "type")]
    pub(crate) type_name: Option<String>,
    /// The payload's media type.
    pub(crate) content_type: Option<String>,
    /// The payload's bytes.
    pub(crate) size: u64,
    /// The payload's digest, in hexadecimal digits.
    pub(crate) sha256: String,
    /// When it was written, RFC 3339.
    pub(crate) stored_at: String,
    /// The identity of the topic that the task came from.
    pub(crate) topic_id: String,
    /// The assignment under which it was written.
    pub(crate) epoch: u64,
}

/// Where a chunk is among those of its key, and how long its header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ChunkName {
    pub(super) offset: u64,
    pub(super) partition: u32,
    pub(super) blocks: usize,
}

/// The time as it stands in a header.
pub(super) fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

impl Chunk {
    /// The object's name. It depends on the task alone, so that a redelivery finds what was written before.
    pub(super) fn name(&self) -> ChunkName {
        // As JSON a character takes up to six bytes.
        let json_len = |text: &Option<String>| {
            text.as_ref()
                .map_or(0, |text| serde_json::to_string(text).map_or(6 * text.len() + 2, |json| json.len()))
        };
        let texts =
            json_len(&self.type_name) + json_len(&self.content_type) + json_len(&Some(self.topic_id.clone()));
        let blocks = (FIXED + texts).div_ceil(BLOCK);
        ChunkName { offset: self.offset, partition: self.partition, blocks }
    }

    /// The header.
    pub(super) fn header(&self) -> Result<Bytes, serde_json::Error> {
        let mut header = serde_json::to_vec(self)?;
        let length = self.name().header_len() as usize;
        debug_assert!(header.len() < length);
        header.resize(length - 1, b' ');
        header.push(b'\n');
        Ok(header.into())
    }

    /// Reads a header.
    pub(super) fn parse(header: &[u8]) -> Option<Self> {
        serde_json::from_slice(header).ok()
    }
}

impl ChunkName {
    /// The name of a chunk whose header is one block, as nearly all are.
    pub(super) fn usual(partition: u32, offset: u64) -> Self {
        Self { offset, partition, blocks: 1 }
    }

    /// The header's bytes.
    pub(super) fn header_len(&self) -> u64 {
        (self.blocks * BLOCK) as u64
    }

    /// Reads a name; `None` for what is not a chunk.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (place, blocks) = match name.split_once('.') {
            Some((place, blocks)) => {
                (place, blocks.parse().ok().filter(|blocks| (2..=4096).contains(blocks))?)
            }
            None => (name, 1),
        };
        let (partition, offset) = place.split_once('-')?;
        let parsed = Self { partition: partition.parse().ok()?, offset: offset.parse().ok()?, blocks };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl std::fmt::Display for ChunkName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{:020}", self.partition, self.offset)?;
        if self.blocks > 1 { write!(f, ".{}", self.blocks) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_comes_back_and_has_the_length_its_name_says(
            type_name in prop::option::of("\\PC{0,200}|[\\x00-\\x1f]{0,900}"),
            content_type in prop::option::of("\\PC{0,900}"),
            topic_id in "[A-Za-z0-9_-]{1,40}",
            partition: u32, offset: u64, size: u64, epoch: u64,
        ) {
            let stored_at = timestamp(SystemTime::UNIX_EPOCH);
            let chunk = Chunk { partition, offset, type_name, content_type, size, sha256: "f".repeat(64), stored_at, topic_id, epoch };
            let header = chunk.header().unwrap();
            prop_assert_eq!(header.len() as u64, chunk.name().header_len());
            prop_assert_eq!(ChunkName::parse(&chunk.name().to_string()), Some(chunk.name()));
            prop_assert_eq!(Chunk::parse(&header), Some(chunk));
        }
    }

    #[test]
    fn what_is_no_chunk_has_no_name() {
        for name in [
            "",
            "x",
            "1-2",
            "1-00000000000000000002.1",
            "1-00000000000000000002.02",
            "1-00000000000000000002#1",
            "-1-00000000000000000002",
            "1-+0000000000000000002",
        ] {
            assert_eq!(ChunkName::parse(name), None, "{name}");
        }
        assert_eq!(ChunkName::parse("1-00000000000000000002"), Some(ChunkName::usual(1, 2)));
    }
}
