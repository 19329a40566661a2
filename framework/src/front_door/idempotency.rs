//! Requests that may come again: the names they bear, and which of them are under way.

use super::{
    door::Door,
    problem::{Problem, ProblemCode},
};
use crate::log::IdempotencyKey;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use partita_proto::v1::Envelope;
use rapidhash::RapidHashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The request header (draft-ietf-httpapi-idempotency-key-header).
pub(super) static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// In the answer to a request whose task was stored before.
pub(super) static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// The longest value of the header, in bytes.
const LONGEST: usize = 255;
/// What a CloudEvent's source is stored as.
const SOURCE: &str = "ce-source";

/// The value of a request's Idempotency-Key: of a string (RFC 9651, 3.3.3) what is between its quotes, else as it is.
pub(super) fn header(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => sane(value).map(Some).ok_or_else(invalid),
        (Some(_), Some(_)) => Err(invalid()),
    }
}

fn sane(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?;
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_visible = inner.bytes().all(|b| b.is_ascii_graphic());
    ((1..=LONGEST).contains(&inner.len()) && is_visible).then_some(inner)
}

fn invalid() -> Problem {
    Problem::new(
        ProblemCode::InvalidHeader,
        format!("send one Idempotency-Key of 1 to {LONGEST} visible ASCII characters, or none"),
    )
}

/// What an event is known by: its source and id where it has both, else the request's header and its place among the request's tasks.
pub(super) fn of_event(key: &[u8], head: &Envelope, header: Option<(&str, u64)>) -> Option<IdempotencyKey> {
    let source = head.headers.iter().find(|header| header.name == SOURCE);
    match (source, header) {
        (Some(source), _) if !head.id.is_empty() => {
            Some(IdempotencyKey::of_event(key, &source.value, &head.id))
        }
        (_, Some((header, place))) => Some(IdempotencyKey::of_request(key, header, place)),
        _ => None,
    }
}

/// The idempotent requests that are under way in this process.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<RapidHashSet<IdempotencyKey>>);

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, RapidHashSet<IdempotencyKey>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a request, or refuses it where one with its name is under way.
    pub(super) fn begin(self: &Arc<Self>, key: Option<IdempotencyKey>) -> Result<Option<Begun>, Problem> {
        let Some(key) = key else { return Ok(None) };
        if self.lock().insert(key) {
            Ok(Some(Begun { key, under_way: self.clone() }))
        } else {
            Err(Problem::new(
                ProblemCode::IdempotencyKeyInFlight,
                "a request with this idempotency key is under way; try again to get its receipt",
            ))
        }
    }
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) key: IdempotencyKey,
    under_way: Arc<UnderWay>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.key);
    }
}

impl Door {
    /// Begins an idempotent request, if it is one.
    pub(super) fn begin(&self, key: Option<IdempotencyKey>) -> Result<Option<Begun>, Problem> {
        self.under_way.begin(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static [u8]]) -> Result<Option<String>, ProblemCode> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY.clone(), HeaderValue::from_bytes(value).unwrap());
        }
        header(&headers).map(|value| value.map(str::to_owned)).map_err(|problem| problem.code)
    }

    #[test]
    fn a_key_is_the_same_with_quotes_and_without() {
        assert_eq!(read(&[]), Ok(None));
        for value in [&b"8e03978e-40d5"[..], b"\"8e03978e-40d5\""] {
            assert_eq!(read(&[value]), Ok(Some("8e03978e-40d5".into())));
        }
        for value in [&[b'x'; 255][..], b"0", b"\"", b"{}"] {
            assert!(read(&[value]).is_ok(), "{value:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for values in [&[&b""[..]][..], &[b"\"\""], &[b"a b"], &[b"\xc3\xa9"], &[&[b'x'; 256]], &[b"a", b"a"]]
        {
            assert_eq!(read(values), Err(ProblemCode::InvalidHeader), "{values:?}");
        }
    }

    #[test]
    fn one_of_a_name_is_under_way_at_a_time() {
        let under_way = Arc::new(UnderWay::default());
        let key = Some(IdempotencyKey([7; 16]));
        let first = under_way.begin(key).unwrap();
        assert_eq!(under_way.begin(key).unwrap_err().code, ProblemCode::IdempotencyKeyInFlight);
        drop(first);
        assert!(under_way.begin(key).unwrap().is_some());
        assert!(under_way.begin(None).unwrap().is_none());
    }
}
