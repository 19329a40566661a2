//! The reads' refusals, as problem details.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, http::header::ALLOW};
use std::borrow::Cow;

/// Why a read is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: Cow<'static, str>,
}

impl Problem {
    pub(super) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code: "not_found",
            title: "There is nothing here",
            detail: detail.into(),
        }
    }

    pub(super) fn invalid_query(detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "invalid_query",
            title: "The query is not understood",
            detail: detail.into(),
        }
    }

    pub(super) fn invalid_key(detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "invalid_key",
            title: "The key is not 1 to 256 bytes of UTF-8",
            detail: detail.into(),
        }
    }

    pub(super) fn method_not_allowed() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: "method_not_allowed",
            title: "The method is not allowed here",
            detail: "use GET or HEAD".into(),
        }
    }

    pub(super) fn storage(error: &object_store::Error) -> Self {
        tracing::error!(%error, "a recording cannot be read");
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "internal",
            title: "Something broke here",
            detail: "the recordings cannot be read; the process's log says why".into(),
        }
    }

    /// The answer.
    pub(super) fn respond(&self, request: &HttpRequest) -> HttpResponse {
        let sent = request.headers().get("x-request-id").and_then(|id| id.to_str().ok());
        let usable = |id: &&str| !id.is_empty() && id.len() <= 128;
        let id =
            sent.filter(usable).map_or_else(|| format!("{:032x}", rand::random::<u128>()), str::to_owned);
        let body = serde_json::json!({
            "type": format!("urn:partita:problem:{}", self.code),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "request_id": id,
        });
        let mut response = HttpResponse::build(self.status);
        response.content_type("application/problem+json").insert_header(("x-request-id", id));
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.insert_header((ALLOW, "GET, HEAD"));
        }
        response.body(body.to_string())
    }
}
