//! The front door's metrics, with the handles of the common ones looked up once.

use super::problem::ProblemCode;
use crate::metrics::{
    BACKPRESSURE_ACTIVE, HTTP_REJECTED_TOTAL, HTTP_REQUEST_BODY_BYTES, HTTP_REQUEST_DURATION_SECONDS,
    HTTP_REQUESTS_IN_FLIGHT, HTTP_REQUESTS_TOTAL, TASKS_ACCEPTED_TOTAL,
};
use actix_web::http::Method;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

/// The route label of the task route.
pub(super) const TASK_ROUTE: &str = "/v1/tasks/{key}";
/// The route label of everything that is no route.
pub(super) const NO_ROUTE: &str = "none";

pub(super) struct Meter {
    accepted_requests: Counter,
    accepted_tasks: Counter,
    duration: Histogram,
    body_bytes: Histogram,
    in_flight: Gauge,
    refusing: Refusing,
}

/// For each code that means backpressure, whether the last task that met it was refused.
type Refusing = Vec<(ProblemCode, AtomicBool)>;

impl Meter {
    /// Looks the handles up: the recorder must be installed before.
    pub(super) fn new() -> Self {
        let pressure = ProblemCode::ALL.iter().filter(|code| code.retry_after().is_some());
        Self {
            accepted_requests: requests(TASK_ROUTE, &Method::POST, 202),
            accepted_tasks: counter!(TASKS_ACCEPTED_TOTAL),
            duration: histogram!(HTTP_REQUEST_DURATION_SECONDS, "route" => TASK_ROUTE),
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

    /// A task was answered 202.
    pub(super) fn accepted(&self, began: Instant, size: u64) {
        self.accepted_requests.increment(1);
        self.accepted_tasks.increment(1);
        self.duration.record(began.elapsed());
        self.body_bytes.record(size as f64);
        for (code, refusing) in &self.refusing {
            if refusing.load(Ordering::Relaxed) && refusing.swap(false, Ordering::Relaxed) {
                gauge!(BACKPRESSURE_ACTIVE, "reason" => code.code()).set(0.0);
            }
        }
    }

    /// A task was refused.
    pub(super) fn refused(&self, began: Instant, code: ProblemCode) {
        requests(TASK_ROUTE, &Method::POST, code.status()).increment(1);
        counter!(HTTP_REJECTED_TOTAL, "reason" => code.code()).increment(1);
        self.duration.record(began.elapsed());
        if let Some((_, refusing)) = self.refusing.iter().find(|(known, _)| *known == code)
            && !refusing.swap(true, Ordering::Relaxed)
        {
            gauge!(BACKPRESSURE_ACTIVE, "reason" => code.code()).set(1.0);
        }
    }

    /// A request to no route, or with a method its route does not have.
    pub(super) fn stray(&self, route: &'static str, method: &Method, code: ProblemCode) {
        requests(route, method, code.status()).increment(1);
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
