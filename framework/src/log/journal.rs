//! The parking journal of a partition: each parked task, and each end of one, as a record. What they mean is
//! [`partita_core::Parking`]'s; here is how they are written down.

use super::Receipt;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use partita_core::{Claim, Epoch, Mark, Noted, Offset, Partition, Position, Weight};
use partita_proto::v1::{Parked, parked::Kind};
use prost::Message;

/// A record that is to be stored in a partition's parking journal.
#[derive(Debug)]
pub struct ParkedRecord {
    /// The task's key.
    pub key: Bytes,
    /// The task's record's value, as it was read; empty where the record only tells of an end.
    pub value: Bytes,
    /// What it says, as an encoded `partita.v1.Parked`.
    pub parked: Bytes,
}

/// A record of a partition's parking journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRecord {
    /// Where it is.
    pub position: Position,
    /// When the log took it, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    /// The task's key.
    pub key: Bytes,
    /// What it says, as an encoded `partita.v1.Parked`.
    pub parked: Bytes,
    /// The size of its value in bytes.
    pub size: u64,
    /// Its value, where that was asked for.
    pub value: Bytes,
}

/// What of the journal is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalRead {
    /// As many records as a page has, without their values.
    Notes,
    /// The first record, whole, and those after it, as long as their values together have no more bytes than this.
    Values(u64),
}

/// Consecutive records of a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalPage {
    /// In order.
    pub records: Vec<JournalRecord>,
    /// Where to read on.
    pub next: Position,
    /// Whether that is the journal's end.
    pub at_end: bool,
}

/// Something could not be read now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the log cannot be read: {0}")]
pub struct ReadError(pub String);

impl JournalPage {
    /// Whether a value of `size` bytes fits after those of the page.
    pub(crate) fn takes(&self, size: u64, read: JournalRead) -> bool {
        let JournalRead::Values(most) = read else { return true };
        let sum: u64 = self.records.iter().map(|record| record.size).sum();
        self.records.is_empty() || sum + size <= most
    }
}

/// The answer to a question for a page.
pub type JournalFuture = BoxFuture<'static, Result<JournalPage, ReadError>>;

/// What a partition of the task topic reaches over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first offset that it has.
    pub first: Offset,
    /// The offset after its last.
    pub end: Offset,
    /// The first record that the log took at the time that was asked for, or later.
    pub at: Option<Offset>,
}

/// Where an assigned partition begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Which partition.
    pub partition: Partition,
    /// The first offset it will deliver: what is committed, else the log's first.
    pub offset: Offset,
    /// What was committed with it.
    pub mark: Mark,
    /// Where its parking journal ended when the partition was assigned.
    pub journal_end: Position,
}

/// What a record of the journal means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) epoch: Epoch,
    pub(crate) offset: Offset,
    pub(crate) noted: Noted,
    pub(crate) note: Parked,
}

impl JournalRecord {
    /// What it means to a pipeline of this topic and group; `None` for what is not its own.
    pub(crate) fn meaning(&self, topic_id: &str, group: &str) -> Option<Meaning> {
        let note = Parked::decode(self.parked.clone()).ok()?;
        let ours = |theirs: &str, ours: &str| theirs.is_empty() || ours.is_empty() || theirs == ours;
        if !ours(&note.topic_id, topic_id) || !ours(&note.group, group) {
            return None;
        }
        let noted = match note.kind() {
            Kind::Parked => Noted::Parked(Weight { value: self.size, decompressed: note.decompressed_size }),
            Kind::Rejected | Kind::Closed => Noted::Closed,
            Kind::Unspecified => return None,
        };
        Some(Meaning { epoch: Epoch(note.epoch), offset: Offset(note.offset), noted, note })
    }
}

impl Receipt {
    /// Where a stored record of the journal is.
    pub fn position(&self) -> Position {
        Position(self.offset.0)
    }
}

/// The first word of a mark's text form.
const MARK: &str = "partita-mark-1";
/// A mark's text has to fit what brokers store with an offset (`offset.metadata.max.bytes`, 4096 by default).
const MOST_CLAIMS: usize = 64;

/// A mark as text, to be stored beside an offset.
pub(crate) fn mark_to_text(mark: &Mark) -> String {
    let mut text = format!("{MARK} {}", mark.from.0);
    // Each voids what one member wrote after it was replaced, which is rare: so many are not seen. The latest count most.
    let skipped = mark.claims.len().saturating_sub(MOST_CLAIMS);
    for claim in &mark.claims[skipped..] {
        text.push_str(&format!(" {}:{}", claim.at.0, claim.epoch.0));
    }
    text
}

/// What `mark_to_text` wrote; `None` for anything else.
pub(crate) fn mark_from_text(text: &str) -> Option<Mark> {
    let mut words = text.split(' ');
    if words.next() != Some(MARK) {
        return None;
    }
    let from = Position(words.next()?.parse().ok()?);
    let claim = |word: &str| {
        let (at, epoch) = word.split_once(':')?;
        Some(Claim { at: Position(at.parse().ok()?), epoch: Epoch(epoch.parse().ok()?) })
    };
    Some(Mark { from, claims: words.map(claim).collect::<Option<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_mark_is_read_as_it_was_written(from: u64, claims in prop::collection::vec((any::<u64>(), any::<u64>()), 0..=MOST_CLAIMS)) {
            let claims = claims.into_iter().map(|(at, epoch)| Claim { at: Position(at), epoch: Epoch(epoch) }).collect();
            let mark = Mark { from: Position(from), claims };
            let text = mark_to_text(&mark);
            prop_assert!(text.len() <= 4096, "{} bytes", text.len());
            prop_assert_eq!(mark_from_text(&text), Some(mark));
        }

        #[test]
        fn no_text_breaks_the_reader(text in ".*") {
            let _ = mark_from_text(&text);
        }
    }

    #[test]
    fn somebody_elses_text_is_no_mark() {
        for text in
            ["", "partita-mark-1", "partita-mark-1 x", "partita-mark-1 4 5", "partita-mark-2 4", "note"]
        {
            assert_eq!(mark_from_text(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_another_group_or_a_former_topic_parked_is_not_ours() {
        let note = |group: &str, topic_id: &str| JournalRecord {
            position: Position(4),
            timestamp_ms: 0,
            key: Bytes::from_static(b"k"),
            parked: Parked {
                kind: Kind::Parked.into(),
                offset: 7,
                epoch: 9,
                group: group.into(),
                topic_id: topic_id.into(),
                decompressed_size: 30,
                ..Parked::default()
            }
            .encode_to_vec()
            .into(),
            size: 20,
            value: Bytes::new(),
        };
        let ours = note("g", "t").meaning("t", "g").unwrap();
        assert_eq!((ours.epoch, ours.offset), (Epoch(9), Offset(7)));
        assert_eq!(ours.noted, Noted::Parked(Weight { value: 20, decompressed: 30 }));
        assert_eq!(note("other", "t").meaning("t", "g"), None);
        assert_eq!(note("g", "former").meaning("t", "g"), None);
    }
}
