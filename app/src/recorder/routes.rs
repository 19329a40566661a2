//! `/v1/recordings`: what was recorded, read back. Nothing here needs the log or the workers.

use super::{
    chunk::Chunk,
    store::{Payload, Recordings},
};
use actix_web::{
    HttpRequest, HttpResponse, Route,
    body::SizedStream,
    guard,
    http::header::{CONTENT_SECURITY_POLICY, ETAG, X_CONTENT_TYPE_OPTIONS},
    web::{self, Data, ServiceConfig},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use partita::front_door::{Problem, ProblemCode, may_read};
use serde_json::json;
use std::{str::FromStr, sync::Arc};

const BASE: &str = "/v1/recordings";
const UNTYPED: &str = "application/octet-stream";

/// The routes, for the front door's listener.
pub(crate) fn routes(recordings: Arc<Recordings>) -> Arc<dyn Fn(&mut ServiceConfig) + Send + Sync> {
    Arc::new(move |services| {
        services
            .app_data(Data::from(recordings.clone()))
            .service(resource(BASE).route(read().to(list)))
            .service(resource("/v1/recordings/{path:.*}").route(read().to(one)));
    })
}

fn resource(path: &str) -> actix_web::Resource {
    web::resource(path).default_service(web::to(async |request: HttpRequest| {
        Problem::method_not_allowed("GET, HEAD").respond(&request)
    }))
}

fn read() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

async fn list(request: HttpRequest, recordings: Data<Recordings>) -> HttpResponse {
    answer(&request, async {
        may_read(&request, None)?;
        let page = Page::parse(request.query_string())?;
        let (found, more) = recordings.list(page.after.as_deref(), page.limit).await.map_err(storage)?;
        let next = found.last().filter(|_| more).map(|last| last.key.clone());
        Ok(HttpResponse::Ok().json(json!({ "recordings": found, "next": next })))
    })
    .await
}

/// Everything below one recording. The raw path is split here, for a key may have slashes, percent signs and dots.
async fn one(request: HttpRequest, recordings: Data<Recordings>) -> HttpResponse {
    answer(&request, async {
        let (_, path) = request.uri().path().split_once("/v1/recordings/").unwrap_or_default();
        let recordings = recordings.into_inner();
        let key = |raw| {
            let key = decode_key(raw)?;
            may_read(&request, Some(key.as_bytes())).map(|()| key)
        };
        match path.split('/').collect::<Vec<_>>()[..] {
            [raw] => show(&recordings, &key(raw)?).await,
            [raw, "content"] => content(recordings, &key(raw)?).await,
            [raw, "chunks", place] => chunk(recordings, &key(raw)?, place).await,
            _ => Err(Problem::new(ProblemCode::NotFound,
                "a recording has /content and /chunks/{partition}-{offset}; a slash of the key is written %2F",
            )),
        }
    })
    .await
}

async fn answer(
    request: &HttpRequest,
    outcome: impl Future<Output = Result<HttpResponse, Problem>>,
) -> HttpResponse {
    outcome.await.unwrap_or_else(|problem| problem.respond(request))
}

async fn show(recordings: &Recordings, key: &str) -> Result<HttpResponse, Problem> {
    let chunks: Vec<_> = chunks_of(recordings, key).await?.iter().map(|(chunk, _)| as_json(chunk)).collect();
    Ok(HttpResponse::Ok().json(json!({ "key": key, "chunks": chunks })))
}

async fn chunk(recordings: Arc<Recordings>, key: &str, place: &str) -> Result<HttpResponse, Problem> {
    let unknown = || Problem::new(ProblemCode::NotFound, "the recording has no such chunk");
    let (partition, offset) = place.split_once('-').ok_or_else(unknown)?;
    let (partition, offset) = number(partition).zip(number(offset)).ok_or_else(unknown)?;
    let found = recordings.chunk(key, partition, offset).await.map_err(storage)?;
    let (chunk, payload) = found.ok_or_else(unknown)?;
    let content_type = chunk.content_type.as_deref().unwrap_or(UNTYPED);
    let mut response = HttpResponse::Ok();
    // What was sent comes back on this origin: no browser may run it here.
    response
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CONTENT_SECURITY_POLICY, "sandbox"))
        .insert_header((ETAG, format!("\"{}\"", chunk.sha256)));
    let valid = actix_web::http::header::HeaderValue::from_str(content_type).is_ok();
    response.content_type(if valid { content_type } else { UNTYPED });
    Ok(response.body(SizedStream::new(chunk.size, recordings.read(payload))))
}

/// All payloads of a key, as they are when the request is made.
async fn content(recordings: Arc<Recordings>, key: &str) -> Result<HttpResponse, Problem> {
    let chunks = chunks_of(&recordings, key).await?;
    let size = chunks.iter().map(|(chunk, _)| chunk.size).sum();
    let payloads = stream::iter(chunks).map(Ok::<_, object_store::Error>);
    let pieces = payloads.map_ok(move |(_, payload)| recordings.clone().read(payload)).try_flatten();
    Ok(HttpResponse::Ok()
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .content_type(UNTYPED)
        .body(SizedStream::new(size, pieces)))
}

async fn chunks_of(recordings: &Recordings, key: &str) -> Result<Vec<(Chunk, Payload)>, Problem> {
    let chunks = recordings.chunks(key).await.map_err(storage)?;
    if chunks.is_empty() {
        Err(Problem::new(ProblemCode::NotFound, "nothing was recorded under this key"))
    } else {
        Ok(chunks)
    }
}

fn as_json(chunk: &Chunk) -> serde_json::Value {
    json!({
        "partition": chunk.partition,
        "offset": chunk.offset,
        "type": chunk.type_name,
        "content_type": chunk.content_type,
        "size": chunk.size,
        "sha256": chunk.sha256,
        "stored_at": chunk.stored_at,
    })
}

fn storage(error: object_store::Error) -> Problem {
    tracing::error!(%error, "a recording cannot be read");
    Problem::new(
        ProblemCode::Internal,
        "the recordings cannot be read; the process's log says why, under the request's id",
    )
}

/// Digits only: `+1` and `01` are no names of chunks.
fn number<T: FromStr + ToString>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|number| number.to_string() == text)
}

/// Which part of the list is asked for.
struct Page {
    limit: usize,
    after: Option<String>,
}

impl Page {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut page = Self { limit: 100, after: None };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // In a query a plus is a space, as forms write it.
            let value = decode(&value.replace('+', " ")).ok_or_else(|| {
                Problem::new(ProblemCode::InvalidQuery, format!("{name} is not percent-encoded UTF-8"))
            })?;
            match name {
                "limit" => {
                    page.limit =
                        number(&value).filter(|limit| (1..=1000).contains(limit)).ok_or_else(|| {
                            Problem::new(ProblemCode::InvalidQuery, "limit must be a number from 1 to 1000")
                        })?;
                }
                "after" => page.after = Some(value),
                _ => return Err(Problem::new(ProblemCode::InvalidQuery, "the list takes limit and after")),
            }
        }
        Ok(page)
    }
}

fn decode_key(raw: &str) -> Result<String, Problem> {
    let key = decode(raw)
        .ok_or_else(|| Problem::new(ProblemCode::InvalidKey, "it is not percent-encoded UTF-8"))?;
    if (1..=256).contains(&key.len()) {
        Ok(key)
    } else {
        Err(Problem::new(ProblemCode::InvalidKey, format!("it has {} bytes", key.len())))
    }
}

/// Percent-decodes once, strictly.
fn decode(raw: &str) -> Option<String> {
    let bytes = raw.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let well_formed =
        bytes.iter().enumerate().all(|(at, byte)| *byte != b'%' || (hex(at + 1) && hex(at + 2)));
    if !well_formed {
        return None;
    }
    percent_encoding::percent_decode_str(raw).decode_utf8().ok().map(|text| text.into_owned())
}
