//! A task as a record, and back: protobuf `partita.v1.Envelope`, bounded in both directions.
//!
//! The payload is the envelope's last field. A writer that leaves room in front of the payload ([`PayloadBuffer`]) gets a record
//! without a second copy of it; a reader gets the payload as a slice of the record.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use partita_proto::v1::{Compression, Envelope};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use std::ops::Range;

/// The field number of `Envelope.payload`.
const PAYLOAD_TAG: u32 = 15;

/// Why a record is not a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The record has no key, so it belongs to nobody's order. An empty value alone would pass for an empty envelope.
    #[error("the record has no key")]
    NoKey,
    /// The record is not an envelope.
    #[error("the record is not a partita.v1.Envelope: {0}")]
    NotAnEnvelope(String),
    /// The payload says it is larger than this process takes.
    #[error("the payload has {size} bytes, above the limit of {limit} (limits.max_task)")]
    TooLarge {
        /// What the envelope says.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The payload is compressed in a way this version does not know.
    #[error("unknown compression {0}")]
    UnknownCompression(i32),
    /// The payload is not what the envelope says it is.
    #[error("the payload does not decompress to its stated {size} bytes: {detail}")]
    Corrupt {
        /// What the envelope says.
        size: u64,
        /// What was found.
        detail: String,
    },
}

/// A buffer for a payload with room in front of it for the rest of its envelope.
#[derive(Debug)]
pub struct PayloadBuffer {
    buffer: BytesMut,
    headroom: usize,
}

impl PayloadBuffer {
    /// Room for `capacity` bytes of payload behind an envelope like `head` (any `payload_size`, any `compression`).
    pub fn new(head: &Envelope, capacity: usize) -> Self {
        let headroom = headroom(head);
        let mut buffer = BytesMut::with_capacity(headroom + capacity);
        buffer.put_bytes(0, headroom);
        Self { buffer, headroom }
    }

    /// The bytes that [`new`](Self::new) allocates, to be reserved before.
    pub fn allocation(head: &Envelope, capacity: usize) -> usize {
        headroom(head) + capacity
    }

    /// How many more bytes fit without allocating.
    pub fn room(&self) -> usize {
        self.buffer.capacity() - self.buffer.len()
    }

    /// Moves the payload into an allocation with room for exactly `capacity` bytes of it.
    pub fn move_to(&mut self, capacity: usize) {
        let mut buffer = BytesMut::with_capacity(self.headroom + capacity);
        buffer.extend_from_slice(&self.buffer);
        self.buffer = buffer;
    }

    /// Adds to the payload. Grows beyond the capacity where it must.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The payload so far.
    pub fn payload(&self) -> &[u8] {
        &self.buffer[self.headroom..]
    }

    /// Keeps only these bytes of the payload, behind the room for an envelope like `head`. Where there is more room in front of them they stay
    /// where they are. Allocates only where the room is larger than what is left out.
    pub fn keep(&mut self, range: Range<usize>, head: &Envelope) {
        let (start, len, headroom) = (self.headroom + range.start, range.len(), headroom(head));
        if start >= headroom {
            self.buffer.truncate(start + len);
            self.headroom = start;
            return;
        }
        self.buffer.resize(self.buffer.len().max(headroom + len), 0);
        self.buffer.copy_within(start..start + len, headroom);
        self.buffer.truncate(headroom + len);
        self.headroom = headroom;
    }

    /// The payload alone.
    pub fn into_payload(mut self) -> Bytes {
        self.buffer.advance(self.headroom);
        self.buffer.freeze()
    }

    /// Changes the payload where it is; `change` says how much of it is left.
    pub fn change<E>(&mut self, change: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<(), E> {
        let len = change(&mut self.buffer[self.headroom..])?;
        self.buffer.truncate(self.headroom + len);
        Ok(())
    }

    /// Writes the head in front of the payload. `head.payload` must be empty, and `head` no longer than the one that the
    /// buffer was made for.
    pub fn seal(mut self, head: &Envelope) -> Bytes {
        let payload_len = self.buffer.len() - self.headroom;
        let len = record_len(head, payload_len);
        match (self.headroom + payload_len).checked_sub(len) {
            Some(start) => {
                encode_prefix(head, payload_len, &mut &mut self.buffer[start..self.headroom]);
                self.buffer.advance(start);
                self.buffer.freeze()
            }
            None => {
                let mut record = Vec::with_capacity(len);
                encode_prefix(head, payload_len, &mut record);
                record.extend_from_slice(self.payload());
                record.into()
            }
        }
    }
}

fn headroom(head: &Envelope) -> usize {
    const VARINT: usize = 10;
    // The sizes and the compression may still change: leave room for the longest of each.
    head.encoded_len() + 3 * (1 + VARINT)
}

fn encode_prefix(head: &Envelope, payload_len: usize, out: &mut impl BufMut) {
    debug_assert!(head.payload.is_empty());
    head.encode_raw(out);
    if payload_len > 0 {
        encode_key(PAYLOAD_TAG, WireType::LengthDelimited, out);
        encode_varint(payload_len as u64, out);
    }
}

/// The size of the record that `head` and a stored payload of `payload_len` bytes make.
pub fn record_len(head: &Envelope, payload_len: usize) -> usize {
    let field = if payload_len > 0 { 1 + encoded_len_varint(payload_len as u64) } else { 0 };
    head.encoded_len() + field + payload_len
}

/// Reads a record's envelope and refuses a payload above `max_task` bytes. The payload stays as it is stored.
pub fn decode(value: Bytes, max_task: u64) -> Result<Envelope, EnvelopeError> {
    let envelope =
        Envelope::decode(value).map_err(|error| EnvelopeError::NotAnEnvelope(error.to_string()))?;
    let stored = envelope.payload.len() as u64;
    let size = envelope.payload_size;
    if size > max_task {
        return Err(EnvelopeError::TooLarge { size, limit: max_task });
    }
    match Compression::try_from(envelope.compression) {
        Ok(Compression::None) if stored != size => {
            Err(EnvelopeError::Corrupt { size, detail: format!("{stored} bytes are stored") })
        }
        Ok(_) => Ok(envelope),
        Err(_) => Err(EnvelopeError::UnknownCompression(envelope.compression)),
    }
}

/// How many bytes `payload` will allocate for this envelope: nothing for a payload that is stored as it is.
pub fn decompressed_len(envelope: &Envelope) -> u64 {
    if envelope.compression() == Compression::Zstd { envelope.payload_size } else { 0 }
}

/// Takes the payload out of an envelope that `decode` returned, decompressed. Allocates exactly its stated size, once.
pub fn payload(envelope: &mut Envelope) -> Result<Bytes, EnvelopeError> {
    let stored = std::mem::take(&mut envelope.payload);
    if envelope.compression() == Compression::None {
        return Ok(stored);
    }
    let size = envelope.payload_size;
    let corrupt = |detail: String| EnvelopeError::Corrupt { size, detail };
    let mut out = vec![0; size as usize];
    // `decompress` takes several frames, and fails rather than write past the buffer or stop inside a frame.
    let written = zstd::bulk::decompress_to_buffer(&stored, &mut out).map_err(|e| corrupt(e.to_string()))?;
    if written as u64 != size {
        return Err(corrupt(format!("{written} bytes came out")));
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(id: &str) -> Envelope {
        Envelope {
            id: id.into(),
            content_type: Some("text/plain".into()),
            created_at_ms: 7,
            ..Default::default()
        }
    }

    proptest! {
        #[test]
        fn a_sealed_payload_comes_back_as_it_was(id in ".{0,40}", body in prop::collection::vec(any::<u8>(), 0..5000)) {
            let mut head = head(&id);
            let mut buffer = PayloadBuffer::new(&head, body.len());
            buffer.extend(&body);
            head.payload_size = body.len() as u64;
            let record = buffer.seal(&head);
            prop_assert_eq!(record.len(), record_len(&head, body.len()));
            let mut envelope = decode(record, 5000).unwrap();
            prop_assert_eq!(&envelope.id, &id);
            prop_assert_eq!(payload(&mut envelope).unwrap(), body);
        }

        #[test]
        fn what_is_kept_of_a_document_is_sealed_wherever_it_lies(
            id in ".{0,40}", body in prop::collection::vec(any::<u8>(), 0..300), from in any::<prop::sample::Index>(), len in any::<prop::sample::Index>()
        ) {
            let from = from.index(body.len() + 1);
            let kept = from..from + len.index(body.len() - from + 1);
            let mut buffer = PayloadBuffer::new(&Envelope::default(), body.len());
            buffer.extend(&body);
            let head = Envelope { payload_size: kept.len() as u64, ..head(&id) };
            buffer.keep(kept.clone(), &head);
            prop_assert_eq!(buffer.payload(), &body[kept.clone()]);
            let mut envelope = decode(buffer.seal(&head), 300).unwrap();
            prop_assert_eq!(&envelope.id, &id);
            prop_assert_eq!(&payload(&mut envelope).unwrap()[..], &body[kept]);
        }

        #[test]
        fn any_bytes_are_an_envelope_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(mut envelope) = decode(bytes.into(), 1000) {
                let _ = payload(&mut envelope);
            }
        }
    }

    #[test]
    fn a_compressed_payload_is_bounded_by_its_stated_size() {
        let bomb = zstd::encode_all(&[0_u8; 100_000][..], 1).unwrap();
        let mut envelope = head("x");
        envelope.set_compression(Compression::Zstd);
        envelope.payload = bomb.into();
        for (stated, fits) in [(100_000, true), (99_999, false), (100_001, false), (0, false)] {
            let mut case = envelope.clone();
            case.payload_size = stated;
            assert_eq!(payload(&mut case).is_ok(), fits, "stated {stated}");
        }
    }

    #[test]
    fn a_stated_size_above_the_limit_is_refused_before_it_is_allocated() {
        let mut envelope = head("x");
        envelope.set_compression(Compression::Zstd);
        envelope.payload_size = 1 << 60;
        let record: Bytes = envelope.encode_to_vec().into();
        assert_eq!(decode(record, 100), Err(EnvelopeError::TooLarge { size: 1 << 60, limit: 100 }));
    }
}
