//! `/admin/v1/parked`: the parked tasks of this process's partitions, and the verbs on them.
//!
//! | request | does |
//! |---|---|
//! | `GET /admin/v1/parked?partition=&key=&after=&limit=` | lists, by partition and offset |
//! | `GET /admin/v1/parked/{partition}-{offset}` | shows one |
//! | `GET /admin/v1/parked/{partition}-{offset}/payload` | its payload, as it was sent |
//! | `POST /admin/v1/parked/redrive` | has keys handled again, in order |
//! | `POST /admin/v1/parked/drop` | gives tasks up |
//!
//! What concerns all partitions leaves out those that do not know yet what is parked in them; the answer names them, as `unread`.
//!
//! A verb's body says what is meant, as JSON: `{"key": "…"}`, `{"task": "3-17"}`, `{"partition": 3}` or `{"all": true}`.

use super::{
    AdminSources,
    routes::{only, resource},
    verb::{Body, Refusal, audit, authorize, bad_request, json_of},
};
use crate::{ParkedSelection, ParkedTask};
use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    web::{self, Data, Path, Query, ServiceConfig},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Tasks that a list has at most, and unless told.
const MOST: usize = 1000;
const USUAL: usize = 100;
/// How long a verb waits for the partition's worker, which finishes its task in hand first.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn configure(services: &mut ServiceConfig) {
    let post = |path: &str| web::resource(path).default_service(web::to(|| async { only("POST") }));
    services
        .service(resource("/admin/v1/parked").route(web::get().to(list)))
        .service(post("/admin/v1/parked/redrive").route(web::post().to(redrive)))
        .service(post("/admin/v1/parked/drop").route(web::post().to(drop_tasks)))
        .service(resource("/admin/v1/parked/{task}").route(web::get().to(show)))
        .service(resource("/admin/v1/parked/{task}/payload").route(web::get().to(payload)));
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    partition: Option<u32>,
    key: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// What a verb is asked to do.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    key: Option<String>,
    task: Option<String>,
    partition: Option<u32>,
    all: bool,
    /// Why, for the record; of a drop.
    reason: Option<String>,
}

impl Wanted {
    fn read(body: &[u8]) -> Result<(Self, ParkedSelection), String> {
        let wanted: Self = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let task = wanted.task.as_deref().map(task_id).transpose()?;
        let selection = match (&wanted.key, task, wanted.partition, wanted.all) {
            (Some(key), None, None, false) => ParkedSelection::Key(Bytes::copy_from_slice(key.as_bytes())),
            (None, Some((partition, offset)), None, false) => ParkedSelection::Task(partition, offset),
            (None, None, Some(partition), false) => ParkedSelection::Partition(partition),
            (None, None, None, true) => ParkedSelection::All,
            _ => return Err("say one of \"key\", \"task\", \"partition\" or \"all\": true".into()),
        };
        Ok((wanted, selection))
    }
}

/// Reads `{partition}-{offset}`.
fn task_id(text: &str) -> Result<(u32, u64), String> {
    let parts = text.split_once('-');
    let numbers = parts.and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    numbers.ok_or_else(|| format!("{text:?} is not a task: it is written as partition-offset, like 3-17"))
}

async fn list(
    sources: Data<AdminSources>,
    query: Result<Query<ListQuery>, actix_web::Error>,
) -> Result<HttpResponse, Refusal> {
    let ListQuery { partition, key, after, limit } =
        query.map_err(|error| bad_request(error.to_string()))?.into_inner();
    let after = after.as_deref().map(task_id).transpose().map_err(bad_request)?;
    let limit = limit.unwrap_or(USUAL);
    if limit == 0 || limit > MOST {
        return Err(bad_request(format!("limit is from 1 to {MOST}")));
    }
    let selection = match (&key, partition) {
        (Some(key), None) => ParkedSelection::Key(Bytes::copy_from_slice(key.as_bytes())),
        (None, Some(partition)) => ParkedSelection::Partition(partition),
        (None, None) => ParkedSelection::All,
        (Some(_), Some(_)) => {
            return Err(bad_request("say key or partition: a key has one partition".into()));
        }
    };
    let mut tasks = sources.operations.list_parked(&selection)?;
    tasks.retain(|task| after.is_none_or(|after| (task.partition, task.offset) > after));
    let more = tasks.len() > limit;
    tasks.truncate(limit);
    let next = tasks.last().filter(|_| more).map(|task| format!("{}-{}", task.partition, task.offset));
    let tasks: Vec<Value> = tasks.iter().map(as_json).collect();
    let page = json!({ "parked": tasks, "next": next, "unread": sources.operations.unread_partitions() });
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(page))
}

async fn show(sources: Data<AdminSources>, task: Path<String>) -> Result<HttpResponse, Refusal> {
    let detail = find(&sources, &task).await?;
    let mut shown = as_json(&detail.task);
    let head = detail.envelope.as_ref();
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("first_reason".into(), detail.note.reason.clone().into());
        shown.insert("epoch".into(), partita_core::Epoch(detail.note.epoch).to_string().into());
        shown.insert("id".into(), head.map(|head| head.id.clone()).into());
        shown.insert("type".into(), head.and_then(|head| head.r#type.clone()).into());
        shown.insert("content_type".into(), head.and_then(|head| head.content_type.clone()).into());
        shown.insert("created_at".into(), head.and_then(|head| time(head.created_at_ms)).into());
        shown.insert("payload_size".into(), detail.payload.len().into());
        let headers = head.map(|head| {
            let pairs = head.headers.iter().map(|header| (header.name.clone(), header.value.clone().into()));
            Value::Object(pairs.collect())
        });
        shown.insert("headers".into(), headers.into());
    }
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(shown))
}

async fn payload(
    sources: Data<AdminSources>,
    task: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, Refusal> {
    authorize(&sources, &request)?;
    let detail = find(&sources, &task).await?;
    audit(&request, "parked show payload", &task, "read");
    let content_type = detail.envelope.as_ref().and_then(|head| head.content_type.as_deref());
    let content_type = content_type.and_then(|text| HeaderValue::from_str(text).ok());
    let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, content_type))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(detail.payload))
}

async fn find(sources: &AdminSources, task: &str) -> Result<crate::ParkedDetail, Refusal> {
    let (partition, offset) = task_id(task).map_err(bad_request)?;
    let not_parked = || Refusal {
        status: 404,
        code: "not_parked",
        title: "This task is not parked",
        detail: format!("task {task} is not parked"),
    };
    sources.operations.show_parked(partition, offset).await?.ok_or_else(not_parked)
}

async fn redrive(
    sources: Data<AdminSources>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, Refusal> {
    let (_, selection) = verb(&sources, &request, body)?;
    let result = sources.operations.redrive(&selection);
    audit(&request, "parked redrive", &format!("{selection:?}"), &format!("{result:?}"));
    let redriven = result?;
    let unread = sources.operations.unread_partitions();
    let answer = json!({ "keys": redriven.keys, "tasks": redriven.tasks, "unread": unread });
    Ok(HttpResponse::Accepted().json(answer))
}

async fn drop_tasks(
    sources: Data<AdminSources>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, Refusal> {
    let (wanted, selection) = verb(&sources, &request, body)?;
    let reason = wanted.reason.unwrap_or_default();
    let desk = sources.operations.clone();
    let what = format!("{selection:?}");
    // Asked for once, it goes on when the one who asked has gone.
    let dropping = actix_rt::spawn(async move { desk.drop_parked(&selection, &reason).await });
    let result = tokio::time::timeout(PATIENCE, dropping).await;
    audit(&request, "parked drop", &what, &format!("{result:?}"));
    let dropped = match result {
        Ok(Ok(dropped)) => dropped?,
        Ok(Err(error)) => {
            let (code, title) = ("internal", "Something failed");
            return Err(Refusal { status: 500, code, title, detail: error.to_string() });
        }
        Err(_) => {
            let detail =
                "the partition's worker has its hands full; the tasks are dropped when it comes to it".into();
            return Err(Refusal { status: 504, code: "not_yet", title: "Not done yet", detail });
        }
    };
    let unread = sources.operations.unread_partitions();
    Ok(HttpResponse::Ok().json(json!({ "dropped": dropped, "unread": unread })))
}

/// Reads a verb, once it is known that it is allowed.
fn verb(
    sources: &AdminSources,
    request: &HttpRequest,
    body: Body,
) -> Result<(Wanted, ParkedSelection), Refusal> {
    authorize(sources, request)?;
    Wanted::read(&json_of(request, body)?).map_err(bad_request)
}

fn as_json(task: &ParkedTask) -> Value {
    json!({
        "task": format!("{}-{}", task.partition, task.offset),
        "partition": task.partition,
        "offset": task.offset,
        "key": String::from_utf8_lossy(&task.key),
        "cause": task.cause,
        "reason": task.reason,
        "attempts": task.attempts,
        "bytes": task.bytes,
        "parked_at": time(task.parked_at_ms),
        "redriving": task.redriving,
    })
}

/// RFC 3339, in UTC; nothing for no time.
fn time(ms: u64) -> Option<String> {
    let at: SystemTime = (ms > 0).then(|| UNIX_EPOCH + Duration::from_millis(ms))?;
    let mut text = String::new();
    // A time that a clock far off has made cannot be written so.
    write!(text, "{}", humantime_serde::re::humantime::format_rfc3339_millis(at)).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_means_exactly_one_thing() {
        let read = |text: &str| Wanted::read(text.as_bytes()).map(|(_, selection)| selection);
        assert_eq!(read(r#"{"key":"k"}"#), Ok(ParkedSelection::Key("k".into())));
        assert_eq!(read(r#"{"task":"3-17","reason":"x"}"#), Ok(ParkedSelection::Task(3, 17)));
        assert_eq!(read(r#"{"partition":3}"#), Ok(ParkedSelection::Partition(3)));
        assert_eq!(read(r#"{"all":true}"#), Ok(ParkedSelection::All));
        for text in [
            "",
            "{}",
            "[]",
            r#"{"all":false}"#,
            r#"{"key":"k","all":true}"#,
            r#"{"kee":"k"}"#,
            r#"{"task":"3"}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
