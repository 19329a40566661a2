//! A CloudEvent whose attributes are headers (CloudEvents 1.0.2, HTTP Protocol Binding, "Binary Content Mode").

use super::{
    super::problem::Problem,
    attributes::{Attributes, PREFIX, invalid},
};
use actix_web::http::header::{CONTENT_TYPE, HeaderMap};
use bytes::Bytes;
use partita_proto::v1::Envelope;
use percent_encoding::percent_decode;

/// The key and the envelope of the event in these headers.
pub(super) fn event(headers: &HeaderMap, base: &Envelope) -> Result<(Bytes, Envelope), Problem> {
    let mut attributes = Attributes::default();
    for (header, value) in headers {
        let Some(name) = header.as_str().strip_prefix(PREFIX) else { continue };
        // The data's media type is the body's.
        if name != "datacontenttype" {
            attributes.set(name, decode(name, value.as_bytes())?)?;
        }
    }
    if let Some(media_type) = headers.get(CONTENT_TYPE) {
        let media_type = std::str::from_utf8(media_type.as_bytes());
        attributes
            .set_data_content_type(media_type.map_err(|_| invalid("Content-Type is not UTF-8".into()))?);
    }
    attributes.task(base).map_err(|refused| refused.problem)
}

/// First what is quoted, then one round of percent-decoding (3.1.3.2). A percent sign without two digits stands for itself.
fn decode(name: &str, value: &[u8]) -> Result<String, Problem> {
    let unquoted = unquote(value);
    let decoded = percent_decode(unquoted.as_deref().unwrap_or(value)).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| invalid(format!("{PREFIX}{name} is not UTF-8 after percent-decoding")))
}

/// The content of a quoted-string (RFC 9110, 5.6.4); `None` if it is none.
fn unquote(value: &[u8]) -> Option<Vec<u8>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut unquoted = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        unquoted.push(if byte == b'\\' { *bytes.next()? } else { byte });
    }
    Some(unquoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unquoted_and_percent_decoded_once() {
        for (sent, value) in [
            ("plain", "plain"),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("%2525", "%25"),
            ("100%", "100%"),
            (r#""a \"b\" %22c%22""#, r#"a "b" "c""#),
            ("\"", "\""),
            ("a+b", "a+b"),
        ] {
            assert_eq!(decode("x", sent.as_bytes()).unwrap(), value, "{sent}");
        }
        assert!(decode("x", b"%FF").is_err());
    }

    #[test]
    fn headers_make_an_event() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/s"),
            ("ce-type", "t"),
            ("ce-subject", "a%2Fb"),
            ("ce-datacontenttype", "not/this"),
            ("content-type", "text/plain"),
        ] {
            headers.insert(name.parse().unwrap(), value.parse().unwrap());
        }
        let (key, head) = event(&headers, &Envelope::default()).unwrap();
        assert_eq!(key, "a/b");
        assert_eq!(head.content_type.as_deref(), Some("text/plain"));
    }
}
