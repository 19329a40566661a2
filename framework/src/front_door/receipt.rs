//! `GET /v1/tasks/{partition}-{offset}`: what became of a task, at once or once it is settled.

use super::{
    access::Verb,
    door::Door,
    key,
    problem::{Problem, ProblemCode},
    request_id::{RequestId, X_REQUEST_ID},
};
use crate::{
    log::ReadError,
    task_state::{Aside, TaskState},
};
use actix_web::{
    HttpRequest, HttpResponse,
    body::BoxBody,
    http::{
        ConnectionType, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue},
    },
};
use humantime_serde::re::humantime::{format_rfc3339_millis, parse_duration};
use partita_core::{Offset, Partition};
use serde_json::{Value, json};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// How long a wait is where nothing is said, and at most.
const WAIT: Duration = Duration::from_secs(30);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How long the log may take to say what it knows.
const PATIENCE: Duration = Duration::from_secs(10);

/// The id of a task in a path, if that is what is there.
pub(super) fn id_in(path: &str) -> Option<(Partition, Offset)> {
    let (_, id) = path.split_once(key::ROUTE)?;
    let (partition, offset) = id.split_once('-')?;
    let number = |text: &str| {
        let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        if is_plain { text.parse::<u64>().ok() } else { None }
    };
    Some((Partition(u32::try_from(number(partition)?).ok()?), Offset(number(offset)?)))
}

/// Serves the route. The request has no body that matters.
pub(super) async fn get(
    door: &Door,
    request: &HttpRequest,
    (partition, offset): (Partition, Offset),
) -> HttpResponse {
    let began = Instant::now();
    let id = RequestId::of(request.headers());
    let answer = match find(door, request.headers(), request.query_string(), partition, offset).await {
        Ok(state) => {
            let mut response = HttpResponse::new(StatusCode::OK);
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.insert(X_REQUEST_ID.clone(), id.header());
            response.set_body(BoxBody::new(body(door.log.topic(), partition, offset, &state).to_string()))
        }
        Err(problem) => {
            let (response, body) = problem.parts(&id);
            response.set_body(BoxBody::new(body))
        }
    };
    door.meter.receipt.answered(began, answer.status().as_u16());
    let mut answer = answer;
    if door.is_draining() {
        answer.head_mut().set_connection_type(ConnectionType::Close);
    }
    answer
}

async fn find(
    door: &Door,
    headers: &HeaderMap,
    query: &str,
    partition: Partition,
    offset: Offset,
) -> Result<TaskState, Problem> {
    if let Some(caller) = door.access.enter(headers, Verb::Read)? {
        // Whose key a task has is not known here.
        caller.may_use_all()?;
    }
    let wait = wait_in(query)?;
    let _room = door.room_for(headers)?;
    let states = door.task_states.as_ref().ok_or_else(none)?;
    let state = match wait {
        None => tokio::time::timeout(PATIENCE, states.of(partition, offset)).await,
        Some(wait) => {
            let deadline = tokio::time::Instant::now() + wait;
            let settled = states.settled(partition, offset, deadline, door.leaving.cancelled());
            tokio::time::timeout(wait + PATIENCE, settled).await
        }
    };
    let silent = |_| Err(ReadError(format!("no answer within {PATIENCE:?}")));
    let state =
        state.unwrap_or_else(silent).map_err(|error| Problem::new(ProblemCode::LogAway, error.to_string()));
    state?.ok_or_else(none)
}

fn none() -> Problem {
    Problem::new(ProblemCode::NotFound, "there is no task with this id")
}

/// How long is to be waited, if at all.
fn wait_in(query: &str) -> Result<Option<Duration>, Problem> {
    let (mut waits, mut timeout) = (false, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("wait", "done")) => waits = true,
            Some(("timeout", text)) => timeout = Some(duration(text)?),
            _ => return Err(invalid("it may have wait=done and, with that, timeout=30s")),
        }
    }
    Ok(waits.then(|| timeout.unwrap_or(WAIT)))
}

/// Seconds, or a number with a unit.
fn duration(text: &str) -> Result<Duration, Problem> {
    let seconds = || text.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
    let duration = seconds().or_else(|| parse_duration(text).ok());
    duration
        .filter(|duration| *duration <= LONGEST_WAIT)
        .ok_or_else(|| invalid("timeout is a time of up to 5 minutes: 30, 30s, 500ms"))
}

fn invalid(why: &'static str) -> Problem {
    Problem::new(ProblemCode::InvalidQuery, why)
}

fn body(topic: &str, partition: Partition, offset: Offset, state: &TaskState) -> Value {
    let mut body = json!({
        "id": format!("{partition}-{offset}"),
        "topic": topic,
        "partition": partition.0,
        "offset": offset.0,
        "state": state.label(),
    });
    match state {
        TaskState::Queued | TaskState::Done => {}
        TaskState::Running { since_ms, attempt } => {
            body["since"] = since_ms.map(time).into();
            body["attempt"] = (*attempt).into();
        }
        TaskState::Parked(aside) | TaskState::Rejected(aside) | TaskState::Dropped(aside) => {
            let Aside { cause, reason, attempts, at_ms } = aside;
            body["cause"] = cause.as_str().into();
            body["reason"] = reason.as_str().into();
            body["attempts"] = (*attempts).into();
            body["at"] = time(*at_ms).into();
        }
    }
    body
}

fn time(ms: u64) -> String {
    format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_two_plain_numbers() {
        assert_eq!(id_in("/v1/tasks/3-17"), Some((Partition(3), Offset(17))));
        assert_eq!(id_in("/mounted/v1/tasks/0-0"), Some((Partition(0), Offset(0))));
        for path in ["3", "3-", "-1", "a-1", "3-17-1", "03-1", "3-+1", "3-1/", "4294967296-0", "session-1"] {
            assert_eq!(id_in(&format!("/v1/tasks/{path}")), None, "{path}");
        }
    }

    #[test]
    fn a_wait_has_a_time_and_an_end() {
        let wait = |query| wait_in(query).map_err(|problem| problem.code);
        assert_eq!(wait(""), Ok(None));
        assert_eq!(wait("timeout=3"), Ok(None));
        assert_eq!(wait("wait=done"), Ok(Some(WAIT)));
        assert_eq!(wait("timeout=2&wait=done"), Ok(Some(Duration::from_secs(2))));
        assert_eq!(wait("wait=done&timeout=500ms"), Ok(Some(Duration::from_millis(500))));
        for query in ["wait=1", "wait", "timeout=x", "wait=done&timeout=", "wait=done&timeout=6m", "x=y"] {
            assert_eq!(wait(query), Err(ProblemCode::InvalidQuery), "{query}");
        }
    }
}
