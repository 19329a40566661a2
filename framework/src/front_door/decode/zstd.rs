//! zstd (RFC 8878): frames one after another, skippable ones among them, decoded in memory that is known beforehand.

use super::{
    Decode, DecodeError,
    zstd_frame::{FrameHead, HeadReader},
};
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

/// The largest window: what RFC 9659 lets a Content-Encoding of zstd use.
const WINDOW_LOG: u32 = 23;
const BLOCK: u64 = 128 << 10;

/// What a decoder allocates before the first frame.
pub(in crate::front_door) const ZSTD_MEMORY: u64 = 160 << 10;

pub(in crate::front_door) struct ZstdDecoder {
    context: DCtx<'static>,
    head: HeadReader,
    at: At,
    frames: u64,
    announced: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Head,
    /// The head of a frame of data was read and is now to be decoded.
    Accepted,
    Data,
    Skip {
        left: u32,
    },
}

impl ZstdDecoder {
    pub(in crate::front_door) fn new() -> Result<Self, DecodeError> {
        let mut context = DCtx::try_create().ok_or_else(|| DecodeError::Corrupt("no memory".into()))?;
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).map_err(corrupt)?;
        Ok(Self { context, head: HeadReader::default(), at: At::Head, frames: 0, announced: 0 })
    }

    /// Reads the heads of frames, as far as `input` goes. `Some(memory)`: a frame of data comes next, and decoding it takes
    /// so many bytes; the next `step` begins it.
    pub(in crate::front_door) fn next_frame(
        &mut self,
        input: &mut &[u8],
    ) -> Result<Option<u64>, DecodeError> {
        loop {
            match self.at {
                At::Data | At::Accepted => return Ok(None),
                At::Skip { left } => {
                    let skipped = input.len().min(left as usize);
                    *input = &input[skipped..];
                    let left = left - skipped as u32;
                    self.at = if left == 0 { At::Head } else { At::Skip { left } };
                    if left > 0 {
                        return Ok(None);
                    }
                }
                At::Head => {
                    let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
                    let head = self.head.push(byte).map_err(|error| self.not_a_frame(error))?;
                    *input = rest;
                    if let Some(memory) = self.begin(head)? {
                        return Ok(Some(memory));
                    }
                }
            }
        }
    }

    /// How much the frames so far say that they hold.
    pub(in crate::front_door) fn announced(&self) -> u64 {
        self.announced
    }

    fn begin(&mut self, head: Option<FrameHead>) -> Result<Option<u64>, DecodeError> {
        match head {
            None => Ok(None),
            Some(FrameHead::Skippable { left }) => {
                self.head = HeadReader::default();
                self.frames += 1;
                self.at = At::Skip { left };
                Ok(None)
            }
            Some(FrameHead::Data { window, content }) => {
                if window > 1 << WINDOW_LOG {
                    return Err(DecodeError::WindowTooLarge);
                }
                self.announced = self.announced.saturating_add(content.unwrap_or(0));
                self.at = At::Accepted;
                Ok(Some(frame_memory(window)))
            }
        }
    }

    fn not_a_frame(&self, error: DecodeError) -> DecodeError {
        if self.frames > 0 { DecodeError::Trailing } else { error }
    }

    fn decode(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
        let mut from = InBuffer::around(input);
        let mut to = OutBuffer::around(output);
        let more = self.context.decompress_stream(&mut to, &mut from).map_err(corrupt)?;
        let (taken, given) = (from.pos(), to.pos());
        *input = &input[taken..];
        if more == 0 {
            self.frames += 1;
            self.at = At::Head;
        }
        Ok(given)
    }

    fn accept(&mut self, output: &mut [u8]) -> Result<usize, DecodeError> {
        let head = std::mem::take(&mut self.head);
        self.context.reset(ResetDirective::SessionOnly).map_err(corrupt)?;
        self.at = At::Data;
        let mut rest = head.bytes();
        let written = self.decode(&mut rest, output)?;
        // The head was collected to its exact length: zstd takes all of it.
        if rest.is_empty() {
            Ok(written)
        } else {
            Err(DecodeError::Corrupt("the frame's head is odd".into()))
        }
    }
}

/// What a frame takes at most.
pub(in crate::front_door) const ZSTD_FRAME: u64 = frame_memory(1 << WINDOW_LOG);

/// The window, a block beside it, and a block of input.
const fn frame_memory(window: u64) -> u64 {
    let block = match window {
        ..1024 => 1024,
        1024..BLOCK => window,
        _ => BLOCK,
    };
    window + 3 * block
}

fn corrupt(code: usize) -> DecodeError {
    DecodeError::Corrupt(get_error_name(code).into())
}

impl Decode for ZstdDecoder {
    fn step(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
        match self.at {
            At::Head | At::Skip { .. } => self.next_frame(input).map(|_| 0),
            At::Accepted => self.accept(output),
            At::Data => self.decode(input, output),
        }
    }

    fn finish(&self) -> Result<(), DecodeError> {
        let whole = self.at == At::Head && self.head.is_empty() && self.frames > 0;
        if whole { Ok(()) } else { Err(DecodeError::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::decode_cut, *};
    use proptest::prelude::*;
    use std::io::Write;
    use zstd::stream::Encoder;

    fn decode(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
        decode_cut(&mut ZstdDecoder::new().unwrap(), body, &[], 1000)
    }

    fn skippable(kind: u8, size: usize) -> Vec<u8> {
        let mut frame = vec![0x50 | kind, 0x2a, 0x4d, 0x18];
        frame.extend((size as u32).to_le_bytes());
        frame.resize(8 + size, 0xaa);
        frame
    }

    /// A frame of unknown content size, so with a window descriptor.
    fn streamed(payload: &[u8], window_log: u32) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new(), 3).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(payload).unwrap();
        encoder.finish().unwrap()
    }

    proptest! {
        #[test]
        fn frames_cut_anywhere_are_one_payload(
            frames in prop::collection::vec((prop::collection::vec(0_u8..4, 0..3000), 0_u8..4), 1..5),
            cuts in prop::collection::vec(any::<usize>(), 0..20), room in 1_usize..5000
        ) {
            let mut body = Vec::new();
            let mut expected = Vec::new();
            for (payload, kind) in &frames {
                match kind {
                    0 => body.extend(skippable(payload.len() as u8 & 15, payload.len())),
                    1 => body.extend(streamed(payload, 17)),
                    kind => body.extend(zstd::bulk::compress(payload, i32::from(*kind) * 5).unwrap()),
                }
                if *kind > 0 { expected.extend_from_slice(payload); }
            }
            prop_assert_eq!(decode_cut(&mut ZstdDecoder::new().unwrap(), &body, &cuts, room), Ok(expected.clone()));
            // What is stored as it came is what the reader's one-shot decompression takes.
            let mut out = vec![0; expected.len()];
            prop_assert_eq!(zstd::bulk::decompress_to_buffer(&body, &mut out).unwrap(), expected.len());
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn any_bytes_decode_or_fail(body in prop::collection::vec(any::<u8>(), 0..500), cuts in prop::collection::vec(any::<usize>(), 0..5)) {
            let _ = decode_cut(&mut ZstdDecoder::new().unwrap(), &body, &cuts, 100);
            let behind = [&0xfd2f_b528_u32.to_le_bytes()[..], &body].concat();
            let _ = decode_cut(&mut ZstdDecoder::new().unwrap(), &behind, &cuts, 100);
        }

        #[test]
        fn a_body_cut_short_is_truncated(payload in prop::collection::vec(0_u8..4, 0..2000), at in any::<prop::sample::Index>()) {
            let body = streamed(&payload, 17);
            prop_assert_eq!(decode(&body[..at.index(body.len())]), Err(DecodeError::Truncated));
            prop_assert_eq!(decode(&body), Ok(payload));
        }
    }

    #[test]
    fn other_bytes_after_the_last_frame_are_refused() {
        let body = zstd::bulk::compress(b"payload", 3).unwrap();
        for trailing in [&b"x"[..], &[0], &[0x28, 0xb5, 0], &[0x50, 0x2b]] {
            assert_eq!(decode(&[&body[..], trailing].concat()), Err(DecodeError::Trailing), "{trailing:?}");
        }
        assert_eq!(decode(&[&body[..], &[0x28, 0xb5]].concat()), Err(DecodeError::Truncated));
        assert!(matches!(decode(b"payload"), Err(DecodeError::Corrupt(_))));
    }

    #[test]
    fn a_window_above_8_mib_is_refused_and_one_of_8_mib_is_not() {
        let payload: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        assert!(decode(&streamed(&payload, 23)).is_ok());
        assert_eq!(decode(&streamed(&payload, 24)), Err(DecodeError::WindowTooLarge));
    }

    #[test]
    fn a_decoder_allocates_no_more_than_it_says_beforehand() {
        let payload: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        for window_log in [10, 17, 20, 23] {
            let body = streamed(&payload, window_log);
            let mut decoder = ZstdDecoder::new().unwrap();
            assert!(decoder.context.sizeof() as u64 <= ZSTD_MEMORY);
            let mut input = &body[..];
            let memory = decoder.next_frame(&mut input).unwrap().unwrap();
            let mut output = vec![0; 64 << 10];
            while !input.is_empty() {
                decoder.step(&mut input, &mut output).unwrap();
                let used = decoder.context.sizeof() as u64;
                assert!(used <= ZSTD_MEMORY + memory, "{used} > {memory} at window log {window_log}");
            }
        }
    }
}
