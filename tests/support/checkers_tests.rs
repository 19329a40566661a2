//! A checker that cannot fail judges nothing: each is shown a good history and the histories it exists to catch.

use super::*;
use crate::history::at;
use partita_core::Offset;

fn sent(key: &str, sequence: u64, outcome: Outcome) -> Attempt {
    Attempt { key: key.into(), sequence, digest: format!("{key}-{sequence}"), outcome }
}

fn ok(key: &str, sequence: u64, offset: u64) -> Attempt {
    sent(key, sequence, Outcome::Ok(at(0, offset)))
}

fn end(key: &str, sequence: u64, offset: u64) -> End {
    End { key: key.into(), digest: format!("{key}-{sequence}"), position: at(0, offset) }
}

/// Three tasks of `a` and one of `b`, one refused and one unknown attempt on the way, everything handled.
fn good() -> History {
    let (a0, b0, a1, a2) = (at(0, 0), at(0, 1), at(0, 2), at(0, 4));
    History {
        attempts: vec![
            ok("a", 0, 0),
            sent("b", 0, Outcome::Failed),
            ok("b", 0, 1),
            ok("a", 1, 2),
            sent("a", 2, Outcome::Unknown),
            ok("a", 2, 4),
        ],
        ends: vec![end("a", 0, 0), end("b", 0, 1), end("a", 1, 2), end("a", 2, 3), end("a", 2, 4)],
        steps: vec![
            Step::Ended(a0),
            Step::Ended(b0),
            Step::Committed(at(0, 2)),
            Step::Ended(a1),
            Step::Ended(at(0, 3)),
            Step::Ended(a2),
            Step::Committed(at(0, 5)),
        ],
    }
}

#[test]
fn a_good_history_passes_every_judge() {
    assert_eq!(violations(&good(), Bounds::default()), Vec::<String>::new());
}

#[test]
fn an_acknowledged_task_without_an_end_is_lost() {
    let mut history = good();
    history.ends.retain(|end| end.position != at(0, 2));
    assert_eq!(nothing_lost(&history.attempts, &history.ends).len(), 1);
    assert!(!in_order(&history.attempts, &history.ends).is_empty(), "and its successor left a gap");
}

#[test]
fn an_acknowledged_task_whose_bytes_are_others_is_lost() {
    let mut history = good();
    history.ends[1].digest = "damaged".into();
    assert_eq!(nothing_lost(&history.attempts, &history.ends).len(), 1);
    assert_eq!(in_order(&history.attempts, &history.ends).len(), 1, "and something ended that nobody sent");
}

#[test]
fn an_acknowledged_task_that_ended_somewhere_else_is_lost() {
    let mut history = good();
    history.ends[0].position = at(3, 0);
    assert_eq!(nothing_lost(&history.attempts, &history.ends).len(), 1);
    assert!(!in_order(&history.attempts, &history.ends).is_empty(), "and its key was in two partitions");
}

#[test]
fn a_task_that_ended_before_its_predecessor_is_out_of_order() {
    let mut history = good();
    history.ends.swap(0, 2);
    assert!(!in_order(&history.attempts, &history.ends).is_empty());
    assert!(nothing_lost(&history.attempts, &history.ends).is_empty());
}

#[test]
fn an_unknown_attempt_may_be_missing_but_an_acknowledged_one_may_not_be_skipped() {
    let attempts = [ok("a", 0, 0), sent("a", 1, Outcome::Unknown), ok("a", 2, 1)];
    let ends = [end("a", 0, 0), end("a", 2, 1)];
    assert!(in_order(&attempts, &ends).is_empty());
    let attempts = [ok("a", 0, 0), ok("a", 1, 1), ok("a", 2, 2)];
    assert_eq!(in_order(&attempts, &[end("a", 0, 0), end("a", 2, 2)]).len(), 1);
}

#[test]
fn a_task_that_was_written_twice_without_an_unknown_attempt_is_a_duplicate_or_a_refused_one_that_appeared() {
    let mut history = good();
    history.ends.push(end("a", 0, 5));
    assert_eq!(written_once(&history.attempts, &history.ends, 0).len(), 1);
    assert!(written_once(&history.attempts, &history.ends, 1).is_empty());
    assert!(nothing_failed_appears(&history.attempts, &history.ends).is_empty());
    history.ends.push(end("b", 0, 6));
    assert_eq!(nothing_failed_appears(&history.attempts, &history.ends).len(), 1, "one attempt was refused");
}

#[test]
fn a_refused_task_that_appears_all_the_same_is_caught() {
    let attempts = [sent("a", 0, Outcome::Failed)];
    assert_eq!(nothing_failed_appears(&attempts, &[end("a", 0, 0)]).len(), 1);
    assert!(nothing_failed_appears(&attempts, &[]).is_empty());
}

#[test]
fn redeliveries_beyond_the_bound_are_caught() {
    let mut history = good();
    history.ends.extend([end("a", 2, 4), end("a", 2, 4)]);
    assert!(within_redeliveries(&history.ends, 2).is_empty());
    assert_eq!(within_redeliveries(&history.ends, 1).len(), 1);
}

#[test]
fn a_commit_past_a_task_that_has_not_ended_is_caught() {
    let steps = [Step::Ended(at(0, 0)), Step::Ended(at(0, 2)), Step::Committed(at(0, 3))];
    assert_eq!(commits_within_the_ended_prefix(&steps).len(), 1);
    let in_time =
        [Step::Ended(at(0, 0)), Step::Ended(at(0, 2)), Step::Ended(at(0, 1)), Step::Committed(at(0, 3))];
    assert!(commits_within_the_ended_prefix(&in_time).is_empty());
    let too_early =
        [Step::Committed(Position { partition: Partition(0), offset: Offset(1) }), Step::Ended(at(0, 0))];
    assert_eq!(commits_within_the_ended_prefix(&too_early).len(), 1);
}

#[test]
fn a_commit_that_goes_back_is_caught() {
    let steps =
        [Step::Ended(at(1, 0)), Step::Ended(at(1, 1)), Step::Committed(at(1, 2)), Step::Committed(at(1, 1))];
    assert_eq!(commits_within_the_ended_prefix(&steps).len(), 1);
}
