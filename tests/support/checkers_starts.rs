//! The judges of what workers began (C7), and of one at a time.

use crate::journal::{Event, Line};
use std::collections::BTreeMap;

/// C7: once an owner of a partition has begun a task, no earlier owner begins another.
pub fn no_start_of_a_former_owner(lines: &[Line]) -> Vec<String> {
    let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in lines.iter().filter(|line| line.event == Event::Start) {
        let entry = &line.entry;
        let newest = newest.entry(entry.partition).or_insert(entry.epoch);
        if entry.epoch < *newest {
            wrong.push(format!("C7: {entry:?} began under a later owner's epoch {newest}"));
        }
        *newest = entry.epoch.max(*newest);
    }
    wrong
}

/// Within an assignment no task begins before the one before it has ended, and those of a key begin in the order of their offsets.
/// A task that is redriven begins with its first attempt again.
pub fn one_at_a_time(lines: &[Line]) -> Vec<String> {
    let mut present: BTreeMap<(u32, u64), (u64, u32, bool)> = BTreeMap::new();
    let mut last: BTreeMap<(&str, u64), (u64, u32)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for Line { event, entry, .. } in lines {
        let place = (entry.partition, entry.epoch);
        let attempt = (entry.offset, entry.attempt);
        if *event != Event::Start {
            match present.get_mut(&place) {
                Some((offset, number, running)) if (*offset, *number) == attempt => *running = false,
                _ => wrong.push(format!("C7: {event:?} of {entry:?}, which was not running")),
            }
            continue;
        }
        if let Some((offset, _, true)) = present.insert(place, (attempt.0, attempt.1, true)) {
            wrong.push(format!("C7: {entry:?} began while offset {offset} ran"));
        }
        if let Some((offset, number)) = last.insert((&entry.key, entry.epoch), attempt)
            && attempt <= (offset, number)
            && attempt != (offset, 1)
        {
            wrong.push(format!("C7: {entry:?} began after offset {offset}, attempt {number}, of its key"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Entry;
    use std::time::Duration;

    fn line(event: Event, offset: u64, epoch: u64, attempt: u32) -> Line {
        let entry = Entry { key: "k".into(), digest: "d".into(), partition: 1, offset, epoch, attempt };
        Line { time: Duration::ZERO, event, entry }
    }

    #[test]
    fn a_start_under_an_older_epoch_is_refused() {
        let good = [line(Event::Start, 1, 5, 1), line(Event::Start, 1, 6, 1), line(Event::End, 1, 5, 1)];
        assert!(no_start_of_a_former_owner(&good).is_empty());
        let bad = [line(Event::Start, 1, 6, 1), line(Event::Start, 2, 5, 1)];
        assert_eq!(no_start_of_a_former_owner(&bad).len(), 1);
    }

    #[test]
    fn two_at_once_a_step_back_and_an_end_of_nothing_are_refused() {
        let (start, end) = (Event::Start, Event::End);
        let good = [
            line(start, 1, 5, 1),
            line(Event::Failed, 1, 5, 1),
            line(start, 1, 5, 2),
            line(end, 1, 5, 2),
            line(start, 2, 5, 1),
        ];
        assert!(one_at_a_time(&good).is_empty());
        let zombie = [line(start, 1, 5, 1), line(start, 1, 6, 1), line(end, 1, 5, 1), line(end, 1, 6, 1)];
        assert!(one_at_a_time(&zombie).is_empty());
        assert_eq!(one_at_a_time(&[line(start, 1, 5, 1), line(start, 2, 5, 1)]).len(), 1);
        assert_eq!(one_at_a_time(&[line(start, 2, 5, 1), line(end, 2, 5, 1), line(start, 1, 5, 1)]).len(), 1);
        assert_eq!(one_at_a_time(&[line(end, 2, 5, 1)]).len(), 1);
    }
}
