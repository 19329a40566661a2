//! Every refusal there is, as RFC 9457 problem details. The table below is the only place that knows a code's status,
//! title and Retry-After; the docs are held to it.

use actix_web::{
    HttpRequest, HttpResponse,
    body::BoxBody,
    http::{
        StatusCode,
        header::{
            ACCEPT, ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
            WWW_AUTHENTICATE,
        },
    },
};
use std::borrow::Cow;

use super::{
    events::MEDIA_TYPES,
    request_id::{RequestId, X_REQUEST_ID},
};

macro_rules! problems {
    ($($name:ident, $code:literal, $status:literal, $retry_after:expr, $title:literal;)*) => {
        /// The stable name of a refusal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ProblemCode {
            $(#[doc = $title] $name,)*
        }

        impl ProblemCode {
            /// Every code, in the order of the docs.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The `code` member, and the end of the `type` member.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code),* }
            }

            /// The HTTP status, as a number.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }

            /// The `title` member.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title),* }
            }

            /// The `Retry-After` header in seconds, where trying again can help.
            pub fn retry_after(self) -> Option<u32> {
                match self { $(Self::$name => $retry_after),* }
            }
        }
    };
}

problems! {
    InvalidKey, "invalid_key", 400, None, "The key is not 1 to 256 bytes of UTF-8";
    InvalidQuery, "invalid_query", 400, None, "The query is not understood";
    InvalidHeader, "invalid_header", 400, None, "A header is too long or not text";
    IncompleteBody, "incomplete_body", 400, None, "The body ended early or is malformed";
    InvalidEncoding, "invalid_encoding", 400, None, "The body is not what its Content-Encoding says";
    TruncatedEncoding, "truncated_encoding", 400, None, "The compressed body ends inside a member or frame";
    TrailingBytes, "trailing_bytes", 400, None, "Other bytes follow the compressed body";
    WindowTooLarge, "window_too_large", 400, None, "The zstd window is larger than 8 MiB";
    InvalidDocument, "invalid_document", 400, None, "The body is not the document that it says it is";
    InvalidEvent, "invalid_event", 400, None, "The event breaks a rule of CloudEvents";
    NoKey, "no_key", 400, None, "The event has no key";
    Unauthorized, "unauthorized", 401, None, "A token is needed";
    Forbidden, "forbidden", 403, None, "The token does not allow this";
    NotFound, "not_found", 404, None, "There is nothing here";
    MethodNotAllowed, "method_not_allowed", 405, None, "The method is not allowed here";
    IdempotencyKeyInFlight, "idempotency_key_in_flight", 409, Some(1), "A request with this idempotency key is under way";
    IdempotencyKeyReused, "idempotency_key_reused", 422, None, "The idempotency key belongs to another payload";
    HeadTimeout, "head_timeout", 408, None, "The head of the request comes too slowly";
    BodyTimeout, "body_timeout", 408, None, "The body stopped coming, or comes too slowly";
    TooLarge, "too_large", 413, None, "The task is larger than limits.max_task";
    BatchTooLarge, "batch_too_large", 413, None, "The document with the tasks is too large";
    UnsupportedMediaType, "unsupported_media_type", 415, None, "The media type is not one of a task's";
    UnsupportedEncoding, "unsupported_encoding", 415, None, "The Content-Encoding is not identity, gzip or zstd";
    RateLimited, "rate_limited", 429, Some(1), "The token's tasks or bytes a second are used up";
    OutOfMemoryBudget, "out_of_memory_budget", 503, Some(1), "The memory for requests is in use";
    PartitionStuck, "partition_stuck", 503, Some(30), "This key's partition waits for an operator";
    PartitionBehind, "partition_behind", 503, Some(10), "Too many tasks of this key's partition wait";
    LogAway, "log_away", 503, Some(5), "The log cannot be reached";
    LogFull, "log_full", 503, Some(30), "The log has no room";
    LogMismatch, "log_mismatch", 503, Some(30), "The log is not the one this process was started with";
    LogBusy, "log_busy", 503, Some(1), "Too much waits to be written";
    NotReady, "not_ready", 503, Some(1), "This process has just started";
    EarlierFailed, "earlier_failed", 503, Some(1), "An earlier task of this key was not accepted";
    Internal, "internal", 503, Some(5), "Something broke here";
    Draining, "draining", 503, Some(1), "This process is stopping";
    UnknownOutcome, "unknown_outcome", 504, None, "The task may or may not have been written";
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which.
    pub code: ProblemCode,
    /// What is wrong with this request and what to do about it, for people. Never a payload or a secret.
    pub detail: Cow<'static, str>,
    /// What else the answer says, or says in another way than the code does.
    more: Option<Box<More>>,
}

/// Headers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct More(Vec<(HeaderName, HeaderValue)>);

impl Problem {
    /// A refusal.
    pub fn new(code: ProblemCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), more: None }
    }

    /// 405, naming the methods that are allowed.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(ProblemCode::MethodNotAllowed, format!("use one of: {allow}"))
            .saying([(ALLOW, HeaderValue::from_static(allow))])
    }

    /// When trying again may help, in seconds.
    pub(super) fn after(self, seconds: u32) -> Self {
        self.saying([(RETRY_AFTER, seconds.into())])
    }

    /// With these headers in the answer.
    pub(super) fn with(self, headers: HeaderMap) -> Self {
        self.saying(headers)
    }

    fn saying(mut self, headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> Self {
        self.more.get_or_insert_default().0.extend(headers);
        self
    }

    /// The answer to `request`, whose body must have been read or be empty.
    pub fn respond(&self, request: &HttpRequest) -> HttpResponse {
        let id = RequestId::of(request.headers());
        let (response, body) = self.parts(&id);
        response.set_body(BoxBody::new(body))
    }

    /// The answer without its body, and the body.
    pub(super) fn parts(&self, id: &RequestId) -> (HttpResponse, Vec<u8>) {
        let code = self.code;
        if code == ProblemCode::Internal {
            tracing::error!(request_id = id.as_str(), detail = %self.detail, "a request could not be served");
        }
        let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::new(status);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(X_REQUEST_ID.clone(), id.header());
        if let Some(seconds) = code.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        for (name, value) in self.more.iter().flat_map(|more| &more.0) {
            headers.insert(name.clone(), value.clone());
        }
        if code == ProblemCode::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"partita\""));
        }
        if code == ProblemCode::UnsupportedEncoding {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity, gzip, zstd"));
        }
        if code == ProblemCode::UnsupportedMediaType {
            headers.insert(ACCEPT, HeaderValue::from_static(MEDIA_TYPES));
        }
        let body = serde_json::json!({
            "type": format!("urn:partita:problem:{}", code.code()),
            "title": code.title(),
            "status": code.status(),
            "detail": self.detail,
            "code": code.code(),
            "request_id": id.as_str(),
        });
        (response, body.to_string().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_one_word_with_a_status_that_may_be_answered() {
        for (index, problem) in ProblemCode::ALL.iter().enumerate() {
            assert!(problem.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!((400..600).contains(&problem.status()), "{problem:?}");
            assert!(ProblemCode::ALL[..index].iter().all(|other| other.code() != problem.code()));
        }
    }

    #[test]
    fn exactly_what_may_be_tried_again_says_when() {
        for problem in ProblemCode::ALL {
            let later = matches!(problem.status(), 409 | 429 | 503);
            assert_eq!(problem.retry_after().is_some(), later, "{problem:?}");
        }
    }

    /// The reference has a section for each code and for nothing else.
    #[test]
    fn the_docs_say_of_every_code_what_to_do() {
        let docs = include_str!("../../../docs/http.md");
        for problem in ProblemCode::ALL {
            let after = problem.retry_after().map(|s| format!(", `Retry-After: {s}`")).unwrap_or_default();
            let section =
                format!("### `{}`\n\n**{}{after}.** {}. ", problem.code(), problem.status(), problem.title());
            assert!(docs.contains(&section), "docs/http.md lacks: {section}");
        }
        assert_eq!(docs.matches("\n### `").count(), ProblemCode::ALL.len());
    }
}
