//! A body that is one document with many tasks in it: a JSON array of CloudEvents, or a `partita.v1.TaskBatch`.
//!
//! It is received and understood as a whole before any of its tasks is stored: one that cannot be parsed is refused, and none of it
//! was written.

use super::{
    super::{
        budget::Budget,
        intake::Intake,
        key,
        problem::{Problem, ProblemCode},
    },
    Entry, Refused, Task,
    attributes::{LONGEST_ID, LONGEST_VALUE, PREFIX, TRACE, invalid},
    json, members, of_size,
};
use crate::memory::Reservation;
use bytes::{Buf, Bytes};
use bytestring::ByteString;
use partita_proto::v1::{self, Envelope, Header};
use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use std::{fmt, ops::Range};

/// The most tasks in one document. Lines have no such limit.
const MOST: usize = 100_000;
/// The field number of `TaskBatch.tasks`.
const TASKS_TAG: u32 = 1;
/// After so many tasks others get their turn.
const TURN: usize = 32;
/// What a task needs beside its bytes, at most.
const ROOM: u64 = 64 << 10;
/// What an entry's place takes.
const PLACE: u64 = size_of::<Range<usize>>() as u64;
/// What the places take at most: of all entries, while they are copied from half the room.
pub(super) const PLACES: u64 = MOST as u64 * PLACE * 2;
/// How many places there is room for at first.
const FIRST: usize = 64;

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Protobuf,
}

/// A document that was understood, and how far its tasks were taken out.
pub(super) struct Document {
    whole: Whole,
    places: Vec<Range<usize>>,
    next: usize,
    /// Why the next task is left out.
    skipping: Option<Problem>,
    budget: Budget,
    _reserved: [Reservation; 2],
}

enum Whole {
    Json(ByteString),
    Protobuf(Bytes),
}

impl Document {
    /// Finds the tasks in a document, or what is wrong with it.
    pub(super) fn read(document: Intake, form: Form) -> Result<Self, Problem> {
        let budget = document.budget().clone();
        let (whole, reserved) = document.into_bytes();
        let mut places = Places::new(budget.clone())?;
        let whole = match form {
            Form::Json => Whole::Json(json_places(whole, &mut places)?),
            Form::Protobuf => Whole::Protobuf(protobuf_places(whole, &mut places)?),
        };
        Ok(Self {
            whole,
            places: places.list,
            next: 0,
            skipping: None,
            budget,
            _reserved: [reserved, places.reserved],
        })
    }

    /// The next task. `None` at the end; an error where there is no memory for it now: ask again.
    pub(super) async fn next(&mut self, base: &Envelope) -> Result<Option<Entry>, Problem> {
        if self.next % TURN == TURN - 1 {
            tokio::task::yield_now().await;
        }
        self.take(base)
    }

    fn take(&mut self, base: &Envelope) -> Result<Option<Entry>, Problem> {
        let Some(place) = self.places.get(self.next) else { return Ok(None) };
        if let Some(problem) = self.skipping.take() {
            self.next += 1;
            return Ok(Some(of_size(Err(problem.into()), place.len() as u64)));
        }
        // The document stays until the last of its tasks was taken out.
        if !self.budget.could_ever((self.whole.len() + place.len()) as u64 + ROOM) {
            self.next += 1;
            let problem = Problem::new(
                ProblemCode::BatchTooLarge,
                "there is no memory for a task of this size beside its document; send it alone",
            );
            return Ok(Some(of_size(Err(problem.into()), place.len() as u64)));
        }
        let entry = match &self.whole {
            Whole::Json(text) => json::task_of_part(&text[place.clone()], base, &self.budget)?,
            Whole::Protobuf(bytes) => self.protobuf_task(bytes.slice(place.clone()), base)?,
        };
        let size = place.len() as u64;
        self.next += 1;
        Ok(Some(of_size(entry, size)))
    }

    /// Leaves the next task out, for this reason.
    pub(super) fn skip(&mut self, problem: Problem) {
        self.skipping = Some(problem);
    }

    fn protobuf_task(&self, bytes: Bytes, base: &Envelope) -> Result<Entry, Problem> {
        let refused = |id, key, problem| Ok(Err(Box::new(Refused { id, key, problem, size: 0 })));
        let task = {
            // Its texts are copied, its payload is not.
            let _working = self.budget.reserve(bytes.len() as u64)?;
            match v1::Task::decode(bytes) {
                Ok(task) if task.id.len() > LONGEST_ID => {
                    let key = key::checked(task.key).ok();
                    return refused(None, key, invalid(format!("id is longer than {LONGEST_ID} bytes")));
                }
                Ok(task) => match head(task, base) {
                    Ok(task) => task,
                    Err(what) => return Ok(Err(what)),
                },
                Err(error) => {
                    return refused(
                        None,
                        None,
                        invalid(format!("the task is not a partita.v1.Task: {error}")),
                    );
                }
            }
        };
        let (key, head, payload) = task;
        let mut intake = Intake::exact(&self.budget, &head, payload.len() as u64)?;
        intake.push(&payload)?;
        Ok(Ok(Box::new(Task { key, head, payload: intake })))
    }
}

impl Whole {
    fn len(&self) -> usize {
        match self {
            Self::Json(text) => text.len(),
            Self::Protobuf(bytes) => bytes.len(),
        }
    }
}

/// What a task was found to be.
fn head(mut task: v1::Task, base: &Envelope) -> Result<(Bytes, Envelope, Bytes), Box<Refused>> {
    let id = |task: &v1::Task| (!task.id.is_empty()).then(|| task.id.clone());
    let key = key::checked(std::mem::take(&mut task.key));
    let key =
        key.map_err(|problem| Refused { id: id(&task), key: None, problem, size: 0 }).map_err(Box::new)?;
    let texts = [
        ("source", Some(&task.source)),
        ("type", task.r#type.as_ref()),
        ("content_type", task.content_type.as_ref()),
        ("traceparent", task.traceparent.as_ref()),
        ("tracestate", task.tracestate.as_ref()),
    ];
    if let Some((name, _)) =
        texts.iter().find(|(_, text)| text.is_some_and(|text| text.len() > LONGEST_VALUE))
    {
        let problem = invalid(format!("{name} is longer than {LONGEST_VALUE} bytes"));
        return Err(Box::new(Refused { id: id(&task), key: Some(key), problem, size: 0 }));
    }
    let own = TRACE.into_iter().zip([task.traceparent, task.tracestate]);
    let mut headers: Vec<_> =
        own.filter_map(|(name, value)| Some(Header { name: name.into(), value: value? })).collect();
    if headers.is_empty() {
        headers = base.headers.clone();
    }
    if !task.source.is_empty() {
        headers.push(Header { name: [PREFIX, "source"].concat(), value: task.source });
    }
    let head = Envelope {
        id: task.id,
        r#type: task.r#type,
        content_type: task.content_type,
        headers,
        ..base.clone()
    };
    Ok((key, head, task.payload))
}

/// Where tasks are in a document. The memory for that is reserved as it grows.
struct Places {
    list: Vec<Range<usize>>,
    reserved: Reservation,
    budget: Budget,
}

impl Places {
    fn new(budget: Budget) -> Result<Self, Problem> {
        Ok(Self { list: Vec::new(), reserved: budget.reserve(0)?, budget })
    }

    fn push(&mut self, place: Range<usize>) -> Result<(), Problem> {
        if self.list.len() == MOST {
            return Err(Problem::new(
                ProblemCode::BatchTooLarge,
                format!(
                    "the batch has more than {MOST} tasks; send several, or lines (application/x-ndjson)"
                ),
            ));
        }
        if self.list.len() == self.list.capacity() {
            let more = self.list.len().max(FIRST).min(MOST - self.list.len());
            // The old list is there until it is copied.
            let whole = (self.list.len() + more) as u64 * PLACE;
            self.budget.grow(&mut self.reserved, whole)?;
            self.list.reserve_exact(more);
            self.reserved.shrink_to(whole);
        }
        self.list.push(place);
        Ok(())
    }
}

fn protobuf_places(whole: Bytes, places: &mut Places) -> Result<Bytes, Problem> {
    let malformed = |error| {
        Problem::new(ProblemCode::InvalidDocument, format!("the body is not a partita.v1.TaskBatch: {error}"))
    };
    let mut rest = whole.clone();
    while rest.has_remaining() {
        let (tag, wire_type) = decode_key(&mut rest).map_err(malformed)?;
        if (tag, wire_type) != (TASKS_TAG, WireType::LengthDelimited) {
            skip_field(wire_type, tag, &mut rest, DecodeContext::default()).map_err(malformed)?;
            continue;
        }
        let len = decode_varint(&mut rest).map_err(malformed)?;
        if len > rest.remaining() as u64 {
            return Err(Problem::new(
                ProblemCode::InvalidDocument,
                "the partita.v1.TaskBatch ends inside a task",
            ));
        }
        let start = whole.len() - rest.remaining();
        rest.advance(len as usize);
        places.push(start..start + len as usize)?;
    }
    Ok(whole)
}

fn malformed_json(error: impl fmt::Display) -> Problem {
    Problem::new(
        ProblemCode::InvalidDocument,
        format!("the body is not a JSON array of CloudEvents: {error}"),
    )
}

fn json_places(whole: Bytes, places: &mut Places) -> Result<ByteString, Problem> {
    let text = ByteString::try_from(whole).map_err(|error| malformed_json(json::not_utf8(error)))?;
    let base = text.as_ptr() as usize;
    members::for_each_element(&text, |element| {
        let start = element.as_ptr() as usize - base;
        places.push(start..start + element.len())
    })
    .map_err(malformed_json)??;
    Ok(text)
}
