//! The escapes of a JSON string (RFC 8259, section 7) resolved in the memory that it lies in.

/// A `\u` escape is half of a surrogate pair, or no escape at all.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotText;

/// Resolves the escapes of `text`, what stands between a JSON string's quotes, where it is, and says how many bytes at its beginning are the result.
pub(super) fn unescape_in_place(text: &mut [u8]) -> Result<usize, NotText> {
    let (mut read, mut written) = (0, 0);
    while read < text.len() {
        let end = memchr::memchr(b'\\', &text[read..]).map_or(text.len(), |at| read + at);
        text.copy_within(read..end, written);
        written += end - read;
        read = end;
        if read < text.len() {
            let (character, taken) = escape(&text[read..]).ok_or(NotText)?;
            let mut encoded = [0; 4];
            let encoded = character.encode_utf8(&mut encoded).as_bytes();
            // An escape is never shorter than what it stands for.
            text[written..written + encoded.len()].copy_from_slice(encoded);
            written += encoded.len();
            read += taken;
        }
    }
    Ok(written)
}

/// The character that an escape stands for, and how long it is.
fn escape(text: &[u8]) -> Option<(char, usize)> {
    let simple = match text.get(1)? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode(text),
        other => *other as char,
    };
    Some((simple, 2))
}

fn unicode(text: &[u8]) -> Option<(char, usize)> {
    let first = unit(text)?;
    match char::from_u32(first) {
        Some(character) => Some((character, 6)),
        None => {
            let units = [first as u16, unit(text.get(6..)?)? as u16];
            let mut characters = char::decode_utf16(units);
            Some((characters.next()?.ok()?, 12))
        }
    }
}

/// The number in `\uXXXX`.
fn unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unescaped(text: &str) -> Option<String> {
        let mut bytes = text.as_bytes().to_vec();
        let len = unescape_in_place(&mut bytes).ok()?;
        String::from_utf8(bytes[..len].to_vec()).ok()
    }

    proptest! {
        #[test]
        fn it_says_what_a_parser_says(pieces in prop::collection::vec(
            prop_oneof![
                "[a-zé€😀 ]{0,5}",
                r#"\\["\\/bfnrt]"#,
                r"\\u00[0-9a-fA-F]{2}",
                r"\\ud8[0-9a-f]{2}\\udc[0-9a-f]{2}",
                r"\\u[0-9a-f]{4}",
            ], 0..20
        )) {
            let text = pieces.concat();
            let parsed: Option<String> = serde_json::from_str(&format!("\"{text}\"")).ok();
            prop_assert_eq!(unescaped(&text), parsed);
        }
    }
}
