//! What the admin listener answers.

use super::{AdminSources, parked, rewind};
use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{ALLOW, CACHE_CONTROL},
    web::{self, Data, ServiceConfig},
};
use serde_json::json;

const METRICS_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn configure(services: &mut ServiceConfig) {
    services
        .service(resource("/metrics").route(web::get().to(metrics)))
        .service(resource("/livez").route(web::get().to(livez)))
        .service(resource("/readyz").route(web::get().to(readyz)))
        .service(resource("/admin/v1/status").route(web::get().to(status)))
        .service(resource("/admin/v1/partitions").route(web::get().to(partitions)))
        .configure(parked::configure)
        .configure(rewind::configure);
}

pub(super) fn resource(path: &str) -> actix_web::Resource {
    web::resource(path).default_service(web::to(other_method))
}

async fn metrics(sources: Data<AdminSources>) -> HttpResponse {
    HttpResponse::Ok().content_type(METRICS_FORMAT).body((sources.metrics)())
}

/// Alive is whoever answers: a process that cannot reach its log is alive, and restarting it would not help.
async fn livez() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n")
}

async fn readyz(sources: Data<AdminSources>) -> HttpResponse {
    let reasons = (sources.not_ready)();
    if reasons.is_empty() {
        return HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(json!({ "ready": true }));
    }
    problem(503, "not_ready", "This process is not ready", &reasons.join("; "), json!({ "reasons": reasons }))
}

async fn status(sources: Data<AdminSources>) -> HttpResponse {
    HttpResponse::Ok().json((sources.status)())
}

async fn partitions(sources: Data<AdminSources>) -> HttpResponse {
    HttpResponse::Ok().json((sources.partitions)())
}

pub(super) async fn not_found(request: HttpRequest) -> HttpResponse {
    let detail = format!(
        "{} is not served here; /metrics, /livez, /readyz, /admin/v1/status, /admin/v1/partitions, /admin/v1/parked and /admin/v1/rewind are",
        request.path()
    );
    problem(404, "not_found", "There is nothing here", &detail, json!({}))
}

async fn other_method() -> HttpResponse {
    only("GET")
}

/// The answer to another method.
pub(super) fn only(method: &'static str) -> HttpResponse {
    let help = format!("use {method}");
    let mut response = problem(405, "method_not_allowed", "The method is not allowed here", &help, json!({}));
    response.headers_mut().insert(ALLOW, actix_web::http::header::HeaderValue::from_static(method));
    response
}

/// An error as problem details; `more` is added to it.
pub(super) fn problem(
    status: u16,
    code: &str,
    title: &str,
    detail: &str,
    more: serde_json::Value,
) -> HttpResponse {
    let mut body = json!({
        "type": format!("urn:partita:problem:{code}"),
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
    });
    if let (Some(body), serde_json::Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    let status = actix_web::http::StatusCode::from_u16(status)
        .unwrap_or(actix_web::http::StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status)
        .insert_header((CACHE_CONTROL, "no-store"))
        .content_type("application/problem+json")
        .body(body.to_string())
}
