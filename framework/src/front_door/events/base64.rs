//! Base64 (RFC 4648, the standard alphabet) decoded in the memory that it lies in.

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// What is decoded at a time: whole groups of four.
const CHUNK: usize = 4096;
const DECODED: usize = CHUNK / 4 * 3;

/// Padding may be left out, as some senders do.
static ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// It is not base64.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotBase64;

/// Decodes `text` where it is, and says how many bytes at its beginning are the result.
pub(super) fn decode_in_place(text: &mut [u8]) -> Result<usize, NotBase64> {
    let mut written = 0;
    let mut decoded = [0; DECODED];
    for start in (0..text.len()).step_by(CHUNK) {
        let end = text.len().min(start + CHUNK);
        let len = ENGINE.decode_slice(&text[start..end], &mut decoded).map_err(|_| NotBase64)?;
        // Padding stands at the end of all, not of a chunk.
        if end < text.len() && len < DECODED {
            return Err(NotBase64);
        }
        text[written..written + len].copy_from_slice(&decoded[..len]);
        written += len;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..10_000), padded in any::<bool>()) {
            let text = if padded { BASE64_STANDARD.encode(&bytes) } else { BASE64_STANDARD_NO_PAD.encode(&bytes) };
            let mut text = text.into_bytes();
            let len = decode_in_place(&mut text).unwrap();
            prop_assert_eq!(&text[..len], &bytes[..]);
        }
    }

    #[test]
    fn padding_between_chunks_and_other_characters_are_refused() {
        for text in [
            format!("{}A==={}", "A".repeat(CHUNK - 4), "AAAA"),
            format!("{}AA=={}", "A".repeat(CHUNK - 4), "AAAA"),
            "A-A_".into(),
            "A".into(),
            "AA A".into(),
        ] {
            assert_eq!(decode_in_place(&mut text.into_bytes()), Err(NotBase64));
        }
    }
}
