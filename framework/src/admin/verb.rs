//! What all verbs have in common: who may ask, the line that stays in the log, and how one is refused.

use super::{AdminSources, routes::problem};
use crate::OperationError;
use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
};
use bytes::Bytes;
use serde_json::json;
use std::fmt;
use subtle::ConstantTimeEq;

/// The body of a request, or why it could not be read.
pub(super) type Body = Result<Bytes, actix_web::Error>;

/// The body of a verb. It has to say that it is JSON: a page in an operator's browser cannot say so and be let through.
pub(super) fn json_of(request: &HttpRequest, body: Body) -> Result<Bytes, Refusal> {
    let sent = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if sent.split(';').next().map(str::trim) != Some("application/json") {
        return Err(Refusal {
            status: 415,
            code: "unsupported_media_type",
            title: "This is not JSON",
            detail: "send the verb as application/json".into(),
        });
    }
    body.map_err(|error| match error.as_response_error().status_code().as_u16() {
        413 => Refusal {
            status: 413,
            code: "too_large",
            title: "This is too large for a verb",
            detail: error.to_string(),
        },
        _ => bad_request(error.to_string()),
    })
}

pub(super) fn authorize(sources: &AdminSources, request: &HttpRequest) -> Result<(), Refusal> {
    let Some(token) = &sources.token else { return Ok(()) };
    let given = request.headers().get(AUTHORIZATION);
    let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let (status, code, detail) = match given {
        Some(given) if bool::from(given.ct_eq(token.as_bytes())) => return Ok(()),
        Some(_) => (403, "forbidden", "this is not the admin token"),
        None => (401, "unauthorized", "send the admin token as Authorization: Bearer"),
    };
    audit(request, "refused", "", code);
    Err(Refusal { status, code, title: "This needs the admin token", detail: detail.into() })
}

pub(super) fn audit(request: &HttpRequest, verb: &str, what: &str, result: &str) {
    let from = request.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
    let path = request.path();
    tracing::info!(target: "partita::audit", verb, what, result, from, path, "an operator's verb");
}

pub(super) fn bad_request(detail: String) -> Refusal {
    Refusal { status: 400, code: "bad_request", title: "This request cannot be read", detail }
}

/// A request that gets problem details.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) title: &'static str,
    pub(super) detail: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl ResponseError for Refusal {
    fn error_response(&self) -> HttpResponse {
        let mut response = problem(self.status, self.code, self.title, &self.detail, json!({}));
        if self.status == 401 {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<OperationError> for Refusal {
    fn from(error: OperationError) -> Self {
        let (status, code, title) = match error {
            OperationError::NotOwned(_) => (409, "not_owned", "Another worker owns this partition"),
            OperationError::NoPartition(..) => (404, "no_partition", "There is no such partition"),
            OperationError::NotReady(_) => (503, "not_ready", "What is parked is not known yet"),
            OperationError::Read(_) => (503, "log_unavailable", "The log cannot be read now"),
            OperationError::OutOfRange { .. } => (400, "out_of_range", "The log has no such offset"),
            OperationError::NotStored(_) => (504, "not_yet", "Not stored yet"),
            OperationError::TakenAway(_) => (409, "taken_away", "The partition was taken away meanwhile"),
        };
        Self { status, code, title, detail: error.to_string() }
    }
}
