//! Which of the ways in a body on `/v1/tasks` takes, by its media type.

use super::super::problem::{Problem, ProblemCode};
use actix_web::http::header::{CONTENT_TYPE, HeaderMap};

/// A way to write tasks into a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// One CloudEvent: attributes in `ce-` headers, the data is the body.
    Binary,
    /// One CloudEvent as a JSON document.
    Structured,
    /// Many, as a JSON array.
    Batch,
    /// Many, one JSON document a line.
    Lines,
    /// A `partita.v1.TaskBatch`.
    Protobuf,
}

/// The media types, as an answer to one that is not among them.
pub(in crate::front_door) const MEDIA_TYPES: &str = "application/cloudevents+json, application/cloudevents-batch+json, \
                                      application/x-ndjson, application/x-protobuf";

impl Format {
    /// The format of a request with these headers.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let value = headers.get(CONTENT_TYPE).map_or(Ok(""), |value| value.to_str());
        let media_type = value.unwrap_or("?").split(';').next().unwrap_or_default().trim();
        let binary = headers.contains_key("ce-specversion");
        match media_type.to_ascii_lowercase().as_str() {
            "application/cloudevents+json" => Ok(Self::Structured),
            "application/cloudevents-batch+json" => Ok(Self::Batch),
            other if other.starts_with("application/cloudevents") => Err(unsupported(media_type)),
            // The media type of a binary event is its data's.
            _ if binary => Ok(Self::Binary),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Self::Lines),
            "application/x-protobuf" | "application/protobuf" => Ok(Self::Protobuf),
            _ => Err(unsupported(media_type)),
        }
    }
}

fn unsupported(media_type: &str) -> Problem {
    let said = if media_type.is_empty() { "no Content-Type".to_owned() } else { format!("{media_type:?}") };
    Problem::new(
        ProblemCode::UnsupportedMediaType,
        format!(
            "{said} is not taken here: send a CloudEvent (ce- headers, or one of {MEDIA_TYPES}), or any payload to /v1/tasks/{{key}}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    #[test]
    fn the_media_type_decides_and_ce_headers_make_any_other_a_binary_event() {
        use Format::*;
        for (media_type, binary, expected) in [
            ("application/cloudevents+json", false, Some(Structured)),
            ("Application/CloudEvents+JSON; charset=utf-8", true, Some(Structured)),
            ("application/cloudevents-batch+json", true, Some(Batch)),
            ("application/cloudevents+avro", true, None),
            ("application/x-ndjson", false, Some(Lines)),
            ("application/x-ndjson", true, Some(Binary)),
            ("application/x-protobuf", false, Some(Protobuf)),
            ("application/json", true, Some(Binary)),
            ("application/json", false, None),
            ("", true, Some(Binary)),
            ("", false, None),
        ] {
            let mut headers = HeaderMap::new();
            if !media_type.is_empty() {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            }
            if binary {
                headers.insert("ce-specversion".parse().unwrap(), HeaderValue::from_static("1.0"));
            }
            let found = Format::of(&headers);
            assert_eq!(found.clone().ok(), expected, "{media_type:?} {binary}");
            if let Err(problem) = found {
                assert_eq!(problem.code, ProblemCode::UnsupportedMediaType);
            }
        }
    }
}
