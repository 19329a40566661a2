//! `GET /openapi.json`: what the front door answers, for machines (OpenAPI 3.1). The errors are the table's of `problem`.

use super::{
    door::Door,
    events::MEDIA_TYPES,
    meter::OPENAPI_ROUTE,
    problem::ProblemCode,
    request_id::{RequestId, X_REQUEST_ID},
};
use actix_web::{
    HttpRequest, HttpResponse,
    body::BoxBody,
    http::{
        StatusCode,
        header::{CONTENT_TYPE, HeaderValue},
    },
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::LazyLock};

/// Where it is.
pub(super) const PATH: &str = "/openapi.json";

static PAGE: LazyLock<Vec<u8>> = LazyLock::new(|| serde_json::to_vec(&document()).unwrap_or_default());

/// Serves it: to everybody, since it says nothing of this process.
pub(super) fn get(door: &Door, request: &HttpRequest) -> HttpResponse {
    let id = RequestId::of(request.headers());
    door.meter.found(OPENAPI_ROUTE, request.method());
    let mut response = HttpResponse::new(StatusCode::OK);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(X_REQUEST_ID.clone(), id.header());
    response.set_body(BoxBody::new(PAGE.as_slice()))
}

/// The description itself.
fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Partita front door",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Tasks in, stored durably before they are answered, and handled in the order of their key.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "paths": {
            "/v1/tasks/{key}": { "post": post_task(), "get": receipt() },
            "/v1/tasks": { "post": post_events() },
            PATH: { "get": {
                "operationId": "getOpenApi",
                "summary": "This description",
                "security": [],
                "responses": { "200": { "description": "OpenAPI 3.1", "content": { "application/json": { "schema": { "type": "object" } } } } },
            } },
        },
        "components": { "schemas": schemas(), "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } } },
        // A front door without tokens asks for none.
        "security": [{}, { "token": [] }],
    })
}

/// How a request that brings tasks is refused, whatever they come in.
const OF_ANY_BODY: &[ProblemCode] = &[
    ProblemCode::InvalidKey,
    ProblemCode::InvalidHeader,
    ProblemCode::IncompleteBody,
    ProblemCode::InvalidEncoding,
    ProblemCode::TruncatedEncoding,
    ProblemCode::TrailingBytes,
    ProblemCode::WindowTooLarge,
    ProblemCode::Unauthorized,
    ProblemCode::Forbidden,
    ProblemCode::HeadTimeout,
    ProblemCode::BodyTimeout,
    ProblemCode::IdempotencyKeyInFlight,
    ProblemCode::IdempotencyKeyReused,
    ProblemCode::TooLarge,
    ProblemCode::UnsupportedEncoding,
    ProblemCode::RateLimited,
];

fn post_task() -> Value {
    let refused = [OF_ANY_BODY, &[ProblemCode::NotFound]].concat();
    json!({
        "operationId": "postTask",
        "summary": "Store a task",
        "description": "The body is the payload, whatever it is; with Content-Encoding gzip or zstd, what is in it. 202 means that it is durable.",
        "parameters": [
            { "name": "key", "in": "path", "required": true, "description": "Tasks of one key are handled in order. 1 to 256 bytes of UTF-8; a slash is written %2F.",
              "schema": { "type": "string", "minLength": 1 } },
            header("Idempotency-Key", "Names the request, so that it may be sent again.", json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" })),
            header("Partita-Type", "The name of the payload's type.", json!({ "type": "string", "maxLength": 512 })),
            traceparent(), tracestate(), request_id(),
        ],
        "requestBody": { "required": false, "content": { "*/*": {} } },
        "responses": responses(answer("202", "Stored", "Receipt"), &refused, true),
    })
}

fn post_events() -> Value {
    let refused = [
        OF_ANY_BODY,
        &[
            ProblemCode::InvalidDocument,
            ProblemCode::InvalidEvent,
            ProblemCode::NoKey,
            ProblemCode::BatchTooLarge,
            ProblemCode::UnsupportedMediaType,
        ],
    ]
    .concat();
    let of = |name: &str| json!({ "schema": { "$ref": format!("#/components/schemas/{name}") } });
    let raw = json!({ "schema": { "type": "string" } });
    let mut content: Map<String, Value> = Map::new();
    for media_type in MEDIA_TYPES.split(',').map(str::trim) {
        let schema = match media_type {
            "application/cloudevents+json" => of("CloudEvent"),
            "application/cloudevents-batch+json" => {
                json!({ "schema": { "type": "array", "description": "Of CloudEvents: one that is wrong has a result that says so."} })
            }
            _ => raw.clone(),
        };
        content.insert(media_type.to_owned(), schema);
    }
    let mut of_many = receipt_headers();
    of_many["Preference-Applied"] =
        json!({ "description": "What of Prefer was heard", "schema": { "type": "string" } });
    let accepted = json!({ "202": {
        "description": "Of one event a receipt; of many their results, one for each, in order",
        "headers": of_many,
        "content": {
            "application/json": { "schema": { "anyOf": [
                { "$ref": "#/components/schemas/Receipt" }, { "$ref": "#/components/schemas/Results" },
            ] } },
            "application/x-ndjson": { "schema": { "type": "string" } },
        },
    } });
    json!({
        "operationId": "postEvents",
        "summary": "Store events",
        "description": "CloudEvents 1.0 in binary (`ce-` headers, any body), structured or batch mode; a CloudEvent a line; or a partita.v1.TaskBatch. Content-Encoding gzip or zstd applies to the whole body.",
        "parameters": [
            header("Idempotency-Key", "Names the request, where its events have no source and id.", json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" })),
            attribute("specversion", "Binary mode: the version of CloudEvents. Where it is there, and the media type is none of CloudEvents', the body is the data."),
            attribute("id", "Binary mode: the event's id."),
            attribute("source", "Binary mode: the event's source."),
            attribute("type", "Binary mode: the event's type."),
            attribute("partitionkey", "Binary mode: the key; else it is the subject."),
            attribute("subject", "Binary mode: the subject."),
            header("Prefer", "return=minimal: of many, only what was not accepted is answered, and the counts.", json!({ "type": "string" })),
            traceparent(), tracestate(), request_id(),
        ],
        "requestBody": { "required": true, "content": content },
        "responses": responses(accepted, &refused, true),
    })
}

fn receipt() -> Value {
    use ProblemCode as Code;
    json!({
        "operationId": "getTask",
        "summary": "What became of a task",
        "parameters": [
            { "name": "key", "in": "path", "required": true, "description": "Of the receipt: partition-offset.",
              "schema": { "type": "string", "pattern": "^(0|[1-9][0-9]{0,8})-(0|[1-9][0-9]{0,17})$" } },
            { "name": "wait", "in": "query", "required": false, "description": "Answer when it is done, parked, rejected or dropped.", "schema": { "type": "string", "enum": ["done"] } },
            { "name": "timeout", "in": "query", "required": false, "description": "With wait: how long at most, as 30s; up to 5 minutes.", "schema": { "type": "string", "pattern": "^([0-9]|[1-9][0-9]|[12][0-9]{2}|300)s?$|^[0-9]{1,5}ms$" } },
        ],
        "responses": responses(
            answer("200", "Its state now", "Task"),
            &[Code::InvalidQuery, Code::Unauthorized, Code::Forbidden, Code::NotFound, Code::MethodNotAllowed, Code::LogAway, Code::OutOfMemoryBudget],
            false,
        ),
    })
}

/// An attribute of an event in binary mode; in any other nobody looks at it.
fn attribute(name: &str, description: &str) -> Value {
    header(&format!("ce-{name}"), description, json!({ "type": "string" }))
}

fn traceparent() -> Value {
    header("traceparent", "The W3C trace context.", json!({ "type": "string", "maxLength": 512 }))
}

fn tracestate() -> Value {
    header("tracestate", "The W3C trace context.", json!({ "type": "string", "maxLength": 512 }))
}

fn request_id() -> Value {
    header("X-Request-Id", "Echoed, or made.", json!({ "type": "string" }))
}

fn header(name: &str, description: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema })
}

fn answer_headers() -> Value {
    json!({ "X-Request-Id": { "description": "The request's id", "schema": { "type": "string" } } })
}

/// Those of a task that was stored.
fn receipt_headers() -> Value {
    let mut headers = answer_headers();
    let text = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    headers["Idempotent-Replayed"] = text("true: it was stored before, and this is its receipt");
    headers["RateLimit"] = text("What is left of the token's rates");
    headers["RateLimit-Policy"] = text("The token's rates");
    headers
}

fn answer(status: &str, description: &str, schema: &str) -> Value {
    let headers = if schema == "Receipt" { receipt_headers() } else { answer_headers() };
    json!({ status: {
        "description": description,
        "headers": headers,
        "content": { "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } },
    } })
}

/// The answers of an operation: the good one, and the problems by their status. `stores`: with those of storing.
fn responses(mut all: Value, refused: &[ProblemCode], stores: bool) -> Value {
    let storing = ProblemCode::ALL
        .iter()
        .filter(|code| stores && code.status() >= 503 && **code != ProblemCode::EarlierFailed);
    let mut by_status: BTreeMap<u16, Vec<&ProblemCode>> = BTreeMap::new();
    for code in refused.iter().chain(storing) {
        by_status.entry(code.status()).or_default().push(code);
    }
    let Some(answers) = all.as_object_mut() else { return all };
    for (status, codes) in by_status {
        let titles: Vec<_> =
            codes.iter().map(|code| format!("`{}`: {}", code.code(), code.title())).collect();
        let names: Vec<_> = codes.iter().map(|code| code.code()).collect();
        let mut headers = answer_headers();
        if codes.iter().any(|code| code.retry_after().is_some()) {
            headers["Retry-After"] =
                json!({ "description": "Seconds", "schema": { "type": "integer", "minimum": 1 } });
        }
        let told = match status {
            401 => &[("WWW-Authenticate", "The scheme: Bearer")][..],
            405 => &[("Allow", "The methods")],
            415 => &[("Accept", "The media types"), ("Accept-Encoding", "The codings")],
            429 => &[
                ("RateLimit", "What is left of the token's rates"),
                ("RateLimit-Policy", "The token's rates"),
            ],
            _ => &[],
        };
        for (name, description) in told {
            headers[*name] = json!({ "description": description, "schema": { "type": "string" } });
        }
        let schema = json!({ "allOf": [
            { "$ref": "#/components/schemas/Problem" },
            { "type": "object", "properties": { "code": { "type": "string", "enum": names }, "status": { "type": "integer", "enum": [status] } } },
        ] });
        let content = json!({ "application/problem+json": { "schema": schema } });
        answers.insert(
            status.to_string(),
            json!({ "description": titles.join(". "), "headers": headers, "content": content }),
        );
    }
    all
}

fn schemas() -> Value {
    let place = json!({ "type": "integer", "minimum": 0 });
    let text = json!({ "type": "string" });
    let receipt = json!({ "id": text, "topic": text, "partition": place, "offset": place });
    let all = ["id", "topic", "partition", "offset"];
    json!({
        "Receipt": { "type": "object", "required": all, "properties": receipt },
        "Results": { "type": "object", "required": ["results", "accepted", "retry", "rejected"], "properties": {
            "results": { "type": "array", "items": { "$ref": "#/components/schemas/Result" } },
            "accepted": place, "retry": place, "rejected": place,
        } },
        "Result": { "type": "object", "required": ["status", "id"], "properties": {
            "status": { "type": "string", "enum": ["accepted", "retry", "rejected"] },
            "index": { "type": "integer", "minimum": 0, "description": "With Prefer: return=minimal, the entry's number from 0" },
            "id": { "type": ["string", "null"] }, "topic": text, "partition": place, "offset": place,
            "code": text, "detail": text,
        } },
        "Task": { "type": "object", "required": ["id", "topic", "partition", "offset", "state"], "properties": {
            "id": text, "topic": text, "partition": place, "offset": place,
            "state": { "type": "string", "enum": ["queued", "running", "done", "parked", "rejected", "dropped"] },
            "since": { "type": ["string", "null"], "format": "date-time" }, "attempt": place,
            "cause": text, "reason": text, "attempts": place, "at": { "type": "string", "format": "date-time" },
        } },
        "CloudEvent": {
            "type": "object",
            "description": "CloudEvents 1.0. The key is partitionkey, or, without that, subject. Instead of data it may have data_base64; and any other attribute.",
            "propertyNames": { "type": "string", "pattern": "^[a-z0-9]+$" },
            "additionalProperties": { "type": ["string", "boolean", "integer", "null"], "minimum": -2147483648_i64, "maximum": 2147483647 },
            "required": ["specversion", "id", "source", "type"],
            "anyOf": [
                { "required": ["partitionkey"], "properties": { "partitionkey": { "type": "string" } } },
                { "required": ["subject"], "properties": { "subject": { "type": "string" } } },
            ],
            "properties": {
                "specversion": { "type": "string", "enum": ["1.0"] },
                "id": { "type": "string", "minLength": 1 },
                "source": { "type": "string", "minLength": 1 },
                "type": { "type": "string", "minLength": 1 },
                "partitionkey": { "type": ["string", "null"], "minLength": 1 },
                "subject": { "type": ["string", "null"], "minLength": 1 },
                "datacontenttype": { "type": ["string", "null"], "minLength": 1 },
                "time": { "type": ["string", "null"], "description": "RFC 3339; kept as it is." },
                "data": { "type": ["object", "array", "string", "number", "boolean", "null"] },
            },
        },
        "Problem": { "type": "object", "required": ["type", "title", "status", "detail", "code", "request_id"], "properties": {
            "type": text, "title": text, "status": { "type": "integer" }, "detail": text,
            "code": { "type": "string", "enum": ProblemCode::ALL.iter().map(|code| code.code()).collect::<Vec<_>>() },
            "request_id": text,
        } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As utoipa knows OpenAPI.
    #[test]
    fn the_page_is_what_others_take_for_a_description() {
        let page: utoipa::openapi::OpenApi = serde_json::from_slice(&PAGE).unwrap();
        let paths: Vec<_> = page.paths.paths.keys().map(String::as_str).collect();
        assert_eq!(paths, ["/openapi.json", "/v1/tasks", "/v1/tasks/{key}"]);
        let post = page.paths.paths["/v1/tasks"].post.as_ref().unwrap();
        assert_eq!(post.operation_id.as_deref(), Some("postEvents"));
        assert!(page.components.unwrap().schemas.contains_key("Problem"));
    }

    #[test]
    fn every_code_is_described_and_the_page_is_the_document() {
        let page: Value = serde_json::from_slice(&PAGE).unwrap();
        assert_eq!(page["openapi"], "3.1.0");
        let text = page["paths"].to_string();
        for code in ProblemCode::ALL.iter().filter(|code| **code != ProblemCode::EarlierFailed) {
            assert!(text.contains(&format!("\"{}\"", code.code())), "{code:?}");
        }
    }
}
