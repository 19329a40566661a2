//! A body of lines, each a CloudEvent (NDJSON): taken as they come, so that a body may be of any length.

use super::{
    super::{
        budget::Budget,
        decoded::Decoded,
        intake::Intake,
        problem::{Problem, ProblemCode},
        refuse::LINGER,
    },
    Entry, json, of_size,
};
use partita_proto::v1::Envelope;

/// Lines above this size keep the memory that they were received in.
const SMALL: u64 = 64 << 10;

/// Lines on their way in.
pub(super) struct Lines<'a> {
    decoded: Decoded<'a>,
    budget: Budget,
    /// The longest line.
    limit: u64,
    /// How much of the decoder's piece is part of lines already.
    taken: usize,
    line: Option<Intake>,
    /// All of the line is there.
    complete: bool,
    /// Why the line that is coming is left out.
    skipping: Option<Problem>,
    /// How much of it was dropped.
    skipped: u64,
    /// It goes on and on: nothing after it is read.
    is_endless: bool,
    ended: bool,
}

impl<'a> Lines<'a> {
    pub(super) fn new(decoded: Decoded<'a>, budget: &Budget, limit: u64) -> Self {
        Self {
            decoded,
            budget: budget.clone(),
            limit,
            taken: 0,
            line: None,
            complete: false,
            skipping: None,
            skipped: 0,
            is_endless: false,
            ended: false,
        }
    }

    /// The next task; `None` at the end. [`ProblemCode::OutOfMemoryBudget`]: there is no memory for it now; ask again, or `skip` it. Any
    /// other problem is the body's, and its end. A call that is dropped has lost nothing.
    pub(super) async fn next(&mut self, base: &Envelope) -> Result<Option<Entry>, Problem> {
        loop {
            if self.complete {
                if let Some(entry) = self.finish(base)? {
                    return Ok(Some(entry));
                }
            } else if self.is_endless {
                let why = format!("a line has more than {} bytes: what follows was not read", self.longest());
                return Err(Problem::new(ProblemCode::TooLarge, why));
            } else if let Some(len) = self.whole() {
                if let Some(entry) = self.take_whole(len, base)? {
                    return Ok(Some(entry));
                }
            } else if self.taken < self.decoded.piece().len() {
                self.take()?;
            } else if self.ended {
                return Ok(None);
            } else {
                self.ended = !self.decoded.advance().await?;
                self.taken = 0;
                // The last line needs no end.
                self.complete = self.ended;
            }
        }
    }

    /// Leaves the task that is coming out, for this reason. `false`: it is being left out, or its bytes are not even decoded.
    pub(super) fn skip(&mut self, problem: Problem) -> bool {
        let is_new = self.skipping.is_none() && (self.complete || self.taken < self.decoded.piece().len());
        if is_new {
            self.skipping = Some(problem);
            self.skipped = self.line.take().map_or(0, |line| line.len());
        }
        is_new
    }

    /// Reads the rest and drops it, for a sender who hears no answer before.
    pub(super) async fn drain(&mut self) {
        let _ = tokio::time::timeout(LINGER, self.decoded.drain()).await;
    }

    /// How long a line may be that is left out.
    fn longest(&self) -> u64 {
        self.limit.saturating_mul(2)
    }

    /// The length of the next line, where all of it is there already and it is small.
    fn whole(&self) -> Option<usize> {
        if self.skipping.is_some() || self.line.as_ref().is_some_and(|line| line.len() > 0) {
            return None;
        }
        let rest = self.decoded.piece().get(self.taken..)?;
        memchr::memchr(b'\n', rest).filter(|len| *len as u64 <= SMALL.min(self.limit))
    }

    /// Makes a task of a line where it is; `None` for an empty one.
    fn take_whole(&mut self, len: usize, base: &Envelope) -> Result<Option<Entry>, Problem> {
        let line = &self.decoded.piece()[self.taken..][..len];
        let task = if is_blank(line) {
            None
        } else {
            let mut document = Intake::document(&self.budget, len as u64)?;
            document.push(line)?;
            Some(of_size(json::task(document, base), len as u64))
        };
        self.taken += len + 1;
        Ok(task)
    }

    /// Takes the rest of a line, or as much of it as is there.
    fn take(&mut self) -> Result<(), Problem> {
        let rest = &self.decoded.piece()[self.taken..];
        let end = memchr::memchr(b'\n', rest);
        let len = end.unwrap_or(rest.len());
        if self.skipping.is_some() {
            self.skipped += len as u64;
            self.is_endless = self.skipped > self.longest();
        } else {
            let line = match &mut self.line {
                Some(line) => line,
                none => none.insert(Intake::growing(&self.budget, &Envelope::default(), self.limit)?),
            };
            match line.push(&rest[..len]) {
                Err(problem) if problem.code == ProblemCode::TooLarge => {
                    let why = format!("the line has more than {} bytes", self.limit);
                    self.skip(Problem::new(ProblemCode::TooLarge, why));
                }
                pushed => pushed?,
            }
        }
        self.taken += len + usize::from(end.is_some());
        self.complete = end.is_some() || self.is_endless;
        Ok(())
    }

    /// What the line says; `None` for an empty one.
    fn finish(&mut self, base: &Envelope) -> Result<Option<Entry>, Problem> {
        if let Some(problem) = self.skipping.take() {
            self.begin();
            return Ok(Some(of_size(Err(problem.into()), std::mem::take(&mut self.skipped))));
        }
        let Some(line) = &self.line else {
            self.complete = false;
            return Ok(None);
        };
        if is_blank(line.payload()) {
            self.begin();
            return Ok(None);
        }
        let document = if line.len() <= SMALL {
            let mut document = Intake::document(&self.budget, line.len())?;
            document.push(line.payload())?;
            self.begin();
            Some(document)
        } else {
            self.complete = false;
            self.line.take()
        };
        Ok(document.map(|document| {
            let size = document.len();
            of_size(json::task(document, base), size)
        }))
    }

    /// Begins a line.
    fn begin(&mut self) {
        self.complete = false;
        match &mut self.line {
            Some(line) if line.len() <= SMALL => line.clear(),
            line => *line = None,
        }
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}
