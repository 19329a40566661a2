//! `POST /v1/tasks/{key}`: one task, answered when it is durable. A task's first steps, in order.

use super::{
    access::Caller,
    admitted::Admitted,
    append::append,
    body::RequestBody,
    door::Door,
    events,
    idempotency::REPLAYED,
    key,
    meter::{self, EVENTS_ROUTE},
    openapi,
    problem::{Problem, ProblemCode},
    receipt,
    receive::receive,
    refuse::refuse,
    request_id::{RequestId, X_REQUEST_ID},
};
use crate::log::Receipt;
use actix_web::{
    HttpRequest, HttpResponse,
    body::BoxBody,
    dev::Payload,
    http::{
        ConnectionType, Method, StatusCode,
        header::{CONTENT_TYPE, EXPECT, HeaderValue},
    },
    web,
};
use std::{fmt::Write, sync::Arc, time::Instant};

/// Whether a path is one of the front door's own routes.
pub(super) fn is_own(path: &str) -> bool {
    path.starts_with(key::ROUTE) || path == EVENTS_ROUTE || path == openapi::PATH
}

/// Serves the interface's description.
pub(super) async fn description(
    door: web::Data<Door>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return openapi::get(&door, &request);
    }
    let problem = Problem::method_not_allowed("GET, HEAD");
    stray(door.into_inner(), meter::OPENAPI_ROUTE, &problem, &request, payload.into_inner()).await
}

/// Serves everything below `/v1/tasks`.
pub(super) async fn tasks(
    door: web::Data<Door>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let door = door.into_inner();
    let names_key = request.path().contains(key::ROUTE);
    if !names_key && !request.path().ends_with(EVENTS_ROUTE) {
        return not_found(door.into(), request, payload).await;
    }
    if let Some(id) = receipt::id_in(request.path()) {
        match *request.method() {
            Method::GET | Method::HEAD => return receipt::get(&door, &request, id).await,
            Method::POST => {}
            _ => {
                let problem = Problem::method_not_allowed("GET, HEAD, POST");
                return stray(door, meter::TASK_ROUTE, &problem, &request, payload.into_inner()).await;
            }
        }
    }
    match (request.method() == Method::POST, names_key) {
        (true, true) => post_task(door, request, payload).await,
        (true, false) => events::post(door, request, payload).await,
        (false, _) => {
            let route = if names_key { meter::TASK_ROUTE } else { meter::EVENTS_ROUTE };
            stray(door, route, &Problem::method_not_allowed("POST"), &request, payload.into_inner()).await
        }
    }
}

async fn post_task(door: Arc<Door>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let began = Instant::now();
    let _in_hand = door.take_in_hand();
    let id = RequestId::of(request.headers());
    let body = RequestBody::new(payload.into_inner(), &request, door.body_timeout, &door.cut);
    let mut body = body.at_least(door.min_body_rate);
    match accept(&door, &request, &mut body).await {
        Ok(accepted) => {
            door.meter.stored(accepted.size, &accepted.receipt);
            door.meter.task.answered(began, 202);
            let mut answer = receipt_answer(&door, &id, None, accepted.receipt);
            if let Some(caller) = accepted.caller {
                caller.tell(answer.headers_mut());
            }
            answer
        }
        Err(problem) => {
            door.meter.not_stored(problem.code);
            door.meter.task.answered(began, problem.code.status());
            refuse(&problem, &id, body, request.headers().contains_key(EXPECT)).await
        }
    }
}

/// A task that is durable.
struct Accepted {
    receipt: Receipt,
    size: u64,
    caller: Option<Arc<Caller>>,
}

async fn accept(door: &Door, request: &HttpRequest, body: &mut RequestBody) -> Result<Accepted, Problem> {
    let task = Admitted::new(door, request.uri().path(), request.headers(), body.declared())?;
    let begun = door.begin(task.idempotency)?;
    let hash = begun.as_ref().map(|_| door.log.payload_hash());
    if let Some(caller) = &task.caller {
        caller.admit()?;
        body.owe(caller);
    }
    let received = receive(body, task.coding, &task.head, &door.budget, door.max_task, hash).await;
    if let Some(caller) = &task.caller {
        body.settle();
        caller.charge(received.as_ref().map_or_else(|_| body.received(), |received| received.size));
    }
    let received = received?;
    if let Some(caller) = &task.caller {
        // It may have taken long to come.
        door.access.look();
        caller.may_use(&task.key)?;
    }
    let size = received.size;
    let receipt = append(door, task.partition, task.key, task.head, received, begun).await?;
    Ok(Accepted { receipt, size, caller: task.caller })
}

/// 202 for one task. `task_id`: the sender's own id for it.
pub(super) fn receipt_answer(
    door: &Door,
    id: &RequestId,
    task_id: Option<&str>,
    receipt: Receipt,
) -> HttpResponse {
    let mut response = HttpResponse::new(StatusCode::ACCEPTED);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_REQUEST_ID.clone(), id.header());
    if receipt.repeated {
        headers.insert(REPLAYED.clone(), HeaderValue::from_static("true"));
    }
    if door.is_draining() {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    response.set_body(BoxBody::new(receipt_json(task_id, door.log.topic(), receipt)))
}

/// Written by hand: a topic's name has only letters, digits, `.`, `_` and `-`.
fn receipt_json(task_id: Option<&str>, topic: &str, receipt: Receipt) -> String {
    let Receipt { partition, offset, .. } = receipt;
    let mut json = String::with_capacity(80 + topic.len());
    // Writing to a String cannot fail.
    let _ = match task_id {
        Some(id) => write!(json, r#"{{"id":{}"#, serde_json::Value::from(id)),
        None => write!(json, r#"{{"id":"{partition}-{offset}""#),
    };
    let _ = write!(json, r#","topic":"{topic}","partition":{partition},"offset":{offset}}}"#);
    json
}

/// Any other path.
pub(super) async fn not_found(
    door: web::Data<Door>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let problem =
        Problem::new(ProblemCode::NotFound, "no route has this path; tasks go to POST /v1/tasks/{key}");
    stray(door.into_inner(), meter::NO_ROUTE, &problem, &request, payload.into_inner()).await
}

/// A refusal of what is no task.
pub(super) async fn stray(
    door: Arc<Door>,
    route: &'static str,
    problem: &Problem,
    request: &HttpRequest,
    payload: Payload,
) -> HttpResponse {
    door.meter.stray(route, request.method(), problem.code);
    let id = RequestId::of(request.headers());
    let body = RequestBody::new(payload, request, door.body_timeout, &door.cut);
    refuse(problem, &id, body, request.headers().contains_key(EXPECT)).await
}
