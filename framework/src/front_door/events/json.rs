//! One CloudEvent as a JSON document (CloudEvents 1.0.2, JSON Event Format), made into a task where it lies.

use super::{
    super::{
        budget::Budget,
        intake::Intake,
        problem::{Problem, ProblemCode},
    },
    Entry, Refused, Task,
    attributes::{Attributes, LONGEST_VALUE, invalid},
    base64::{NotBase64, decode_in_place},
    escapes::unescape_in_place,
    members::{for_each, has_escapes},
};
use bytes::Bytes;
use partita_proto::v1::Envelope;
use std::{borrow::Cow, ops::Range, str::Utf8Error};

/// Attributes that are strings.
const TEXTS: [&str; 9] = [
    "specversion",
    "id",
    "source",
    "type",
    "datacontenttype",
    "dataschema",
    "subject",
    "time",
    "partitionkey",
];
/// The longest name of a member that is looked at, with its quotes.
const LONGEST_NAME: usize = 256;
const JSON: &str = "application/json";

/// The task that `document` writes down. Its memory becomes the payload's.
pub(super) fn task(mut document: Intake, base: &Envelope) -> Entry {
    let text = std::str::from_utf8(document.payload()).map_err(|error| malformed(not_utf8(error)))?;
    let Parsed { key, head, data } = parse(text, base)?;
    document.keep(data.place.clone(), &head);
    finish(key, head, document, &data)
}

/// The task that a part of a document writes down. Its payload is copied. An error: there is no memory for that.
pub(super) fn task_of_part(text: &str, base: &Envelope, budget: &Budget) -> Result<Entry, Problem> {
    let Parsed { key, head, data } = match parse(text, base) {
        Ok(parsed) => parsed,
        Err(refused) => return Ok(Err(refused)),
    };
    let bytes = &text.as_bytes()[data.place.clone()];
    let mut payload = Intake::exact(budget, &head, bytes.len() as u64)?;
    payload.push(bytes)?;
    Ok(finish(key, head, payload, &data))
}

fn finish(key: Bytes, head: Envelope, payload: Intake, data: &Data) -> Entry {
    match decoded(payload, data) {
        Ok(payload) => Ok(Box::new(Task { key, head, payload })),
        Err(problem) => Err(Box::new(Refused { id: Some(head.id), key: Some(key), problem, size: 0 })),
    }
}

struct Parsed {
    key: Bytes,
    head: Envelope,
    data: Data,
}

/// Where the payload is in the document, and what is to be done to it there.
struct Data {
    place: Range<usize>,
    escaped: bool,
    base64: bool,
}

const NO_DATA: Data = Data { place: 0..0, escaped: false, base64: false };

fn parse(text: &str, base: &Envelope) -> Result<Parsed, Box<Refused>> {
    let mut members = Members::default();
    for_each(text, |name, value| members.note(name, value)).map_err(malformed)?;
    let Members { mut attributes, data, wrong } = members;
    if let Some(problem) = wrong {
        return attributes.refused(None, problem);
    }
    let is_json = attributes.data_content_type().is_none_or(is_json);
    if attributes.data_content_type().is_none() && data.is_some() {
        attributes.set_data_content_type(JSON);
    }
    let data = match data.map_or(Ok(NO_DATA), |data| data.place(text, is_json)) {
        Ok(data) => data,
        Err(problem) => return attributes.refused(None, problem),
    };
    attributes.task(base).map(|(key, head)| Parsed { key, head, data })
}

/// Makes what stands in the document what it means.
fn decoded(mut payload: Intake, data: &Data) -> Result<Intake, Problem> {
    if data.escaped {
        let lone = |_| malformed("a \\u escape is half of a surrogate pair".into());
        payload.change(unescape_in_place).map_err(lone)?;
    }
    if data.base64 {
        payload.change(decode_in_place).map_err(not_base64)?;
    }
    Ok(payload)
}

/// What an event's members are, with what is first found wrong.
#[derive(Default)]
struct Members<'a> {
    attributes: Attributes,
    data: Option<Raw<'a>>,
    wrong: Option<Problem>,
}

/// The value of `data` or `data_base64`.
#[derive(Clone, Copy)]
struct Raw<'a> {
    value: &'a str,
    base64: bool,
}

impl Raw<'_> {
    fn is_null(&self) -> bool {
        self.value == "null"
    }

    /// `data` is its JSON text, or a string's bytes where its media type is not JSON.
    fn place(self, document: &str, is_json: bool) -> Result<Data, Problem> {
        let raw = self.value;
        let start = raw.as_ptr() as usize - document.as_ptr() as usize;
        let whole = start..start + raw.len();
        match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
            None if self.base64 => Err(invalid("data_base64 is not a string".into())),
            Some(inner) if self.base64 || !is_json => Ok(Data {
                place: whole.start + 1..whole.end - 1,
                escaped: has_escapes(inner),
                base64: self.base64,
            }),
            _ => Ok(Data { place: whole, ..NO_DATA }),
        }
    }
}

impl<'a> Members<'a> {
    /// Some writers set the one that they do not use to null; `data` alone may be null.
    fn take_data(&mut self, new: Raw<'a>) -> Result<(), Problem> {
        match self.data {
            _ if new.base64 && new.is_null() => {}
            Some(Raw { base64: true, .. }) if !new.base64 && new.is_null() => {}
            Some(data) if data.base64 == new.base64 || !data.is_null() => {
                return Err(invalid("an event has data or data_base64, once".into()));
            }
            _ => self.data = Some(new),
        }
        Ok(())
    }

    /// Takes a member in, or notes what is wrong with it.
    fn note(&mut self, name: &str, value: &'a str) {
        if let Err(problem) = name_of(name).and_then(|name| self.take(&name, value)) {
            self.wrong.get_or_insert(problem);
        }
    }

    fn take(&mut self, name: &str, value: &'a str) -> Result<(), Problem> {
        if let "data" | "data_base64" = name {
            return self.take_data(Raw { value, base64: name == "data_base64" });
        }
        match attribute(name, value)? {
            Some(value) => self.attributes.set(name, value),
            None => Ok(()),
        }
    }
}

/// A member's name.
fn name_of(raw: &str) -> Result<Cow<'_, str>, Problem> {
    if raw.len() > LONGEST_NAME {
        return Err(invalid(format!("an attribute's name is longer than {LONGEST_NAME} bytes")));
    }
    text_of(raw)
}

/// What a string that has been parsed says.
fn text_of(raw: &str) -> Result<Cow<'_, str>, Problem> {
    match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
        Some(plain) if !has_escapes(plain) => Ok(Cow::Borrowed(plain)),
        _ => serde_json::from_str(raw).map(Cow::Owned).map_err(|error| malformed(error.to_string())),
    }
}

/// A number that is an integer of 32 bits, however it is written: to JSON `7`, `7.0` and `70e-1` are the same.
fn integer(raw: &str) -> Option<i32> {
    let number = || raw.parse::<f64>().ok().filter(|number| number.fract() == 0.0);
    raw.parse().ok().or_else(|| number().map(|number| number as i64).and_then(|whole| whole.try_into().ok()))
}

/// An attribute's value in its canonical form; `None` where it is not set.
fn attribute(name: &str, raw: &str) -> Result<Option<String>, Problem> {
    if raw.len() > LONGEST_VALUE * 6 {
        return Err(invalid(format!("the attribute {name} is longer than {LONGEST_VALUE} bytes")));
    }
    match raw.as_bytes() {
        b"null" => Ok(None),
        [first, ..] if *first != b'"' && TEXTS.contains(&name) => {
            Err(invalid(format!("{name} is not a string")))
        }
        b"true" | b"false" => Ok(Some(raw.into())),
        [b'"', ..] => text_of(raw).map(|text| Some(text.into_owned())),
        [b'-' | b'0'..=b'9', ..] if let Some(integer) = integer(raw) => Ok(Some(integer.to_string())),
        _ => Err(invalid(format!(
            "the attribute {name} is neither a string, nor a boolean, nor an integer of 32 bits; payloads go into data"
        ))),
    }
}

/// Whether a media type is JSON's: `application/json`, `text/json`, `…+json`.
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

fn malformed(why: String) -> Problem {
    Problem::new(ProblemCode::InvalidDocument, format!("the event is not a JSON document: {why}"))
}

/// What to say of a document that is none.
pub(super) fn not_utf8(error: Utf8Error) -> String {
    format!("it is not UTF-8: {error}")
}

fn not_base64(_: NotBase64) -> Problem {
    invalid("data_base64 is not base64 (RFC 4648, the standard alphabet)".into())
}

#[cfg(test)]
mod tests {
    use super::super::super::budget::Budget;
    use super::*;
    use crate::memory::MemoryPool;

    fn read(document: &str) -> Entry {
        let budget = Budget::new(MemoryPool::new("intake", 8 << 20), 1 << 20);
        let mut intake = Intake::growing(&budget, &Envelope::default(), 1 << 20).unwrap();
        intake.push(document.as_bytes()).unwrap();
        task(intake, &Envelope::default())
    }

    fn payload_of(members: &str) -> (Option<String>, Vec<u8>) {
        let entry = read(&event(members));
        let Task { head, payload, .. } = *entry.unwrap_or_else(|refused| panic!("{members}: {refused:?}"));
        (head.content_type, payload.payload().to_vec())
    }

    fn event(members: &str) -> String {
        format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"k"{members}}}"#)
    }

    #[test]
    fn data_is_json_text_a_strings_bytes_or_decoded() {
        let json = Some(JSON.to_owned());
        for (members, media_type, payload) in [
            ("", None, ""),
            (r#","data":{"a": [1, "\u00e9"]}"#, json.clone(), r#"{"a": [1, "\u00e9"]}"#),
            (r#","data":"text""#, json.clone(), r#""text""#),
            (r#","data":null"#, json.clone(), "null"),
            (r#","data":"li\nne","datacontenttype":"text/plain""#, Some("text/plain".into()), "li\nne"),
            (
                r#","datacontenttype":"text/xml; charset=utf-8","data":"<é/>""#,
                Some("text/xml; charset=utf-8".into()),
                "<é/>",
            ),
            (
                r#","datacontenttype":"application/Vnd.X+JSON","data":"x""#,
                Some("application/Vnd.X+JSON".into()),
                r#""x""#,
            ),
            (r#","datacontenttype":"text/plain","data":{"a":1}"#, Some("text/plain".into()), r#"{"a":1}"#),
            (r#","data_base64":"aGVsbG8=""#, json.clone(), "hello"),
            (r#","data_base64":"Pz8\/","datacontenttype":"image/png""#, Some("image/png".into()), "???"),
            (r#","data_base64":"""#, json.clone(), ""),
            (r#","data":null,"data_base64":"aGVsbG8=""#, json.clone(), "hello"),
            (r#","data_base64":null,"data":1"#, json, "1"),
            (r#","data_base64":null"#, None, ""),
        ] {
            assert_eq!(payload_of(members), (media_type, payload.as_bytes().to_vec()), "{members}");
        }
    }

    #[test]
    fn attributes_are_strings_booleans_and_integers_and_null_is_none() {
        let entry = read(&event(r#","a":true,"b":-7,"c":null,"d":"\u00e9""#));
        let headers: Vec<_> =
            entry.unwrap().head.headers.into_iter().map(|header| (header.name, header.value)).collect();
        let kept = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(kept("ce-a"), Some("true"));
        assert_eq!(kept("ce-b"), Some("-7"));
        assert_eq!(kept("ce-c"), None);
        assert_eq!(kept("ce-d"), Some("é"));
    }

    #[test]
    fn what_is_no_event_is_refused_by_name_and_known_by_its_id() {
        use ProblemCode::*;
        for (document, code) in [
            ("", InvalidDocument),
            ("[]", InvalidDocument),
            ("{", InvalidDocument),
            (&event(",")[..], InvalidDocument),
            (&event("} {"), InvalidDocument),
            (&format!("\"{}\"", "\u{7f}".repeat(1000)), InvalidDocument),
            (&event(&format!(",\"data\":{}1{}", "[".repeat(200), "]".repeat(200))), InvalidDocument),
            (&event(r#","datacontenttype":"text/plain","data":"\ud800""#), InvalidDocument),
        ] {
            assert_eq!(read(document).unwrap_err().problem.code, code, "{document}");
        }
        for members in [
            r#","a":1.5"#,
            r#","a":{}"#,
            r#","a":4294967296"#,
            r#","data":1,"data_base64":"aaaa""#,
            r#","data":1,"data":2"#,
            r#","data":null,"data":2"#,
            r#","a":1,"a":1"#,
            r#","source":"/twice""#,
            r#","data_base64":1"#,
            r#","data_base64":"*""#,
            r#","data_base64":"a\u002a""#,
            r#","Data":1"#,
            r#","time":1"#,
            &format!(",\"{}\":1", "x".repeat(300)),
            &format!(",\"{}\":1", "\\u0061".repeat(300)),
            &(0..70).map(|n| format!(",\"a{n}\":1")).collect::<String>(),
        ] {
            let refused = read(&event(members)).unwrap_err();
            assert_eq!(refused.problem.code, InvalidEvent, "{members}");
            assert_eq!(
                (refused.id.as_deref(), refused.key.as_deref()),
                (Some("1"), Some(&b"k"[..])),
                "{members}"
            );
        }
    }
}
