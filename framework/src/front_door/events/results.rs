//! The answer to many tasks: one entry each, in their order, given out as it grows.

use super::{
    super::{
        budget::Budget,
        problem::{Problem, ProblemCode},
    },
    outbox::Outbox,
};
use crate::log::Receipt;
use serde::Serialize;
use std::{borrow::Cow, collections::VecDeque, io::Write};

/// The answer is given out in pieces of about this size.
const PIECE: usize = 32 << 10;
/// What of the memory for bodies an answer that nobody reads may take: one part in so many.
const SHARE: u64 = 8;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notation {
    /// `{"results":[…],"accepted":…,"retry":…,"rejected":…}`
    Document,
    /// One result a line.
    Lines,
}

/// Which results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// One for each entry.
    All,
    /// Those of the entries that were not accepted, each with its entry's number from 0; and the counts, also of lines.
    Failures,
}

/// One result as it is written.
#[derive(Serialize)]
struct Accepted<'a> {
    status: &'static str,
    id: Cow<'a, str>,
    topic: &'a str,
    partition: u32,
    offset: u64,
}

#[derive(Serialize)]
struct Refused<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    id: Option<&'a str>,
    code: &'static str,
    detail: &'a str,
}

/// The results so far.
pub(super) struct Results {
    topic: String,
    outbox: Outbox,
    budget: Budget,
    answered: Answered,
    ordered: Ordered,
    counts: Counts,
}

/// Results in the order of their entries.
struct Ordered {
    notation: Notation,
    /// The number of the first entry of `open`.
    first: u64,
    /// From the first that has no result yet on. One that is not written is empty.
    open: VecDeque<Option<Vec<u8>>>,
    text: Vec<u8>,
    began: bool,
}

/// How many tasks ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) accepted: u64,
    pub(super) retry: u64,
    pub(super) rejected: u64,
}

impl Ordered {
    /// Writes an entry's result, with those behind it that waited for it.
    fn set(&mut self, place: u64, result: &impl Serialize) {
        if place == self.first {
            self.next(|text| write(text, result));
            self.go_on();
        } else if let Some(open) = self.open.get_mut((place - self.first) as usize) {
            write(open.insert(Vec::new()), result);
        }
    }

    /// Leaves an entry's result out, and writes those behind it that waited for it.
    fn leave_out(&mut self, place: u64) {
        if place == self.first {
            self.pass();
            self.go_on();
        } else if let Some(open) = self.open.get_mut((place - self.first) as usize) {
            *open = Some(Vec::new());
        }
    }

    fn go_on(&mut self) {
        while let Some(result) = self.open.front_mut().and_then(Option::take) {
            if result.is_empty() {
                self.pass();
            } else {
                self.next(|text| text.extend_from_slice(&result));
            }
        }
    }

    fn pass(&mut self) {
        self.open.pop_front();
        self.first += 1;
    }

    /// Writes the first result that is not written yet.
    fn next(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.pass();
        if self.notation == Notation::Document {
            self.text.extend_from_slice(if self.began { b"," } else { b"{\"results\":[" });
        }
        write(&mut self.text);
        if self.notation == Notation::Lines {
            self.text.push(b'\n');
        }
        self.began = true;
    }
}

impl Results {
    pub(super) fn new(
        notation: Notation,
        answered: Answered,
        topic: &str,
        outbox: Outbox,
        budget: Budget,
    ) -> Self {
        Self {
            topic: topic.to_owned(),
            outbox,
            budget,
            answered,
            ordered: Ordered { notation, first: 0, open: VecDeque::new(), text: Vec::new(), began: false },
            counts: Counts::default(),
        }
    }

    /// The place of one more entry.
    pub(super) fn place(&mut self) -> u64 {
        self.ordered.open.push_back(None);
        self.ordered.first + self.ordered.open.len() as u64 - 1
    }

    /// How many entries have no result, or stand behind one that has none.
    pub(super) fn open(&self) -> usize {
        self.ordered.open.len()
    }

    pub(super) fn accepted(&mut self, place: u64, id: Option<&str>, receipt: Receipt) {
        self.counts.accepted += 1;
        if self.answered == Answered::Failures {
            return self.ordered.leave_out(place);
        }
        let Receipt { partition, offset, .. } = receipt;
        let id = id.map_or_else(|| Cow::Owned(format!("{partition}-{offset}")), Cow::Borrowed);
        let (status, topic) = ("accepted", &self.topic[..]);
        let result = Accepted { status, id, topic, partition: partition.0, offset: offset.0 };
        self.ordered.set(place, &result);
    }

    pub(super) fn refused(&mut self, place: u64, id: Option<&str>, problem: &Problem) {
        let status = if is_for_later(problem.code) {
            self.counts.retry += 1;
            "retry"
        } else {
            self.counts.rejected += 1;
            "rejected"
        };
        let (code, detail) = (problem.code.code(), &problem.detail[..]);
        let index = (self.answered == Answered::Failures).then_some(place);
        self.ordered.set(place, &Refused { status, index, id, code, detail });
    }

    /// Whether there is anything to be given out.
    pub(super) fn is_waiting(&self) -> bool {
        !self.ordered.text.is_empty()
    }

    /// Gives out what is enough for a piece, or whatever there is. `false`: not now.
    pub(super) fn give_out(&mut self, any: bool) -> bool {
        let enough = if any { 1 } else { PIECE };
        let text = &mut self.ordered.text;
        if text.len() < enough {
            return true;
        }
        if self.outbox.unsent() > self.budget.share(SHARE) {
            return false;
        }
        match self.budget.reserve(text.len() as u64) {
            Ok(reservation) => {
                self.outbox.push(std::mem::take(text).into(), Some(reservation));
                true
            }
            Err(_) => false,
        }
    }

    /// Gives out the rest.
    pub(super) fn finish(self) -> Counts {
        let Counts { accepted, retry, rejected } = self.counts;
        let Ordered { notation, mut text, began, .. } = self.ordered;
        let counts = format!(r#""accepted":{accepted},"retry":{retry},"rejected":{rejected}}}"#);
        // Writing to memory cannot fail.
        let _ = match (notation, self.answered) {
            (Notation::Document, _) if began => write!(text, "],{counts}"),
            (Notation::Document, _) => write!(text, r#"{{"results":[],{counts}"#),
            (Notation::Lines, Answered::Failures) => writeln!(text, "{{{counts}"),
            (Notation::Lines, Answered::All) => Ok(()),
        };
        // What is left is small, and nobody else waits for its memory.
        let reservation = self.budget.reserve(text.len() as u64).ok();
        self.outbox.push(text.into(), reservation);
        self.counts
    }

    /// Where they go.
    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}

/// Whether the same task may be accepted later.
fn is_for_later(code: ProblemCode) -> bool {
    matches!(code.status(), 409 | 429 | 500..)
        // A request that has begun is not authorized any more once its token means something else: in another one it may be.
        || matches!(code, ProblemCode::BodyTimeout | ProblemCode::IncompleteBody | ProblemCode::Unauthorized)
}

/// Texts and numbers can always be written to memory.
fn write(text: &mut Vec<u8>, result: &impl Serialize) {
    let _ = serde_json::to_writer(text, result);
}
