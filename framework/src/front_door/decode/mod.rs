//! Streaming decoders of compressed bodies. Each takes the body in pieces of any size and gives at most what fits the
//! caller's buffer: what comes out is counted before more is made, so no body can expand beyond what its reader
//! asked for.

mod gzip;
mod zstd;
mod zstd_frame;

pub(super) use gzip::{GZIP_MEMORY, GzipDecoder};
pub(super) use zstd::{ZSTD_FRAME, ZSTD_MEMORY, ZstdDecoder};

use super::problem::{Problem, ProblemCode};

/// The bytes that a decoder writes at a time.
pub(super) const OUTPUT: usize = 64 << 10;

/// Why a body is not what its Content-Encoding says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// It is malformed.
    Corrupt(String),
    /// It ends inside a member or frame.
    Truncated,
    /// Other bytes come after a whole member or frame.
    Trailing,
    /// A zstd frame needs more memory to decode than is given to one.
    WindowTooLarge,
}

/// What a decoder is doing: the same for both formats.
pub(super) trait Decode {
    /// Takes some of `input`, advancing it, and writes some of `output`; returns how much. All of `input` is taken and nothing is held
    /// back once `input` is empty and less than `output` was filled.
    fn step(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, DecodeError>;

    /// To be called when there is no more input: was that a whole body?
    fn finish(&self) -> Result<(), DecodeError>;
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Corrupt(why) => {
                Problem::new(ProblemCode::InvalidEncoding, format!("the body does not decompress: {why}"))
            }
            DecodeError::Truncated => Problem::new(
                ProblemCode::TruncatedEncoding,
                "the compressed body ends before its last member or frame does",
            ),
            DecodeError::Trailing => Problem::new(
                ProblemCode::TrailingBytes,
                "bytes that are not of the Content-Encoding follow the last member or frame",
            ),
            DecodeError::WindowTooLarge => Problem::new(
                ProblemCode::WindowTooLarge,
                "compress with a window of at most 8 MiB (RFC 9659): zstd --long or --ultra make larger ones",
            ),
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Decodes `body`, cut at `cuts`, through an output buffer of `room` bytes.
    pub(in crate::front_door) fn decode_cut(
        decoder: &mut dyn Decode,
        body: &[u8],
        cuts: &[usize],
        room: usize,
    ) -> Result<Vec<u8>, DecodeError> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let mut decoded = Vec::new();
        let mut output = vec![0; room];
        for pair in cuts.windows(2) {
            let mut input = &body[pair[0]..pair[1]];
            loop {
                let written = decoder.step(&mut input, &mut output)?;
                decoded.extend_from_slice(&output[..written]);
                if input.is_empty() && written < room {
                    break;
                }
            }
        }
        decoder.finish()?;
        Ok(decoded)
    }
}
