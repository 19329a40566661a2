//! gzip (RFC 1952): members one after another, each a header, a deflate stream and a checksum.

use super::{Decode, DecodeError};
use flate2::{Crc, Decompress, FlushDecompress, Status};

const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

/// What a decoder allocates beside the caller's output: inflate's tables and its 32 KiB window.
pub(in crate::front_door) const GZIP_MEMORY: u64 = 64 << 10;

pub(in crate::front_door) struct GzipDecoder {
    inflate: Decompress,
    crc: Crc,
    at: At,
    members: u64,
}

/// The part of a member that the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The ten bytes every header has, of which these were seen.
    Fixed {
        seen: u8,
        flags: u8,
    },
    /// The two bytes of the extra field's length.
    ExtraLength {
        flags: u8,
        low: Option<u8>,
    },
    Extra {
        flags: u8,
        left: u16,
    },
    /// A text that ends with a zero byte.
    Name {
        flags: u8,
    },
    Comment {
        flags: u8,
    },
    HeaderCrc {
        left: u8,
    },
    Deflate,
    /// The checksum and the length, little-endian.
    Trailer {
        seen: u8,
        value: u64,
    },
}

const START: At = At::Fixed { seen: 0, flags: 0 };

impl GzipDecoder {
    pub(in crate::front_door) fn new() -> Self {
        Self { inflate: Decompress::new(false), crc: Crc::new(), at: START, members: 0 }
    }

    fn header_byte(&mut self, byte: u8) -> Result<(), DecodeError> {
        self.at = match self.at {
            At::Fixed { seen, flags } => self.fixed(seen, flags, byte)?,
            At::ExtraLength { flags, low: None } => At::ExtraLength { flags, low: Some(byte) },
            At::ExtraLength { flags, low: Some(low) } => match u16::from_le_bytes([low, byte]) {
                0 => after_extra(flags),
                left => At::Extra { flags, left },
            },
            At::Extra { flags, left: 1 } => after_extra(flags),
            At::Extra { flags, left } => At::Extra { flags, left: left - 1 },
            At::Name { flags } if byte == 0 => after_name(flags),
            At::Comment { flags } if byte == 0 => after_comment(flags),
            At::HeaderCrc { left: 2 } => At::HeaderCrc { left: 1 },
            At::HeaderCrc { .. } => At::Deflate,
            At::Trailer { seen, value } => self.trailer(seen, value | u64::from(byte) << (8 * seen))?,
            unchanged @ (At::Name { .. } | At::Comment { .. } | At::Deflate) => unchanged,
        };
        Ok(())
    }

    fn fixed(&self, seen: u8, flags: u8, byte: u8) -> Result<At, DecodeError> {
        let flags = if seen == 3 { byte } else { flags };
        let as_expected = match seen {
            0 => byte == 0x1f,
            1 => byte == 0x8b,
            2 => byte == 8,
            3 => byte & RESERVED == 0,
            _ => true,
        };
        match (as_expected, seen) {
            (false, 0 | 1) if self.members > 0 => Err(DecodeError::Trailing),
            (false, _) => Err(DecodeError::Corrupt("it is not a gzip header".into())),
            (true, 9) => Ok(after_fixed(flags)),
            (true, _) => Ok(At::Fixed { seen: seen + 1, flags }),
        }
    }

    fn trailer(&mut self, seen: u8, value: u64) -> Result<At, DecodeError> {
        if seen < 7 {
            return Ok(At::Trailer { seen: seen + 1, value });
        }
        if value as u32 != self.crc.sum() || (value >> 32) as u32 != self.crc.amount() {
            return Err(DecodeError::Corrupt("a member's checksum or length is wrong".into()));
        }
        self.members += 1;
        self.crc.reset();
        self.inflate.reset(false);
        Ok(START)
    }

    fn inflate(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
        let (taken, given) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(input, output, FlushDecompress::None)
            .map_err(|error| DecodeError::Corrupt(error.to_string()))?;
        let taken = (self.inflate.total_in() - taken) as usize;
        let given = (self.inflate.total_out() - given) as usize;
        *input = &input[taken..];
        self.crc.update(&output[..given]);
        if status == Status::StreamEnd {
            self.at = At::Trailer { seen: 0, value: 0 };
        } else if taken == 0 && given == 0 && !input.is_empty() && !output.is_empty() {
            return Err(DecodeError::Corrupt("the deflate stream makes no progress".into()));
        }
        Ok(given)
    }
}

fn after_fixed(flags: u8) -> At {
    if flags & FEXTRA != 0 { At::ExtraLength { flags, low: None } } else { after_extra(flags) }
}

fn after_extra(flags: u8) -> At {
    if flags & FNAME != 0 { At::Name { flags } } else { after_name(flags) }
}

fn after_name(flags: u8) -> At {
    if flags & FCOMMENT != 0 { At::Comment { flags } } else { after_comment(flags) }
}

fn after_comment(flags: u8) -> At {
    if flags & FHCRC != 0 { At::HeaderCrc { left: 2 } } else { At::Deflate }
}

impl Decode for GzipDecoder {
    fn step(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize, DecodeError> {
        let mut written = 0;
        while written < output.len() {
            if self.at == At::Deflate {
                let given = self.inflate(input, &mut output[written..])?;
                written += given;
                if self.at == At::Deflate && (input.is_empty() && written < output.len()) {
                    break;
                }
                continue;
            }
            let Some((&byte, rest)) = input.split_first() else { break };
            self.header_byte(byte)?;
            *input = rest;
        }
        Ok(written)
    }

    fn finish(&self) -> Result<(), DecodeError> {
        if self.at == START && self.members > 0 { Ok(()) } else { Err(DecodeError::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::decode_cut, *};
    use flate2::{Compression, GzBuilder, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(payload: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(payload).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
        decode_cut(&mut GzipDecoder::new(), body, &[], 1000)
    }

    proptest! {
        #[test]
        fn members_cut_anywhere_are_one_payload(
            members in prop::collection::vec(prop::collection::vec(0_u8..4, 0..3000), 1..4),
            level in 0_u32..9, cuts in prop::collection::vec(any::<usize>(), 0..20), room in 1_usize..5000
        ) {
            let body: Vec<u8> = members.iter().flat_map(|member| gzip(member, level)).collect();
            prop_assert_eq!(decode_cut(&mut GzipDecoder::new(), &body, &cuts, room), Ok(members.concat()));
        }

        #[test]
        fn any_bytes_decode_or_fail(body in prop::collection::vec(any::<u8>(), 0..500), cuts in prop::collection::vec(any::<usize>(), 0..5)) {
            let _ = decode_cut(&mut GzipDecoder::new(), &body, &cuts, 100);
            let behind = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &body].concat();
            let _ = decode_cut(&mut GzipDecoder::new(), &behind, &cuts, 100);
        }

        #[test]
        fn a_body_cut_short_or_changed_is_never_taken_for_another(
            payload in prop::collection::vec(0_u8..4, 1..2000), at in any::<prop::sample::Index>(), flip in 1_u8..255
        ) {
            let body = gzip(&payload, 6);
            let cut = at.index(body.len() - 1) + 1;
            prop_assert_eq!(decode(&body[..cut]), if cut == body.len() { Ok(payload.clone()) } else { Err(DecodeError::Truncated) });
            let mut changed = body.clone();
            changed[cut] ^= flip;
            if let Ok(decoded) = decode(&changed) {
                prop_assert_eq!(decoded, payload);
            }
        }
    }

    #[test]
    fn every_optional_header_field_is_passed_over() {
        let mut encoder = GzBuilder::new()
            .filename("name")
            .comment("comment")
            .extra(vec![1, 2, 3])
            .write(Vec::new(), Compression::fast());
        encoder.write_all(b"payload").unwrap();
        assert_eq!(decode(&encoder.finish().unwrap()), Ok(b"payload".to_vec()));
    }

    #[test]
    fn other_bytes_after_the_last_member_are_refused() {
        let body = gzip(b"payload", 6);
        for trailing in [&b"x"[..], &[0; 8], &[0x1f, 0]] {
            assert_eq!(decode(&[&body[..], trailing].concat()), Err(DecodeError::Trailing));
        }
        assert_eq!(decode(&[&body[..], &[0x1f, 0x8b]].concat()), Err(DecodeError::Truncated));
        assert!(matches!(decode(b"payload"), Err(DecodeError::Corrupt(_))));
    }
}
