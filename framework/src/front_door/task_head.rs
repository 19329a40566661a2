//! What a request's headers say of its task: type, content type, trace context, content encoding.

use super::problem::{Problem, ProblemCode};
use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use partita_proto::v1::{Envelope, Header};
use std::time::{SystemTime, UNIX_EPOCH};

/// The longest value of one header that is stored with a task.
const LONGEST_VALUE: usize = 512;

/// Headers that are stored with the task under their own names.
static STORED: [HeaderName; 2] =
    [HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate")];

/// The payload's type name.
static PARTITA_TYPE: HeaderName = HeaderName::from_static("partita-type");

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// The envelope of a request's task, without payload and sizes.
pub(super) fn envelope(headers: &HeaderMap) -> Result<Envelope, Problem> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut stored = Vec::new();
    for name in &STORED {
        if let Some(value) = text(headers, name)? {
            stored.push(Header { name: name.as_str().to_owned(), value });
        }
    }
    Ok(Envelope {
        created_at_ms: now.as_millis() as u64,
        r#type: text(headers, &PARTITA_TYPE)?,
        content_type: text(headers, &CONTENT_TYPE)?,
        headers: stored,
        ..Envelope::default()
    })
}

/// The body's encoding. Several in a row are not taken.
pub(super) fn coding(headers: &HeaderMap) -> Result<Coding, Problem> {
    let mut values = headers.get_all(CONTENT_ENCODING);
    let coding = match (values.next(), values.next()) {
        (None, _) => Some(Coding::Identity),
        (Some(one), None) => one.to_str().ok().and_then(known_coding),
        (Some(_), Some(_)) => None,
    };
    coding.ok_or_else(|| {
        Problem::new(
            ProblemCode::UnsupportedEncoding,
            "send one Content-Encoding of identity, gzip or zstd, or none",
        )
    })
}

fn known_coding(value: &str) -> Option<Coding> {
    let value = value.trim();
    let is = |name: &str| value.eq_ignore_ascii_case(name);
    if value.is_empty() || is("identity") {
        Some(Coding::Identity)
    } else if is("gzip") || is("x-gzip") {
        Some(Coding::Gzip)
    } else if is("zstd") {
        Some(Coding::Zstd)
    } else {
        None
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(name);
    let Some(value) = values.next() else { return Ok(None) };
    // W3C Trace Context, 3.3: several are one, with commas between them.
    let rest = values.filter(|_| *name == STORED[1]);
    let value = rest.fold(value.as_bytes().to_vec(), |all, more| [&all, more.as_bytes()].join(&b','));
    if value.len() > LONGEST_VALUE {
        return Err(Problem::new(
            ProblemCode::InvalidHeader,
            format!("{name} is longer than {LONGEST_VALUE} bytes"),
        ));
    }
    match String::from_utf8(value) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Problem::new(ProblemCode::InvalidHeader, format!("{name} is not UTF-8"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_known_coding_in_any_case_is_taken_and_nothing_else() {
        use Coding::*;
        for (value, expected) in [
            ("gzip", Some(Gzip)),
            ("X-GZIP", Some(Gzip)),
            (" Zstd ", Some(Zstd)),
            ("IDENTITY", Some(Identity)),
            ("", Some(Identity)),
            ("br", None),
            ("deflate", None),
            ("gzip, zstd", None),
            ("gzip,", None),
        ] {
            assert_eq!(known_coding(value), expected, "{value:?}");
        }
    }
}
