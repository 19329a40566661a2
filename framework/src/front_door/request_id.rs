//! The id that a request and its answer are known by: the sender's own where it is sane, else one that is made.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use std::fmt::Write;

/// The header, both ways.
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const LONGEST: usize = 128;

/// A request's id: visible ASCII that needs no escaping in JSON or in a log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestId(String);

impl RequestId {
    /// The id in these headers, or a new one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        match headers.get(&X_REQUEST_ID).and_then(|value| value.to_str().ok()) {
            Some(id) if is_sane(id) => Self(id.to_owned()),
            _ => Self::make(),
        }
    }

    fn make() -> Self {
        let mut id = String::with_capacity(32);
        // Writing to a String cannot fail.
        let _ = write!(id, "{:032x}", rand::random::<u128>());
        Self(id)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    }
}

fn is_sane(id: &str) -> bool {
    let sane = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'<' | b'>');
    (1..=LONGEST).contains(&id.len()) && id.bytes().all(sane)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID.clone(), HeaderValue::from_bytes(value).unwrap());
        RequestId::of(&headers).0
    }

    #[test]
    fn a_sane_id_is_kept_and_any_other_is_replaced() {
        assert_eq!(of(b"a-1:b/2"), "a-1:b/2");
        for insane in [&b""[..], b"with space", b"quo\"te", b"\xff", &[b'x'; 129]] {
            let made = of(insane);
            assert_eq!(made.len(), 32, "{insane:?}");
        }
    }
}
