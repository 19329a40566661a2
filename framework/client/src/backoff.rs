//! How long to wait before the next attempt: what the front door says, else twice as long as before, with jitter; until patience is at its end.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// An attempt with less time than this is not begun: cut off before its answer came, it would leave unknown what was known.
const ATTEMPT: Duration = Duration::from_millis(500);

pub(crate) struct Backoff {
    /// `None`: for ever.
    until: Option<Instant>,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { until: Instant::now().checked_add(patience), next: FIRST }
    }

    /// What is left of patience.
    pub(crate) fn left(&self) -> Duration {
        self.until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Waits, or says that no time is left for another attempt.
    pub(crate) async fn wait(&mut self, after: Option<Duration>) -> bool {
        let own = self.next.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        self.next = (self.next * 2).min(LONGEST);
        let wait = after.map_or(own, |after| after.max(own.min(FIRST)));
        if wait.saturating_add(ATTEMPT) > self.left() {
            return false;
        }
        tokio::time::sleep(wait).await;
        true
    }
}
