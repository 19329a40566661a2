//! A key as directories, and back.
//!
//! Only `0-9 a-z - _` come out, so that every file system keeps keys apart and none reads anything into them. What is not
//! a digit or a letter below `z` is escaped, and the escape sorts where the byte does: `-` (below the digits) for
//! the bytes below `0`, `_` (between digits and letters) for those between `9` and `a`, and `z` for the rest. So the order of
//! the encodings is the order of the keys.
//!
//! An encoding longer than [`SEGMENT`] goes on in a directory below; a shorter segment is always the last.

/// The characters of a segment. File systems take 255, and the object store's temporary files need some.
const SEGMENT: usize = 200;

/// The key's encoding in one piece.
pub(super) fn encode(key: &[u8]) -> String {
    let mut out = String::with_capacity(key.len() * 3);
    for &byte in key {
        let escape = match byte {
            b'0'..=b'9' | b'a'..=b'y' => {
                out.push(char::from(byte));
                continue;
            }
            0..b'0' => '-',
            b':'..b'a' => '_',
            b'z'.. => 'z',
        };
        out.push(escape);
        out.push_str(&hex::encode([byte]));
    }
    out
}

/// The key of an encoding, or `None` where no key has it.
pub(super) fn decode(encoded: &str) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first.is_ascii_digit() || (b'a'..=b'y').contains(&first) {
            key.push(first);
        } else {
            let (digits, tail) = rest.split_at_checked(2)?;
            key.extend(hex::decode(digits).ok()?);
            rest = tail;
        }
    }
    // One key, one encoding: what another program wrote differently is not a key's directory.
    (!key.is_empty() && encode(&key) == encoded).then_some(key)
}

/// The directories of an encoding, outermost first.
pub(super) fn segments(encoded: &str) -> impl Iterator<Item = &str> {
    // The encoding is ASCII: any cut is between characters.
    (0..encoded.len()).step_by(SEGMENT).map(|start| &encoded[start..encoded.len().min(start + SEGMENT)])
}

/// Whether the keys of longer encodings may be below this segment.
pub(super) fn goes_on(segment: &str) -> bool {
    segment.len() == SEGMENT
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = String> {
        prop_oneof!["\\PC{1,60}", "[a-cA-C./%z~ -]{1,10}", "[\\x00-\\x7f]{1,256}", "[zé]{60,128}"]
    }

    proptest! {
        #[test]
        fn a_key_comes_back_from_its_directories(key in key()) {
            let encoded = encode(key.as_bytes());
            let joined: String = segments(&encoded).collect();
            prop_assert_eq!(decode(&joined).unwrap(), key.as_bytes());
        }

        #[test]
        fn encodings_sort_as_their_keys_do_and_no_two_are_alike_in_any_case(a in key(), b in key()) {
            let (x, y) = (encode(a.as_bytes()), encode(b.as_bytes()));
            prop_assert_eq!(x.cmp(&y), a.as_bytes().cmp(b.as_bytes()));
            prop_assert_eq!(x.to_lowercase() == y.to_lowercase(), a == b);
        }

        #[test]
        fn every_segment_is_a_harmless_name(key in key()) {
            for segment in segments(&encode(key.as_bytes())) {
                prop_assert!((1..=SEGMENT).contains(&segment.len()));
                prop_assert!(segment.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_'));
            }
        }

        #[test]
        fn any_name_is_a_key_or_nothing(name in "[0-9a-z_-]{0,20}") {
            if let Some(key) = decode(&name) {
                prop_assert_eq!(encode(&key), name);
            }
        }
    }

    #[test]
    fn plain_keys_can_be_read_in_a_directory_listing() {
        for (key, encoded) in [
            ("session42", "session42"),
            ("a-b", "a-2db"),
            ("A", "_41"),
            ("..", "-2e-2e"),
            ("z/é", "z7a-2fzc3za9"),
        ] {
            assert_eq!(encode(key.as_bytes()), encoded);
        }
    }

    #[test]
    fn the_longest_key_takes_four_segments() {
        let encoded = encode("\u{e9}".repeat(128).as_bytes());
        assert_eq!(segments(&encoded).count(), 4);
    }
}
