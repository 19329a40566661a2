//! The front door's metrics, with the handles of the common ones looked up once.

use super::problem::ProblemCode;
use crate::log::Receipt;
use crate::metrics::{
    BACKPRESSURE_ACTIVE, HTTP_REJECTED_TOTAL, HTTP_REQUEST_BODY_BYTES, HTTP_REQUEST_DURATION_SECONDS,
    HTTP_REQUESTS_IN_FLIGHT, HTTP_REQUESTS_TOTAL, TASKS_ACCEPTED_TOTAL, TASKS_REPEATED_TOTAL,
};
use actix_web::http::Method;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

/// The route label of the task route.
pub(super) const TASK_ROUTE: &str = "/v1/tasks/{key}";
/// The route label of the route that a task's state is asked at.
const RECEIPT_ROUTE: &str = "/v1/tasks/{id}";
/// The route label of the interface's description.
pub(super) const OPENAPI_ROUTE: &str = "/openapi.json";
/// The route label of everything that is no route.
pub(super) const NO_ROUTE: &str = "none";

/// The route label of the route whose tasks name their keys themselves.
pub(super) const EVENTS_ROUTE: &str = "/v1/tasks";

pub(super) struct Meter {
    /// `POST /v1/tasks/{key}`.
    pub(super) task: RouteMeter,
    /// `POST /v1/tasks`.
    pub(super) events: RouteMeter,
    /// `GET /v1/tasks/{partition}-{offset}`.
    pub(super) receipt: RouteMeter,
    accepted_tasks: Counter,
    repeated_tasks: Counter,
    body_bytes: Histogram,
    in_flight: Gauge,
    refusing: Refusing,
}

/// For each code that means backpressure, whether the last task that met it was refused.
type Refusing = Vec<(ProblemCode, AtomicBool)>;

impl Meter {
    /// Looks the handles up: the recorder must be installed before.
    pub(super) fn new() -> Self {
        // What follows from another task's refusal is no pressure of its own.
        let pressure = ProblemCode::ALL
            .iter()
            .filter(|code| code.status() == 503 && **code != ProblemCode::EarlierFailed);
        Self {
            task: RouteMeter::new(TASK_ROUTE, Method::POST, 202),
            events: RouteMeter::new(EVENTS_ROUTE, Method::POST, 202),
            receipt: RouteMeter::new(RECEIPT_ROUTE, Method::GET, 200),
            accepted_tasks: counter!(TASKS_ACCEPTED_TOTAL),
            repeated_tasks: counter!(TASKS_REPEATED_TOTAL),
            body_bytes: histogram!(HTTP_REQUEST_BODY_BYTES),
            in_flight: gauge!(HTTP_REQUESTS_IN_FLIGHT),
            refusing: pressure.map(|code| (*code, AtomicBool::new(false))).collect(),
        }
    }

    pub(super) fn began(&self) {
        self.in_flight.increment(1.0);
    }

    pub(super) fn ended(&self) {
        self.in_flight.decrement(1.0);
    }

    /// A task is durable.
    pub(super) fn stored(&self, size: u64, receipt: &Receipt) {
        if receipt.repeated {
            self.repeated_tasks.increment(1);
        } else {
            self.accepted_tasks.increment(1);
            self.body_bytes.record(size as f64);
        }
        for (code, refusing) in &self.refusing {
            if refusing.load(Ordering::Relaxed) && refusing.swap(false, Ordering::Relaxed) {
                gauge!(BACKPRESSURE_ACTIVE, "reason" => code.code()).set(0.0);
            }
        }
    }

    /// A task was refused.
    pub(super) fn not_stored(&self, code: ProblemCode) {
        counter!(HTTP_REJECTED_TOTAL, "reason" => code.code()).increment(1);
        if let Some((_, refusing)) = self.refusing.iter().find(|(known, _)| *known == code)
            && !refusing.swap(true, Ordering::Relaxed)
        {
            gauge!(BACKPRESSURE_ACTIVE, "reason" => code.code()).set(1.0);
        }
    }

    /// A request to a route that always answers the same.
    pub(super) fn found(&self, route: &'static str, method: &Method) {
        requests(route, method, 200).increment(1);
    }

    /// A request to no route, or with a method its route does not have.
    pub(super) fn stray(&self, route: &'static str, method: &Method, code: ProblemCode) {
        requests(route, method, code.status()).increment(1);
    }
}

/// What is counted of the requests to one route.
pub(super) struct RouteMeter {
    route: &'static str,
    method: Method,
    /// How most requests are answered.
    usual: (u16, Counter),
    duration: Histogram,
}

impl RouteMeter {
    fn new(route: &'static str, method: Method, usual: u16) -> Self {
        Self {
            route,
            usual: (usual, requests(route, &method, usual)),
            method,
            duration: histogram!(HTTP_REQUEST_DURATION_SECONDS, "route" => route),
        }
    }

    /// A request was answered.
    pub(super) fn answered(&self, began: Instant, status: u16) {
        if status == self.usual.0 {
            self.usual.1.increment(1);
        } else {
            requests(self.route, &self.method, status).increment(1);
        }
        self.duration.record(began.elapsed());
    }
}

fn requests(route: &'static str, method: &Method, status: u16) -> Counter {
    counter!(HTTP_REQUESTS_TOTAL, "route" => route, "method" => method_label(method), "code" => status.to_string())
}

/// Methods are the sender's words: only the known ones become a label.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("OTHER")
}
