//! The head of a zstd frame (RFC 8878, section 3.1), read to know what decoding it will need before it is begun.

use super::DecodeError;

const FRAME: u32 = 0xfd2f_b528;
const SKIPPABLE: u32 = 0x184d_2a50;
const LONGEST: usize = 18;

/// The beginning of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameHead {
    /// A frame of data.
    Data { window: u64, content: Option<u64> },
    /// A frame that means nothing, with this many bytes to pass over.
    Skippable { left: u32 },
}

/// Collects the bytes of one frame's head, and no more.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    bytes: [u8; LONGEST],
    seen: usize,
}

impl HeadReader {
    pub(super) fn is_empty(&self) -> bool {
        self.seen == 0
    }

    /// What was collected.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.seen]
    }

    /// Takes a byte. `Ok(None)`: more are needed. An error: this is not the beginning of a frame.
    pub(super) fn push(&mut self, byte: u8) -> Result<Option<FrameHead>, DecodeError> {
        self.bytes[self.seen] = byte;
        self.seen += 1;
        let skippable = match self.kind() {
            Some(skippable) => skippable,
            None => return Err(DecodeError::Corrupt("it is not a zstd frame".into())),
        };
        let whole = if skippable { self.seen == 8 } else { self.seen > 4 && self.seen == self.data_len() };
        Ok(whole.then(|| if skippable { self.skippable() } else { self.data() }))
    }

    /// Whether the bytes so far begin a skippable frame (or can still begin either kind); `None` if neither.
    fn kind(&self) -> Option<bool> {
        let seen = self.seen.min(4);
        let begins = |magic: u32, low: u8| {
            let magic = magic.to_le_bytes();
            self.bytes[0] & low == magic[0] & low && self.bytes[1..seen] == magic[1..seen]
        };
        if begins(FRAME, 0xff) { Some(false) } else { begins(SKIPPABLE, 0xf0).then_some(true) }
    }

    fn descriptor(&self) -> u8 {
        self.bytes[4]
    }

    fn single_segment(&self) -> bool {
        self.descriptor() & 0x20 != 0
    }

    fn dictionary_len(&self) -> usize {
        [0, 1, 2, 4][usize::from(self.descriptor() & 3)]
    }

    fn content_len(&self) -> usize {
        match self.descriptor() >> 6 {
            0 => usize::from(self.single_segment()),
            1 => 2,
            2 => 4,
            _ => 8,
        }
    }

    fn data_len(&self) -> usize {
        5 + usize::from(!self.single_segment()) + self.dictionary_len() + self.content_len()
    }

    fn data(&self) -> FrameHead {
        let len = self.content_len();
        let mut content = [0; 8];
        content[..len].copy_from_slice(&self.bytes[self.seen - len..self.seen]);
        let content = u64::from_le_bytes(content) + if len == 2 { 256 } else { 0 };
        let window = if self.single_segment() { content } else { window(self.bytes[5]) };
        FrameHead::Data { window, content: (len > 0).then_some(content) }
    }

    fn skippable(&self) -> FrameHead {
        let size = [self.bytes[4], self.bytes[5], self.bytes[6], self.bytes[7]];
        FrameHead::Skippable { left: u32::from_le_bytes(size) }
    }
}

fn window(descriptor: u8) -> u64 {
    let base = 1_u64 << (10 + (descriptor >> 3));
    base + base / 8 * u64::from(descriptor & 7)
}
