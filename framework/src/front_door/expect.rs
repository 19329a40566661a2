//! `Expect: 100-continue`: a sender who asks before it sends is refused before it sends.

use super::{
    admitted::Admitted,
    body::declared,
    door::Door,
    events::Ask,
    key::ROUTE,
    meter::{EVENTS_ROUTE, RouteMeter},
    problem::Problem,
    request_id::RequestId,
};
use actix_http::{HttpMessage, Request, Response, body::BoxBody};
use actix_web::http::Method;
use std::time::Instant;

/// The request, to go on with, or its refusal. The handler looks at everything again: what is said here is only early.
pub(super) fn expect(door: &Door, request: Request) -> Result<Request, Response<BoxBody>> {
    match refusal(door, &request) {
        None => Ok(request),
        Some((problem, route, began)) => {
            door.meter.not_stored(problem.code);
            route.answered(began, problem.code.status());
            let (response, bytes) = problem.parts(&RequestId::of(request.headers()));
            Err(response.set_body(BoxBody::new(bytes)).into())
        }
    }
}

fn refusal<'d>(door: &'d Door, request: &Request) -> Option<(Problem, &'d RouteMeter, Instant)> {
    if request.method() != Method::POST {
        return None;
    }
    let (path, headers, began) = (request.path(), request.headers(), Instant::now());
    let declared = declared(request.head().version, headers);
    let (checked, route) = match path {
        _ if path.starts_with(ROUTE) => {
            (Admitted::new(door, path, headers, declared).err(), &door.meter.task)
        }
        EVENTS_ROUTE => (Ask::of(door, headers, declared).err(), &door.meter.events),
        _ => return None,
    };
    checked.map(|problem| (problem, route, began))
}
