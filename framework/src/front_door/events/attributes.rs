//! A CloudEvent's attributes, wherever they were written, and what they make of a task (CloudEvents 1.0.2, "Context
//! Attributes").

use super::{
    super::{
        key,
        problem::{Problem, ProblemCode},
    },
    Refused,
};
use bytes::Bytes;
use partita_proto::v1::{Envelope, Header};

/// The longest value of one attribute, in bytes.
pub(super) const LONGEST_VALUE: usize = 8 << 10;
/// The longest id, in bytes: it is repeated in the answer.
pub(super) const LONGEST_ID: usize = 1 << 10;
/// The most attributes of one event.
const MOST: usize = 64;
/// What all names and values of one event may have together, in bytes.
const LARGEST: usize = 32 << 10;

/// What attributes are called where they travel as headers.
pub(super) const PREFIX: &str = "ce-";

/// Extensions that carry the W3C trace context (CloudEvents, "Distributed Tracing Extension").
pub(super) const TRACE: [&str; 2] = ["traceparent", "tracestate"];

/// The attributes of one event, as far as they were read.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    id: Option<String>,
    r#type: Option<String>,
    data_content_type: Option<String>,
    has_version: bool,
    partition_key: Option<String>,
    subject: Option<String>,
    has_source: bool,
    headers: Vec<Header>,
    size: usize,
}

impl Attributes {
    /// Takes an attribute. `value` is its text in its canonical form.
    pub(super) fn set(&mut self, name: &str, value: String) -> Result<(), Problem> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
            return Err(invalid(format!(
                "the attribute name {:?} has other characters than a-z and 0-9",
                shortened(name)
            )));
        }
        if value.len() > LONGEST_VALUE {
            return Err(invalid(format!("the attribute {name} is longer than {LONGEST_VALUE} bytes")));
        }
        if name == "id" && value.len() > LONGEST_ID {
            return Err(invalid(format!("id is longer than {LONGEST_ID} bytes")));
        }
        if self.headers.len() >= MOST {
            return Err(invalid(format!("the event has more than {MOST} attributes")));
        }
        self.size += name.len() + value.len();
        if self.size > LARGEST {
            return Err(invalid(format!("the attributes have more than {LARGEST} bytes together")));
        }
        if self.has(name) {
            return Err(invalid(format!("the event has {name} twice")));
        }
        match name {
            "specversion" if value == "1.0" => self.has_version = true,
            "specversion" => {
                return Err(invalid(format!(
                    "specversion is {:?}; this server takes CloudEvents 1.0",
                    shortened(&value)
                )));
            }
            "id" | "source" | "type" | "subject" | "partitionkey" | "datacontenttype" if value.is_empty() => {
                return Err(invalid(format!("{name} is empty")));
            }
            "id" => self.id = Some(value),
            "type" => self.r#type = Some(value),
            "datacontenttype" => self.data_content_type = Some(value),
            _ => self.keep(name, value),
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        match name {
            "specversion" => self.has_version,
            "id" => self.id.is_some(),
            "type" => self.r#type.is_some(),
            "datacontenttype" => self.data_content_type.is_some(),
            _ => self
                .headers
                .iter()
                .any(|header| header.name.strip_prefix(PREFIX).unwrap_or(&header.name) == name),
        }
    }

    fn keep(&mut self, name: &str, value: String) {
        match name {
            "partitionkey" => self.partition_key = Some(value.clone()),
            "subject" => self.subject = Some(value.clone()),
            "source" => self.has_source = true,
            _ => {}
        }
        let prefix = if TRACE.contains(&name) { "" } else { PREFIX };
        self.headers.push(Header { name: [prefix, name].concat(), value });
    }

    /// The media type of the data, as it is stated.
    pub(super) fn data_content_type(&self) -> Option<&str> {
        self.data_content_type.as_deref()
    }

    pub(super) fn set_data_content_type(&mut self, media_type: &str) {
        self.data_content_type = Some(media_type.to_owned());
    }

    /// The task's key and the envelope that it begins with; `base` has what the request says of all its tasks.
    pub(super) fn task(mut self, base: &Envelope) -> Result<(Bytes, Envelope), Box<Refused>> {
        let key = match self.partition_key.take().or(self.subject.take()) {
            Some(key) => key::checked(key),
            None => Err(Problem::new(
                ProblemCode::NoKey,
                "the event has neither partitionkey nor subject: one of them is the key in whose order it is handled",
            )),
        };
        let missing = [
            (self.has_version, "specversion"),
            (self.id.is_some(), "id"),
            (self.has_source, "source"),
            (self.r#type.is_some(), "type"),
        ];
        let missing = missing.iter().find(|(there, _)| !there).map(|(_, name)| *name);
        match (missing, key) {
            (None, Ok(key)) => Ok((key, self.envelope(base))),
            (Some(name), key) => {
                self.refused(key.ok(), invalid(format!("the event has no {name}; it is required")))
            }
            (None, Err(problem)) => self.refused(None, problem),
        }
    }

    /// What is known of an event that is refused.
    pub(super) fn refused<T>(self, key: Option<Bytes>, problem: Problem) -> Result<T, Box<Refused>> {
        let of_attributes = || key::checked(self.partition_key.or(self.subject)?).ok();
        Err(Box::new(Refused { id: self.id, key: key.or_else(of_attributes), problem, size: 0 }))
    }

    fn envelope(self, base: &Envelope) -> Envelope {
        let mut headers = self.headers;
        // An event's own trace context is closer to its task than the request's.
        let own_trace = headers.iter().any(|header| TRACE.contains(&header.name.as_str()));
        if !own_trace {
            headers.extend_from_slice(&base.headers);
        }
        Envelope {
            id: self.id.unwrap_or_default(),
            r#type: self.r#type,
            content_type: self.data_content_type,
            headers,
            ..base.clone()
        }
    }
}

/// The refusal of an event that is not one.
pub(super) fn invalid(why: String) -> Problem {
    Problem::new(ProblemCode::InvalidEvent, why)
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: [(&str, &str); 5] =
        [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t"), ("subject", "the key")];

    fn read(attributes: &[(&str, &str)]) -> Result<(Bytes, Envelope), Problem> {
        let mut read = Attributes::default();
        for (name, value) in attributes {
            read.set(name, (*value).to_owned())?;
        }
        read.task(&Envelope::default()).map_err(|refused| refused.problem)
    }

    fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        WHOLE.iter().chain(more).copied().collect()
    }

    #[test]
    fn the_key_is_the_partition_key_and_else_the_subject() {
        assert_eq!(read(&WHOLE).unwrap().0, "the key");
        assert_eq!(read(&with(&[("partitionkey", "p")])).unwrap().0, "p");
        assert_eq!(read(&WHOLE[..4]).unwrap_err().code, ProblemCode::NoKey);
    }

    #[test]
    fn every_attribute_travels_with_the_task_under_its_own_name() {
        let (_, envelope) = read(&with(&[
            ("datacontenttype", "text/plain"),
            ("time", "2026-01-01T00:00:00Z"),
            ("traceparent", "00-1-1-00"),
            ("tenant", "a"),
        ]))
        .unwrap();
        assert_eq!(envelope.id, "1");
        assert_eq!(envelope.r#type.as_deref(), Some("t"));
        assert_eq!(envelope.content_type.as_deref(), Some("text/plain"));
        let headers: Vec<_> =
            envelope.headers.iter().map(|header| (header.name.as_str(), header.value.as_str())).collect();
        assert_eq!(
            headers,
            [
                ("ce-source", "/s"),
                ("ce-subject", "the key"),
                ("ce-time", "2026-01-01T00:00:00Z"),
                ("traceparent", "00-1-1-00"),
                ("ce-tenant", "a"),
            ]
        );
    }

    #[test]
    fn what_is_missing_or_not_allowed_is_named() {
        for (index, (name, _)) in WHOLE[..4].iter().enumerate() {
            let mut others = WHOLE.to_vec();
            others.remove(index);
            let problem = read(&others).unwrap_err();
            assert_eq!(problem.code, ProblemCode::InvalidEvent);
            assert!(problem.detail.contains(name), "{}", problem.detail);
        }
        for (name, value) in
            [("specversion", "0.3"), ("id", ""), ("Upper", "x"), ("with_line", "x"), ("", "x")]
        {
            let mut read = Attributes::default();
            assert_eq!(read.set(name, value.into()).unwrap_err().code, ProblemCode::InvalidEvent, "{name}");
        }
        let mut read = Attributes::default();
        assert!(read.set("a", "x".repeat(LONGEST_VALUE)).is_ok());
        assert!(read.set("b", "x".repeat(LONGEST_VALUE + 1)).is_err());
        assert!(["c", "d", "e", "f"].iter().any(|name| read.set(name, "x".repeat(LONGEST_VALUE)).is_err()));
    }

    #[test]
    fn a_refused_event_is_known_by_its_id_and_its_key() {
        let mut read = Attributes::default();
        read.set("id", "7".into()).unwrap();
        read.set("subject", "k".into()).unwrap();
        let refused = read.task(&Envelope::default()).unwrap_err();
        assert_eq!((refused.id.as_deref(), refused.key.as_deref()), (Some("7"), Some(&b"k"[..])));
    }
}
