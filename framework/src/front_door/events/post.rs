//! `POST /v1/tasks` itself: which format, and then one task or many.

use super::{
    super::{
        access::{Caller, Verb},
        admission,
        append::append,
        body::RequestBody,
        decode::ZSTD_FRAME,
        decoded::Decoded,
        door::{Door, InHand},
        idempotency::{self, Begun},
        intake::{Intake, too_large},
        post_task::receipt_answer,
        problem::{Problem, ProblemCode},
        receive::{Received, check_declared, receive},
        refuse::{Unread, refuse, whole},
        request_id::{RequestId, X_REQUEST_ID},
        task_head::{self, Coding},
    },
    Task, binary,
    document::{self, Document, PLACES},
    entries::Entries,
    format::Format,
    json,
    lines::Lines,
    outbox::{First, Outbox},
    results::{Answered, Notation, Results},
    store::Store,
};
use crate::{
    log::{IdempotencyKey, Receipt},
    memory::Reservation,
};
use actix_web::{
    HttpRequest, HttpResponse,
    body::BoxBody,
    http::{
        ConnectionType, StatusCode,
        header::{ACCEPT, CONTENT_TYPE, EXPECT, HeaderMap, HeaderName, HeaderValue},
    },
    web,
};
use bytes::Bytes;
use partita_core::{PartitionHealth, partition_of};
use partita_proto::v1::Envelope;
use std::{sync::Arc, time::Instant};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The status label of a request whose sender went away, as nginx has it.
const CLIENT_CLOSED: u16 = 499;
/// What a decoder needs, but for a zstd frame's window.
const DECODER: u64 = 256 << 10;
/// What is in front of a document for its envelope, and what the request takes beside it, generously.
const HEAD: u64 = 256 << 10;
/// A document of this size is parsed on a thread of its own.
const LARGE: u64 = 1 << 20;

/// Serves `POST /v1/tasks`.
pub(in super::super) async fn post(
    door: Arc<Door>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let began = Instant::now();
    let in_hand = door.take_in_hand();
    let id = RequestId::of(request.headers());
    let body = RequestBody::new(payload.into_inner(), &request, door.body_timeout, &door.cut);
    // Lines are stored as they come, and hold no memory while they do not.
    let is_lines = matches!(Format::of(request.headers()), Ok(Format::Lines));
    let mut body = if is_lines { body } else { body.at_least(door.min_body_rate) };
    match accept(&door, request.headers(), &mut body).await {
        Ok(Accepted::One(Stored { task_id, receipt, size, caller })) => {
            door.meter.stored(size, &receipt);
            door.meter.events.answered(began, 202);
            let mut answer = receipt_answer(&door, &id, Some(&task_id), receipt);
            if let Some(caller) = caller {
                caller.tell(answer.headers_mut());
            }
            answer
        }
        Ok(Accepted::Many(many)) => {
            let Many { ask, document } = *many;
            let source = document.map_or(Source::Lines(body), Source::Document);
            store_many(door, ask, source, &id, began, in_hand).await
        }
        Err(problem) => {
            door.meter.events.answered(began, problem.code.status());
            door.meter.not_stored(problem.code);
            refuse(&problem, &id, body, request.headers().contains_key(EXPECT)).await
        }
    }
}

enum Accepted {
    /// One task, which is durable.
    One(Stored),
    /// Many that are to be stored.
    Many(Box<Many>),
}

/// The tasks of a document, or the lines of the body.
struct Many {
    ask: Ask,
    document: Option<Document>,
}

impl Accepted {
    fn many(ask: Ask, document: Option<Document>) -> Self {
        Self::Many(Box::new(Many { ask, document }))
    }
}

struct Stored {
    task_id: String,
    receipt: Receipt,
    size: u64,
    caller: Option<Arc<Caller>>,
}

/// What a request's head says of all its tasks.
pub(in super::super) struct Ask {
    format: Format,
    coding: Coding,
    /// What their envelopes have in common.
    base: Envelope,
    notation: Notation,
    answered: Answered,
    /// The request's own name.
    idempotency: Option<String>,
    caller: Option<Arc<Caller>>,
    /// Held as long as the request is in hand.
    room: Reservation,
}

impl Ask {
    /// Everything that can be said before the first byte of the body. `declared`: its size where it is known.
    pub(in super::super) fn of(
        door: &Door,
        headers: &HeaderMap,
        declared: Option<u64>,
    ) -> Result<Self, Problem> {
        let caller = door.access.enter(headers, Verb::Write)?;
        caller.as_ref().map_or(Ok(()), |caller| caller.check())?;
        let room = door.room_for(headers)?;
        let format = Format::of(headers)?;
        let base = Envelope { content_type: None, r#type: None, ..task_head::envelope(headers)? };
        let coding = task_head::coding(headers)?;
        let idempotency = idempotency::header(headers)?.map(str::to_owned);
        match format {
            Format::Binary => check_declared(declared, coding, door.max_task)?,
            Format::Structured | Format::Batch | Format::Protobuf => {
                let limit = document_limit(door, format, coding);
                check_declared(declared, coding, limit).map_err(|problem| of_document(problem, limit))?;
            }
            Format::Lines => {}
        }
        let decoder = if coding == Coding::Identity { 0 } else { DECODER };
        admission::admit(
            door.is_draining(),
            (door.log_health)(),
            PartitionHealth::Open,
            door.budget.has_room(decoder),
        )?;
        Ok(Self {
            format,
            coding,
            base,
            notation: notation(headers),
            answered: answered(headers),
            idempotency,
            caller,
            room,
        })
    }
}

impl Ask {
    /// Charges what has come to its sender: the bytes of a task, or, where no task came of it, those of the body.
    fn charge(&self, task: Option<u64>, body: &mut RequestBody) {
        body.settle();
        if let Some(caller) = &self.caller {
            caller.charge(task.unwrap_or_else(|| body.received()));
        }
    }

    /// Begins the request's only event. Its own name goes before what the event is known by.
    fn begin(&self, door: &Door, key: &[u8], head: &Envelope) -> Result<Option<Begun>, Problem> {
        self.caller.as_ref().map_or(Ok(()), |caller| caller.may_use(key))?;
        let own = self.idempotency.as_deref().map(|name| IdempotencyKey::of_request(key, name, 0));
        door.begin(own.or_else(|| idempotency::of_event(key, head, None)))
    }
}

async fn accept(door: &Door, headers: &HeaderMap, body: &mut RequestBody) -> Result<Accepted, Problem> {
    let ask = Ask::of(door, headers, body.declared())?;
    if let (Some(caller), Format::Binary | Format::Structured) = (&ask.caller, &ask.format) {
        caller.admit()?;
    }
    if let (Some(caller), false) = (&ask.caller, matches!(ask.format, Format::Lines)) {
        body.owe(caller);
    }
    accept_as(door, ask, headers, body).await
}

async fn accept_as(
    door: &Door,
    ask: Ask,
    headers: &HeaderMap,
    body: &mut RequestBody,
) -> Result<Accepted, Problem> {
    match ask.format {
        Format::Binary => binary(door, ask, headers, body).await.map(Accepted::One),
        Format::Structured => structured(door, ask, body).await.map(Accepted::One),
        Format::Batch => many_of(door, ask, body, document::Form::Json).await,
        Format::Protobuf => many_of(door, ask, body, document::Form::Protobuf).await,
        Format::Lines => Ok(Accepted::many(ask, None)),
    }
}

/// Who wants lines back gets lines.
fn notation(headers: &HeaderMap) -> Notation {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("ndjson") { Notation::Lines } else { Notation::Document }
}

/// Who prefers a short answer hears of what was not accepted only (RFC 7240, 4.2).
fn answered(headers: &HeaderMap) -> Answered {
    let values = headers.get_all(PREFER).filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    let is_minimal = |preference: &str| {
        let (preference, _) = preference.split_once(';').unwrap_or((preference, ""));
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        name.trim().eq_ignore_ascii_case("return") && value.trim().trim_matches('"') == "minimal"
    };
    if preferences.any(is_minimal) { Answered::Failures } else { Answered::All }
}

async fn binary(
    door: &Door,
    ask: Ask,
    headers: &HeaderMap,
    body: &mut RequestBody,
) -> Result<Stored, Problem> {
    let (key, head) = binary::event(headers, &ask.base)?;
    let begun = ask.begin(door, &key, &head)?;
    let hash = begun.as_ref().map(|_| door.log.payload_hash());
    let received = receive(body, ask.coding, &head, &door.budget, door.max_task, hash).await;
    ask.charge(received.as_ref().ok().map(|received| received.size), body);
    store_one(door, &ask, key, head, received?, begun).await
}

async fn structured(door: &Door, ask: Ask, body: &mut RequestBody) -> Result<Stored, Problem> {
    let base = ask.base.clone();
    let task = match receive_document(door, &ask, body).await {
        Ok(document) => {
            parse(document, move |document| json::task(document, &base).map_err(|refused| refused.problem))
                .await
        }
        Err(problem) => Err(problem),
    };
    ask.charge(task.as_ref().ok().map(|task| task.payload.len()), body);
    let Task { key, head, payload } = *task?;
    let size = payload.len();
    if size > door.max_task {
        return Err(too_large(door.max_task));
    }
    let begun = ask.begin(door, &key, &head)?;
    store_one(door, &ask, key, head, Received::plain(payload, None), begun).await
}

async fn store_one(
    door: &Door,
    ask: &Ask,
    key: Bytes,
    head: Envelope,
    received: Received,
    begun: Option<Begun>,
) -> Result<Stored, Problem> {
    if let Some(caller) = &ask.caller {
        // It may have taken long to come.
        door.access.look();
        caller.may_use(&key)?;
    }
    let partition = partition_of(&key, door.log.partitions());
    admission::admit(door.is_draining(), (door.log_health)(), (door.partition_health)(partition), true)?;
    let (task_id, size) = (head.id.clone(), received.size);
    let receipt = append(door, partition, key, head, received, begun).await?;
    Ok(Stored { task_id, receipt, size, caller: ask.caller.clone() })
}

async fn many_of(
    door: &Door,
    ask: Ask,
    body: &mut RequestBody,
    form: document::Form,
) -> Result<Accepted, Problem> {
    let document = match receive_document(door, &ask, body).await {
        Ok(document) => parse(document, move |document| Document::read(document, form)).await,
        Err(problem) => Err(problem),
    };
    match &document {
        // Each of its tasks is charged by itself.
        Ok(_) => body.settle(),
        Err(_) => ask.charge(None, body),
    }
    Ok(Accepted::many(ask, Some(document?)))
}

/// A document is larger than the payloads in it: base64 takes a third more. One for which there would be no room even if nothing else were in
/// memory is too large.
fn document_limit(door: &Door, format: Format, coding: Coding) -> u64 {
    let decoder = match coding {
        Coding::Identity => 0,
        Coding::Gzip => DECODER,
        Coding::Zstd => DECODER + ZSTD_FRAME,
    };
    let is_batch = matches!(format, Format::Batch | Format::Protobuf);
    let places = if is_batch { PLACES } else { 0 };
    // Where there is little memory the largest windows and the most entries have to do with what is there.
    let beside = (decoder + places + HEAD).min(door.budget.share(4));
    let room = door.budget.largest().saturating_sub(beside);
    (door.max_task + door.max_task / 2 + (64 << 10)).min(room)
}

/// A document that is too large is no task that is.
fn of_document(problem: Problem, limit: u64) -> Problem {
    match problem.code {
        ProblemCode::TooLarge => Problem::new(
            ProblemCode::BatchTooLarge,
            format!(
                "the document has more than {limit} bytes (1.5 times limits.max_task and 64 KiB, or what memory.budget has room for); send lines (application/x-ndjson), several \
                 documents, or a single event in binary mode"
            ),
        ),
        _ => problem,
    }
}

async fn receive_document(door: &Door, ask: &Ask, body: &mut RequestBody) -> Result<Intake, Problem> {
    let limit = document_limit(door, ask.format, ask.coding);
    let refused = |problem| of_document(problem, limit);
    let mut intake = match (body.declared(), ask.coding) {
        (Some(declared), Coding::Identity) => Intake::document(&door.budget, declared)?,
        _ => Intake::growing(&door.budget, &Envelope::default(), limit)?,
    };
    let mut decoded = Decoded::new(body, ask.coding, &door.budget)?.within(limit);
    while let Some(bytes) = decoded.next().await.map_err(refused)? {
        intake.push(bytes).map_err(refused)?;
    }
    Ok(intake)
}

/// Understands a document, where it is large on a thread of its own.
async fn parse<T: Send + 'static>(
    document: Intake,
    parse: impl FnOnce(Intake) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if document.len() < LARGE {
        return parse(document);
    }
    let broken = |_| Err(Problem::new(ProblemCode::Internal, "the document could not be looked at"));
    web::block(move || parse(document)).await.unwrap_or_else(broken)
}

/// Where many tasks come from.
enum Source {
    Document(Document),
    Lines(RequestBody),
}

/// The answer to many tasks: whole where it is small, else as it grows.
async fn store_many(
    door: Arc<Door>,
    ask: Ask,
    source: Source,
    id: &RequestId,
    began: Instant,
    in_hand: InHand,
) -> HttpResponse {
    let media_type = match ask.notation {
        Notation::Document => "application/json",
        Notation::Lines => "application/x-ndjson",
    };
    let draining = door.is_draining();
    let outbox = Outbox::default();
    // Dropped with this request, wherever that is: what stores for it ends by itself when nobody takes the answer any more.
    let reader = outbox.reader();
    let answered = ask.answered;
    actix_web::rt::spawn(store(door, ask, source, outbox, began, in_hand));
    let mut response = HttpResponse::new(StatusCode::ACCEPTED);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(X_REQUEST_ID.clone(), id.header());
    if answered == Answered::Failures {
        headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("return=minimal"));
    }
    if draining {
        response.head_mut().set_connection_type(ConnectionType::Close);
    }
    match reader.first().await {
        First::Whole(bytes, unread) => response.set_body(whole(bytes, unread)),
        First::Growing(growing) => response.set_body(BoxBody::new(growing)),
    }
}

async fn store(door: Arc<Door>, ask: Ask, source: Source, outbox: Outbox, began: Instant, in_hand: InHand) {
    let results =
        Results::new(ask.notation, ask.answered, door.log.topic(), outbox.clone(), door.budget.clone());
    let limit = document_limit(&door, ask.format, ask.coding);
    let _room = ask.room;
    let store = Store::new(&door, ask.base, ask.idempotency, ask.caller, results);
    let (counts, body) = match source {
        Source::Document(document) => (store.run(Entries::Document(document)).await, None),
        Source::Lines(mut body) => {
            let counts = match Decoded::new(&mut body, ask.coding, &door.budget) {
                Ok(decoded) => {
                    let lines = Lines::new(decoded, &door.budget, limit);
                    store.run(Entries::Lines(Box::new(lines))).await
                }
                Err(problem) => Some(store.give_up(&problem)),
            };
            (counts, Some(body))
        }
    };
    let status = if counts.is_some() { 202 } else { CLIENT_CLOSED };
    door.meter.events.answered(began, status);
    drop(in_hand);
    let unread = body.filter(|body| !body.ended()).map(Unread::new);
    match counts {
        Some(_) => {
            outbox.finish(unread);
            outbox.sent(door.body_timeout).await;
        }
        None => outbox.break_off(),
    }
}
