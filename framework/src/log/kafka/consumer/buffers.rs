//! What small records are copied into on their way to an actor: buffers of a few sizes, used again.
//!
//! A buffer is used again when nobody holds a record in it any more. Allocating one for each batch would be new memory each time: it
//! is freed on an actor's thread and asked for on the consumer's, and the system clears every page of it.

use bytes::BytesMut;
use std::collections::VecDeque;

/// The sizes, in bytes. A lane begins with the smallest: most have little to carry.
const SIZES: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
/// What is kept of all sizes together, in bytes.
const KEPT: usize = 8 << 20;
/// How many that are kept are asked whether they are free, before a new one is made.
const ASKED: usize = 4;

/// Which of the sizes a lane uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Size(u8);

impl Size {
    pub(super) fn bytes(self) -> usize {
        SIZES[usize::from(self.0)]
    }

    fn with_room(self, bytes: usize) -> Option<Self> {
        (self.0..SIZES.len() as u8).map(Self).find(|size| size.bytes() >= bytes)
    }

    /// The next larger one, for a lane whose buffer was full before its batch was.
    pub(super) fn larger(self) -> Self {
        Self((self.0 + 1).min(SIZES.len() as u8 - 1))
    }

    /// The next smaller one, for a lane that used little of its buffer.
    pub(super) fn smaller(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// The buffers of one consumer.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    kept: [VecDeque<BytesMut>; SIZES.len()],
}

impl Buffers {
    /// An empty buffer of this size, or of the next that has room for `least` bytes, with the size that it is to be given back as. What
    /// is larger than all sizes is not kept.
    pub(super) fn take(&mut self, size: Size, least: usize) -> (Option<Size>, BytesMut) {
        let Some(size) = size.with_room(least) else { return (None, BytesMut::with_capacity(least)) };
        let kept = &mut self.kept[usize::from(size.0)];
        for _ in 0..ASKED.min(kept.len()) {
            if let Some(mut buffer) = kept.pop_front() {
                if buffer.try_reclaim(size.bytes()) {
                    return (Some(size), buffer);
                }
                kept.push_back(buffer);
            }
        }
        (Some(size), BytesMut::with_capacity(size.bytes()))
    }

    /// Takes back what is left of a buffer of this size.
    pub(super) fn give(&mut self, size: Size, mut buffer: BytesMut) {
        buffer.clear();
        self.kept[usize::from(size.0)].push_back(buffer);
        while self.bytes() > KEPT {
            // Of what is most of: the lanes may need other sizes now than they did.
            if let Some((kept, _)) =
                self.kept.iter_mut().zip(SIZES).max_by_key(|(kept, size)| kept.len() * size)
            {
                kept.pop_front();
            }
        }
    }

    fn bytes(&self) -> usize {
        self.kept.iter().zip(SIZES).map(|(kept, size)| kept.len() * size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_only_when_nobody_holds_anything_of_it() {
        let (mut buffers, size) = (Buffers::default(), Size::default().larger());
        let (home, mut buffer) = buffers.take(size, 100);
        assert_eq!(home, Some(size));
        buffer.extend_from_slice(b"a record");
        let (place, record) = (buffer.as_ptr(), buffer.split().freeze());
        buffers.give(size, buffer);
        let (_, other) = buffers.take(size, 100);
        assert_ne!(other.as_ptr(), place);
        assert_eq!(record, &b"a record"[..]);
        drop(record);
        let (_, again) = buffers.take(size, 100);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert!(again.capacity() >= size.bytes());
    }

    #[test]
    fn what_does_not_fit_the_size_gets_a_larger_one_or_a_buffer_of_its_own() {
        let mut buffers = Buffers::default();
        let (home, buffer) = buffers.take(Size::default(), 60_000);
        assert_eq!(home.map(Size::bytes), Some(64 << 10));
        assert!(buffer.capacity() >= 60_000);
        let (home, buffer) = buffers.take(Size::default(), 1 << 20);
        assert_eq!(home, None);
        assert!(buffer.capacity() >= 1 << 20);
    }

    #[test]
    fn no_more_is_kept_of_all_sizes_together_than_was_said_and_the_size_in_use_finds_room() {
        let mut buffers = Buffers::default();
        for size in [Size(0), Size(3), Size(1), Size(3)] {
            for _ in 0..4096 {
                buffers.give(size, BytesMut::with_capacity(size.bytes()));
                assert!(buffers.bytes() <= KEPT);
            }
        }
        assert!(buffers.kept[3].len() * SIZES[3] > KEPT / 4);
    }
}
