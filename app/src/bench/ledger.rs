//! What was sent and what became of it, by key, in order: what a verdict is held against.

/// The end of one task, as far as its sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Acknowledged as durable.
    Acknowledged {
        /// The receipt.
        partition: u32,
        /// The receipt.
        offset: u64,
    },
    /// Definitely not stored: refused, or given up without any doubtful attempt.
    NotWritten,
    /// Given up after an attempt whose outcome nobody knows.
    Unknown,
}

/// One task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Its end.
    pub(crate) end: End,
    /// Attempts whose outcome is unknown: each may have left a copy.
    pub(crate) doubtful: u32,
}

/// The tasks of every key; a task's place is its sequence number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    keys: Vec<Vec<Entry>>,
}

impl Ledger {
    /// For so many keys.
    pub(crate) fn new(keys: u32) -> Self {
        Self { keys: vec![Vec::new(); keys as usize] }
    }

    /// The next task of a key.
    pub(crate) fn next_sequence(&self, key: u32) -> u32 {
        self.keys[key as usize].len() as u32
    }

    /// Notes the end of a key's next task.
    pub(crate) fn note(&mut self, key: u32, entry: Entry) {
        self.keys[key as usize].push(entry);
    }

    /// The tasks of a key.
    pub(crate) fn tasks(&self, key: u32) -> &[Entry] {
        &self.keys[key as usize]
    }

    /// The keys that were sent anything.
    pub(crate) fn keys(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.keys.len() as u32).filter(|key| !self.tasks(*key).is_empty())
    }

    /// How many tasks were acknowledged.
    pub(crate) fn acknowledged(&self, key: u32) -> usize {
        self.tasks(key).iter().filter(|entry| matches!(entry.end, End::Acknowledged { .. })).count()
    }
}

/// One payload that came back, in the order it was stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// Which task it is.
    pub(crate) sequence: u32,
    /// Where it is.
    pub(crate) partition: u32,
    /// Where it is.
    pub(crate) offset: u64,
}

/// How what came back differs from what was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Verdict {
    /// Tasks that were acknowledged and are there.
    pub(crate) confirmed: u64,
    /// Tasks of unknown outcome that are there.
    pub(crate) unknown_found: u64,
    /// Further copies of tasks that had an attempt of unknown outcome.
    pub(crate) allowed_duplicates: u64,
    /// Acknowledged tasks that are not there.
    pub(crate) lost: u64,
    /// First appearances out of order.
    pub(crate) reordered: u64,
    /// Acknowledged tasks that are there, but not where their receipt says.
    pub(crate) misplaced: u64,
    /// Copies that no attempt of unknown outcome explains.
    pub(crate) duplicates: u64,
    /// Tasks reported as definitely not stored that are there.
    pub(crate) resurrected: u64,
    /// Payloads whose bytes are not those that were sent.
    pub(crate) damaged: u64,
    /// What was found first, for people.
    pub(crate) findings: Vec<String>,
}

impl Verdict {
    /// Whether every promise was kept.
    pub(crate) fn holds(&self) -> bool {
        self.lost + self.reordered + self.misplaced + self.duplicates + self.resurrected + self.damaged == 0
    }

    /// Notes a finding; only the first few are kept in words.
    pub(crate) fn find(&mut self, what: String) {
        if self.findings.len() < 20 {
            self.findings.push(what);
        }
    }

    /// Judges one key.
    pub(crate) fn judge(&mut self, name: &str, sent: &[Entry], found: &[Found]) {
        let mut copies = vec![0_u32; sent.len()];
        let mut at_receipt = vec![false; sent.len()];
        let mut newest: Option<u32> = None;
        for record in found {
            let sequence = record.sequence;
            let Some(entry) = sent.get(sequence as usize) else {
                self.resurrected += 1;
                self.find(format!("{name}: task {sequence} was never sent"));
                continue;
            };
            copies[sequence as usize] += 1;
            at_receipt[sequence as usize] |=
                entry.end == End::Acknowledged { partition: record.partition, offset: record.offset };
            if copies[sequence as usize] == 1 {
                if newest.is_some_and(|newest| sequence < newest) {
                    self.reordered += 1;
                    self.find(format!("{name}: task {sequence} comes after task {}", newest.unwrap_or(0)));
                }
                newest = newest.max(Some(sequence));
            }
        }
        for (sequence, entry) in sent.iter().enumerate() {
            self.judge_task(name, sequence, entry, copies[sequence], at_receipt[sequence]);
        }
    }

    fn judge_task(&mut self, name: &str, sequence: usize, entry: &Entry, copies: u32, at_receipt: bool) {
        let expected = match (entry.end, copies) {
            (End::Acknowledged { partition, offset }, 0) => {
                self.lost += 1;
                self.find(format!(
                    "{name}: task {sequence} was acknowledged at {partition}-{offset} and is lost"
                ));
                return;
            }
            (End::Acknowledged { partition, offset }, _) => {
                self.confirmed += 1;
                if !at_receipt {
                    self.misplaced += 1;
                    self.find(format!("{name}: task {sequence} is not at its receipt {partition}-{offset}"));
                }
                1
            }
            (End::NotWritten, 0) | (End::Unknown, 0) => return,
            (End::NotWritten, _) => {
                self.resurrected += 1;
                self.find(format!("{name}: task {sequence} was reported as not stored and is there"));
                return;
            }
            (End::Unknown, _) => {
                self.unknown_found += 1;
                1
            }
        };
        let more = copies - expected;
        // An acknowledged task may have one copy for each doubtful attempt; an unknown one's own copy is one of those.
        let allowed =
            if entry.end == End::Unknown { entry.doubtful.saturating_sub(1) } else { entry.doubtful };
        self.allowed_duplicates += u64::from(more.min(allowed));
        if more > allowed {
            self.duplicates += u64::from(more - allowed);
            self.find(format!("{name}: task {sequence} is there {copies} times"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn acknowledged(offset: u64, doubtful: u32) -> Entry {
        Entry { end: End::Acknowledged { partition: 0, offset }, doubtful }
    }

    fn judge(sent: &[Entry], found: &[(u32, u64)]) -> Verdict {
        let found: Vec<Found> =
            found.iter().map(|&(sequence, offset)| Found { sequence, partition: 0, offset }).collect();
        let mut verdict = Verdict::default();
        verdict.judge("k", sent, &found);
        verdict
    }

    #[test]
    fn what_was_acknowledged_and_came_back_in_order_is_confirmed() {
        let verdict = judge(&[acknowledged(5, 0), acknowledged(9, 0)], &[(0, 5), (1, 9)]);
        assert!(verdict.holds());
        assert_eq!(verdict.confirmed, 2);
    }

    #[test]
    fn a_lost_task_breaks_the_verdict() {
        let verdict = judge(&[acknowledged(5, 0), acknowledged(9, 0)], &[(0, 5)]);
        assert_eq!((verdict.lost, verdict.holds()), (1, false));
    }

    #[test]
    fn two_tasks_exchanged_break_the_verdict() {
        let verdict = judge(&[acknowledged(9, 0), acknowledged(5, 0)], &[(1, 5), (0, 9)]);
        assert_eq!((verdict.reordered, verdict.holds()), (1, false));
    }

    #[test]
    fn a_receipt_that_names_another_place_breaks_the_verdict() {
        assert_eq!(judge(&[acknowledged(5, 0)], &[(0, 6)]).misplaced, 1);
    }

    #[test]
    fn a_copy_is_allowed_only_after_a_doubtful_attempt() {
        assert!(judge(&[acknowledged(6, 1)], &[(0, 5), (0, 6)]).holds());
        assert_eq!(judge(&[acknowledged(6, 1)], &[(0, 5), (0, 6)]).allowed_duplicates, 1);
        assert_eq!(judge(&[acknowledged(6, 0)], &[(0, 5), (0, 6)]).duplicates, 1);
        assert_eq!(judge(&[acknowledged(6, 1)], &[(0, 5), (0, 6), (0, 7)]).duplicates, 1);
    }

    #[test]
    fn an_unknown_task_may_be_there_or_not_and_a_refused_one_may_not() {
        let unknown = Entry { end: End::Unknown, doubtful: 1 };
        assert!(judge(&[unknown], &[]).holds());
        assert_eq!(judge(&[unknown], &[(0, 1)]).unknown_found, 1);
        assert!(!judge(&[unknown], &[(0, 1), (0, 2)]).holds());
        let refused = Entry { end: End::NotWritten, doubtful: 0 };
        assert!(judge(&[refused], &[]).holds());
        assert_eq!(judge(&[refused], &[(0, 1)]).resurrected, 1);
    }
}
