//! What is committed beside an offset, in the broker's metadata field: the parking journal's mark, and the id of the topic that the
//! offset is of. An offset of another topic means other tasks, whatever number it is.

use crate::log::journal::{mark_from_text, mark_to_text};
use partita_core::Mark;

/// The last word's first character; no mark has it.
const TOPIC: char = '@';

/// As text.
pub(super) fn to_text(mark: &Mark, topic_id: &str) -> String {
    format!("{} {TOPIC}{topic_id}", mark_to_text(mark))
}

/// What `to_text` wrote. Another text has no mark, and one without a topic's id is of any topic.
pub(super) fn from_text(text: &str) -> (Mark, Option<&str>) {
    let (mark, topic_id) = match text.rsplit_once(' ') {
        Some((mark, word)) if word.starts_with(TOPIC) => (mark, Some(&word[TOPIC.len_utf8()..])),
        _ => (text, None),
    };
    (mark_from_text(mark).unwrap_or_default(), topic_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use partita_core::{Claim, Epoch, Position};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_committed_is_read_as_it_was_written(from: u64, claim in prop::option::of(any::<(u64, u64)>()), topic_id in "[A-Za-z0-9_./@-]{1,40}") {
            let claims = claim.map(|(at, epoch)| Claim { at: Position(at), epoch: Epoch(epoch) }).into_iter().collect();
            let mark = Mark { from: Position(from), claims };
            let (with, without) = (to_text(&mark, &topic_id), mark_to_text(&mark));
            prop_assert_eq!(from_text(&with), (mark.clone(), Some(&*topic_id)));
            prop_assert_eq!(from_text(&without), (mark, None), "as former versions wrote it");
        }

        #[test]
        fn no_text_breaks_the_reader(text in ".*") {
            let _ = from_text(&text);
        }
    }
}
