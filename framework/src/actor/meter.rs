//! What one actor measures. Handles are made once; counts are added up locally and told once a run of tasks.

use crate::metrics as names;
use metrics::{Counter, Histogram, counter, histogram};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Its handler succeeded.
    Done,
    /// It is stored for an operator, and may succeed later.
    Parked,
    /// It is stored for an operator, and never will.
    Rejected,
}

pub(crate) struct Meter {
    processed: [Counter; 3],
    ended: [u64; 3],
    done: Histogram,
    failed: Histogram,
    end_to_end: Histogram,
    /// The wall clock, read once a run: a monotonic instant and what time it was then.
    clock: (Instant, f64),
}

impl Meter {
    pub(crate) fn new(topic: &str) -> Self {
        let processed = |outcome| counter!(names::TASKS_PROCESSED_TOTAL, "topic" => topic.to_owned(), "outcome" => outcome);
        let duration = |outcome| histogram!(names::TASK_DURATION_SECONDS, "outcome" => outcome);
        Self {
            processed: [processed("done"), processed("parked"), processed("rejected")],
            ended: [0; 3],
            done: duration("done"),
            failed: duration("failed"),
            end_to_end: histogram!(names::TASK_END_TO_END_SECONDS),
            clock: wall_clock(),
        }
    }

    /// One attempt took this long.
    pub(crate) fn attempt(&self, succeeded: bool, took: Duration) {
        if succeeded { &self.done } else { &self.failed }.record(took.as_secs_f64());
    }

    /// A task that the front door took at `created_at_ms` ended at `now`.
    pub(crate) fn ended(&mut self, end: End, created_at_ms: u64, now: Instant) {
        self.ended[end as usize] += 1;
        let (then, wall) = self.clock;
        let now = wall + now.saturating_duration_since(then).as_secs_f64();
        // A task that came from a machine whose clock is ahead has taken no time, not less than none.
        self.end_to_end.record((now - created_at_ms as f64 / 1e3).max(0.0));
    }

    /// Tells the recorder, and looks at the wall clock again.
    pub(crate) fn flush(&mut self) {
        for (counter, count) in self.processed.iter().zip(&mut self.ended) {
            if *count > 0 {
                counter.increment(std::mem::take(count));
            }
        }
        self.clock = wall_clock();
    }
}

fn wall_clock() -> (Instant, f64) {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    (Instant::now(), since_epoch.as_secs_f64())
}
