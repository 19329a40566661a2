//! The entries of a request, from wherever they come.

use super::{super::problem::Problem, Entry, document::Document, lines::Lines};
use partita_proto::v1::Envelope;

/// Where the entries come from.
pub(super) enum Entries<'a> {
    Document(Document),
    Lines(Box<Lines<'a>>),
}

impl Entries<'_> {
    /// The next one; `None` at the end. A call that is dropped has lost nothing.
    pub(super) async fn next(&mut self, base: &Envelope) -> Result<Option<Entry>, Problem> {
        match self {
            Self::Document(document) => document.next(base).await,
            Self::Lines(lines) => lines.next(base).await,
        }
    }

    /// Lets a sender whose body cannot be read any further come to its end.
    pub(super) async fn drain(&mut self) {
        if let Self::Lines(lines) = self {
            lines.drain().await;
        }
    }

    /// Leaves the next one out, for this reason. `false`: that would not help, for it is left out already.
    pub(super) fn skip(&mut self, problem: Problem) -> bool {
        match self {
            Self::Document(document) => document.skip(problem),
            Self::Lines(lines) => return lines.skip(problem),
        }
        true
    }
}
