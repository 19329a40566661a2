//! Many events at once, a line each: sent again until each is accepted or rejected.

use crate::{
    Client, Error,
    answer::{Answer, Entry, Next},
    backoff::Backoff,
};
use bytes::Bytes;
use reqwest::StatusCode;
use serde::Deserialize;

#[derive(Deserialize)]
struct Results {
    results: Vec<Entry>,
}

/// What became of many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many are durable.
    pub accepted: u64,
    /// Those that never will be.
    pub rejected: Vec<Rejected>,
}

/// A line that was refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Which, from 0.
    pub line: usize,
    /// Why: a problem's code.
    pub code: String,
    /// The same for people.
    pub detail: String,
}

impl Client {
    /// Sends lines, each a CloudEvent as JSON without a line end in it, until each is accepted or rejected. Of one key they are stored in their
    /// order; what comes after a rejected one of its key is stored. Sent again, an event is stored once: its source and id are its name.
    pub async fn send_lines(&self, lines: &[Bytes]) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        let mut left: Vec<usize> = (0..lines.len()).collect();
        let mut backoff = Backoff::new(self.patience);
        while !left.is_empty() {
            let mut body = Vec::with_capacity(left.iter().map(|line| lines[*line].len() + 1).sum());
            for line in &left {
                body.extend_from_slice(&lines[*line]);
                body.push(b'\n');
            }
            let answer = Answer::within(backoff.left(), self.post_lines(body.into())?).await;
            let (why, after) = match results(&answer) {
                Some(results) => {
                    let before = left.len();
                    let why = outcome.take(&mut left, results);
                    if left.len() < before {
                        backoff = Backoff::new(self.patience);
                    }
                    (why, None)
                }
                None => match answer.judge() {
                    Next::Never(problem) => return Err(Error::Refused(problem)),
                    Next::Later(why, after) | Next::Unknown(why, after) => (why, after),
                },
            };
            if !left.is_empty() && !backoff.wait(after).await {
                return Err(Error::Unknown(format!("{} of {} events: {why}", left.len(), lines.len())));
            }
        }
        outcome.rejected.sort_by_key(|rejected| rejected.line);
        Ok(outcome)
    }
}

fn results(answer: &Answer) -> Option<Vec<Entry>> {
    match answer {
        Answer::Came { status: StatusCode::ACCEPTED, body, .. } => {
            serde_json::from_slice::<Results>(body).ok().map(|results| results.results)
        }
        _ => None,
    }
}

impl Outcome {
    /// Notes what is settled, and leaves what is to be sent again; says why the first of that is.
    fn take(&mut self, left: &mut Vec<usize>, results: Vec<Entry>) -> String {
        let mut why = "the answer ended early".to_owned();
        let mut again = Vec::new();
        let sent = std::mem::take(left);
        for (place, line) in sent.into_iter().enumerate() {
            match results.get(place) {
                Some(entry) if entry.status == "accepted" => self.accepted += 1,
                Some(entry) if entry.status == "rejected" => self.rejected.push(Rejected {
                    line,
                    code: entry.code.clone().unwrap_or_default(),
                    detail: entry.detail.clone().unwrap_or_default(),
                }),
                entry => {
                    if let (true, Some(detail)) =
                        (again.is_empty(), entry.and_then(|entry| entry.detail.clone()))
                    {
                        why = detail;
                    }
                    again.push(line);
                }
            }
        }
        *left = again;
        why
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(status: &str) -> Entry {
        Entry { status: status.into(), code: Some("c".into()), detail: Some("d".into()) }
    }

    proptest! {
        /// Whatever the answers are, each line is settled once, and what is left is left in its order.
        #[test]
        fn every_line_is_settled_once(answers in prop::collection::vec(prop::collection::vec(0..3_usize, 0..12), 0..8), lines in 0..12_usize) {
            let (mut outcome, mut left) = (Outcome::default(), (0..lines).collect::<Vec<_>>());
            for answer in answers {
                let results = answer.iter().map(|status| entry(["accepted", "retry", "rejected"][*status])).collect();
                outcome.take(&mut left, results);
                prop_assert!(left.is_sorted());
                let settled = outcome.accepted as usize + outcome.rejected.len();
                prop_assert_eq!(settled + left.len(), lines);
            }
        }
    }
}
