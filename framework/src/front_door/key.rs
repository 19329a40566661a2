//! The task's key, out of the path as it was sent.
//!
//! The raw path is read and not the router's, which has decoded some of it: `%2F` is a slash of the key, `+` is a plus, and what is
//! decoded is decoded once.

use super::problem::{Problem, ProblemCode};
use bytes::Bytes;

pub(super) const ROUTE: &str = "/v1/tasks/";
const LONGEST: usize = 256;

/// The key of a request to `/v1/tasks/{key}`, wherever that is mounted.
pub(super) fn from_path(path: &str) -> Result<Bytes, Problem> {
    let Some((_, raw)) = path.split_once(ROUTE) else {
        return Err(Problem::new(ProblemCode::NotFound, "the path is not /v1/tasks/{key} as it stands"));
    };
    if raw.contains('/') {
        return Err(Problem::new(
            ProblemCode::NotFound,
            "the path goes on after the key; a slash of the key is written %2F",
        ));
    }
    let key = percent_decode(raw.as_bytes()).ok_or_else(|| {
        invalid("it has a % that two hexadecimal digits do not follow; a percent sign is %25")
    })?;
    checked(key)
}

/// The key, if it may be one.
pub(super) fn checked(key: impl Into<Bytes>) -> Result<Bytes, Problem> {
    let key = key.into();
    if key.is_empty() {
        return Err(invalid("it is empty"));
    }
    if key.len() > LONGEST {
        return Err(invalid("it is longer than 256 bytes"));
    }
    if std::str::from_utf8(&key).is_err() {
        return Err(invalid("it is not UTF-8"));
    }
    Ok(key)
}

fn invalid(why: &str) -> Problem {
    Problem::new(ProblemCode::InvalidKey, format!("the key cannot be used: {why}"))
}

fn percent_decode(raw: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            key.push(hex(digits[0])? << 4 | hex(digits[1])?);
            rest = tail;
        } else {
            key.push(byte);
        }
    }
    Some(key)
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(path: &str) -> ProblemCode {
        from_path(path).unwrap_err().code
    }

    #[test]
    fn a_key_is_decoded_once_and_only_percent_means_something() {
        for (raw, key) in [
            ("abc", "abc"),
            ("a%2Fb", "a/b"),
            ("a%2fb", "a/b"),
            ("a+b", "a+b"),
            ("%2B", "+"),
            ("%252F", "%2F"),
            ("..", ".."),
            ("%C3%A9", "é"),
            ("%00", "\0"),
            ("%0A", "\n"),
        ] {
            assert_eq!(from_path(&format!("/v1/tasks/{raw}")).unwrap(), key, "{raw}");
            assert_eq!(from_path(&format!("/mounted/here/v1/tasks/{raw}")).unwrap(), key, "{raw}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for raw in ["", "%", "%4", "%zz", "a%", "%FF", "%C3"] {
            assert_eq!(code(&format!("/v1/tasks/{raw}")), ProblemCode::InvalidKey, "{raw}");
        }
        assert!(from_path(&format!("/v1/tasks/{}", "k".repeat(256))).is_ok());
        assert_eq!(code(&format!("/v1/tasks/{}", "k".repeat(257))), ProblemCode::InvalidKey);
        assert_eq!(code("/v1/tasks/a/b"), ProblemCode::NotFound);
        assert_eq!(code("/v1/tasks/a/"), ProblemCode::NotFound);
    }

    proptest! {
        #[test]
        fn any_encoding_of_any_key_gives_the_key(key in "\\PC{1,60}", all in any::<bool>()) {
            let raw: String = key.bytes().map(|b| {
                if all || !b.is_ascii_alphanumeric() { format!("%{b:02X}") } else { (b as char).to_string() }
            }).collect();
            prop_assert_eq!(from_path(&format!("/v1/tasks/{raw}")).unwrap(), key);
        }
    }
}
