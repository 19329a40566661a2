//! `POST /v1/tasks/{key}`: one task, answered when it is durable. A task's first steps, in order.

use super::{
    admitted::Admitted,
    body::RequestBody,
    door::Door,
    key, meter,
    problem::{Problem, ProblemCode},
    receive::{Received, receive},
    refuse::refuse,
    request_id::{RequestId, X_REQUEST_ID},
};
use crate::log::{AppendError, NewRecord, NotWritten, Receipt};
use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        ConnectionType, Method, StatusCode,
        header::{CONTENT_TYPE, EXPECT, HeaderValue},
    },
    web,
};
use std::{fmt::Write, sync::Arc, time::Instant};

/// Serves everything below `/v1/tasks`.
pub(super) async fn tasks(
    door: web::Data<Door>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let door = door.into_inner();
    if !request.path().contains(key::ROUTE) {
        return not_found(door.into(), request, payload).await;
    }
    if request.method() == Method::POST {
        return post_task(door, request, payload).await;
    }
    let problem = Problem::method_not_allowed("POST");
    stray(door, meter::TASK_ROUTE, &problem, &request, payload).await
}

async fn post_task(door: Arc<Door>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let began = Instant::now();
    let _in_hand = door.take_in_hand();
    let id = RequestId::of(request.headers());
    let mut body = RequestBody::new(payload.into_inner(), request.headers(), door.body_timeout, &door.cut);
    match accept(&door, &request, &mut body).await {
        Ok(accepted) => {
            door.meter.accepted(began, accepted.size);
            accepted.answer(&door, &id)
        }
        Err(problem) => {
            door.meter.refused(began, problem.code);
            refuse(&problem, &id, body, request.headers().contains_key(EXPECT)).await
        }
    }
}

/// A task that is durable.
struct Accepted {
    receipt: Receipt,
    size: u64,
}

async fn accept(door: &Door, request: &HttpRequest, body: &mut RequestBody) -> Result<Accepted, Problem> {
    let task = Admitted::new(door, request.uri().path(), request.headers(), body.declared())?;
    let received = receive(body, task.coding, &task.head, &door.budget, door.max_task).await?;
    let received = door.compressor.compress(received, &task.head).await?;
    append(door, task, received).await
}

async fn append(door: &Door, task: Admitted, received: Received) -> Result<Accepted, Problem> {
    let Received { intake, compression, size } = received;
    let mut head = task.head;
    head.payload_size = size;
    head.set_compression(compression);
    let (value, reservation) = intake.seal(&head);
    let record = NewRecord { key: task.key, value, reservation: Some(reservation) };
    match door.log.append(task.partition, record).await {
        Ok(receipt) => Ok(Accepted { receipt, size }),
        Err(error) => Err(not_appended(error)),
    }
}

fn not_appended(error: AppendError) -> Problem {
    match error {
        AppendError::NotWritten { code, reason } => {
            let code = match code {
                NotWritten::Away => ProblemCode::LogAway,
                NotWritten::Full => ProblemCode::LogFull,
                NotWritten::Busy => ProblemCode::LogBusy,
                NotWritten::Closing => ProblemCode::Draining,
                NotWritten::TooLarge => ProblemCode::TooLarge,
            };
            Problem::new(code, reason)
        }
        AppendError::Unknown { reason } => Problem::new(ProblemCode::UnknownOutcome, reason),
    }
}

impl Accepted {
    fn answer(&self, door: &Door, id: &RequestId) -> HttpResponse {
        let mut response = HttpResponse::new(StatusCode::ACCEPTED);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_REQUEST_ID.clone(), id.header());
        if door.is_draining() {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response.set_body(actix_web::body::BoxBody::new(self.receipt_json(door.log.topic())))
    }

    /// Written by hand: a topic's name has only letters, digits, `.`, `_` and `-`.
    fn receipt_json(&self, topic: &str) -> String {
        let Receipt { partition, offset } = self.receipt;
        let mut json = String::with_capacity(80 + topic.len());
        // Writing to a String cannot fail.
        let _ = write!(
            json,
            r#"{{"id":"{partition}-{offset}","topic":"{topic}","partition":{partition},"offset":{offset}}}"#
        );
        json
    }
}

/// Any other path.
pub(super) async fn not_found(
    door: web::Data<Door>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let problem =
        Problem::new(ProblemCode::NotFound, "no route has this path; tasks go to POST /v1/tasks/{key}");
    stray(door.into_inner(), meter::NO_ROUTE, &problem, &request, payload).await
}

async fn stray(
    door: Arc<Door>,
    route: &'static str,
    problem: &Problem,
    request: &HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    door.meter.stray(route, request.method(), problem.code);
    let id = RequestId::of(request.headers());
    let body = RequestBody::new(payload.into_inner(), request.headers(), door.body_timeout, &door.cut);
    refuse(problem, &id, body, request.headers().contains_key(EXPECT)).await
}
