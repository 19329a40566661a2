//! `Expect: 100-continue`: a sender who asks before it sends is refused before it sends.

use super::{
    admitted::Admitted, body::declared, door::Door, key::ROUTE, problem::Problem, request_id::RequestId,
};
use actix_http::{HttpMessage, Request, Response, body::BoxBody};
use actix_web::http::Method;
use std::time::Instant;

/// The request, to go on with, or its refusal. The handler looks at everything again: what is said here is only early.
pub(super) fn expect(door: &Door, request: Request) -> Result<Request, Response<BoxBody>> {
    match refusal(door, &request) {
        None => Ok(request),
        Some((problem, began)) => {
            door.meter.not_stored(problem.code);
            door.meter.task.answered(began, problem.code.status());
            let (response, bytes) = problem.parts(&RequestId::of(request.headers()));
            Err(response.set_body(BoxBody::new(bytes)).into())
        }
    }
}

fn refusal(door: &Door, request: &Request) -> Option<(Problem, Instant)> {
    let is_task = request.method() == Method::POST && request.path().starts_with(ROUTE);
    let began = Instant::now();
    let checked = || Admitted::new(door, request.path(), request.headers(), declared(request.headers()));
    is_task.then(checked)?.err().map(|problem| (problem, began))
}
