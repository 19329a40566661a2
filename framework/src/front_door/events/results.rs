//! The answer to many tasks: one entry each, in their order, given out as it grows.

use super::super::{
    budget::Budget,
    problem::{Problem, ProblemCode},
};
use crate::{log::Receipt, memory::Reservation};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    fmt::Write,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::UnboundedSender;

/// The answer is given out in pieces of about this size.
const PIECE: usize = 64 << 10;
/// How often is looked whether there is memory again.
const LOOK: Duration = Duration::from_millis(20);

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    /// `{"results":[…],"accepted":…,"retry":…,"rejected":…}`
    Document,
    /// One result a line.
    Lines,
}

/// A piece of an answer.
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// It is the last one.
    pub(super) last: bool,
    _reservation: Option<Reservation>,
}

/// The results so far.
pub(super) struct Results {
    notation: Notation,
    topic: String,
    pieces: UnboundedSender<Piece>,
    budget: Budget,
    /// The number of the first entry of `open`.
    first: u64,
    /// From the first that has no result yet on.
    open: VecDeque<Option<String>>,
    text: String,
    began: bool,
    counts: Counts,
}

/// How many tasks ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) accepted: u64,
    pub(super) retry: u64,
    pub(super) rejected: u64,
}

/// Nobody takes the answer any more.
#[derive(Debug)]
pub(super) struct Gone;

impl Results {
    pub(super) fn new(
        notation: Notation,
        topic: &str,
        pieces: UnboundedSender<Piece>,
        budget: Budget,
    ) -> Self {
        Self {
            notation,
            topic: topic.to_owned(),
            pieces,
            budget,
            first: 0,
            open: VecDeque::new(),
            text: String::new(),
            began: false,
            counts: Counts::default(),
        }
    }

    /// The place of one more entry.
    pub(super) fn place(&mut self) -> u64 {
        self.open.push_back(None);
        self.first + self.open.len() as u64 - 1
    }

    /// How many entries have no result, or stand behind one that has none.
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    pub(super) fn accepted(&mut self, place: u64, id: Option<&str>, receipt: Receipt) {
        self.counts.accepted += 1;
        let Receipt { partition, offset } = receipt;
        let made = || format!("{partition}-{offset}");
        let id = json(&id.map_or_else(made, str::to_owned));
        let topic = &self.topic;
        self.set(place, format!(r#"{{"status":"accepted","id":{id},"topic":"{topic}","partition":{partition},"offset":{offset}}}"#));
    }

    pub(super) fn refused(&mut self, place: u64, id: Option<&str>, problem: &Problem) {
        let status = if is_for_later(problem.code) {
            self.counts.retry += 1;
            "retry"
        } else {
            self.counts.rejected += 1;
            "rejected"
        };
        let id = id.map_or_else(|| "null".into(), json);
        let (code, detail) = (problem.code.code(), json(&problem.detail));
        self.set(place, format!(r#"{{"status":"{status}","id":{id},"code":"{code}","detail":{detail}}}"#));
    }

    fn set(&mut self, place: u64, result: String) {
        if let Some(open) = self.open.get_mut((place - self.first) as usize) {
            *open = Some(result);
        }
        while let Some(Some(_)) = self.open.front() {
            let result = self.open.pop_front().flatten().unwrap_or_default();
            self.first += 1;
            self.write(&result);
        }
    }

    fn write(&mut self, result: &str) {
        match self.notation {
            Notation::Document => {
                self.text.push_str(if self.began { "," } else { "{\"results\":[" });
                self.text.push_str(result);
            }
            Notation::Lines => {
                self.text.push_str(result);
                self.text.push('\n');
            }
        }
        self.began = true;
    }

    /// Gives out what is enough for a piece. Waits for memory, at most `patience`.
    pub(super) async fn give_out(&mut self, patience: Duration) -> Result<(), Gone> {
        if self.text.len() < PIECE { Ok(()) } else { self.send(patience, false).await }
    }

    /// Gives out the rest.
    pub(super) async fn finish(mut self, patience: Duration) -> Result<Counts, Gone> {
        let Counts { accepted, retry, rejected } = self.counts;
        if self.notation == Notation::Document {
            self.text.push_str(if self.began { "" } else { "{\"results\":[" });
            // Writing to a String cannot fail.
            let _ = write!(self.text, r#"],"accepted":{accepted},"retry":{retry},"rejected":{rejected}}}"#);
        }
        self.send(patience, true).await?;
        Ok(self.counts)
    }

    async fn send(&mut self, patience: Duration, last: bool) -> Result<(), Gone> {
        let until = Instant::now() + patience;
        let reservation = loop {
            match self.budget.reserve(self.text.len() as u64) {
                Ok(reservation) => break Some(reservation),
                // What is left at the end is small, and all that waits for it is held otherwise.
                Err(_) if last => break None,
                Err(_) if self.pieces.is_closed() || Instant::now() > until => return Err(Gone),
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        };
        let bytes = std::mem::take(&mut self.text).into();
        self.pieces.send(Piece { bytes, last, _reservation: reservation }).map_err(|_| Gone)
    }

    /// Whether nobody takes the answer any more.
    pub(super) fn is_gone(&self) -> bool {
        self.pieces.is_closed()
    }
}

/// Whether the same task may be accepted later.
fn is_for_later(code: ProblemCode) -> bool {
    matches!(code.status(), 500..)
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
