//! `POST /v1/tasks`: tasks that say themselves what their keys are. CloudEvents 1.0 one at a time and in batches, a JSON document a
//! line, and `partita.v1.TaskBatch`.
//!
//! One event is stored and answered as a task of `POST /v1/tasks/{key}` is. Of many, each is an [`Entry`]: `store` stores them, those
//! of one key strictly one after another, and `results` answers each in its place.

mod attributes;
mod base64;
mod binary;
mod document;
mod entries;
mod escapes;
mod failed;
mod format;
mod json;
mod lines;
mod members;
mod nesting;
mod outbox;
mod post;
mod results;
mod store;

pub(super) use format::MEDIA_TYPES;
pub(super) use post::{Ask, post};

use super::{intake::Intake, problem::Problem};
use ::bytes::Bytes;
use partita_proto::v1::Envelope;

/// One of the tasks that a body says it holds. Boxed, because it goes through many hands.
type Entry = Result<Box<Task>, Box<Refused>>;

/// What is no task, or none that may be stored.
#[derive(Debug)]
struct Refused {
    /// The sender's id for it, where that could be read.
    id: Option<String>,
    /// Its key, where that could be read.
    key: Option<Bytes>,
    problem: Problem,
    /// Its bytes, where its sender is still to be charged for them.
    size: u64,
}

/// What is refused has come all the same.
fn of_size(entry: Entry, size: u64) -> Entry {
    entry.map_err(|refused| Box::new(Refused { size, ..*refused }))
}

impl From<Problem> for Box<Refused> {
    /// Nothing is known of it.
    fn from(problem: Problem) -> Self {
        Self::new(Refused { id: None, key: None, problem, size: 0 })
    }
}

/// A task that may be stored.
#[derive(Debug)]
struct Task {
    key: Bytes,
    /// Its envelope, without payload and sizes.
    head: Envelope,
    payload: Intake,
}
