//! How a consumer holds its partitions: since when, and until when they may be taken for its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// 2025-01-01T00:00:00Z.
const YEAR_2025: Duration = Duration::from_secs(1_735_689_600);

/// Written by the consumer's thread, looked at before each task begins. See [`partita_core::Lease`].
#[derive(Debug, Clone, Default)]
pub struct Tenure {
    birth: u32,
    term: Option<Arc<Term>>,
}

#[derive(Debug)]
struct Term {
    base: Instant,
    /// In nanoseconds since `base`.
    until: AtomicU64,
}

impl Tenure {
    /// Of a log that nobody else can read meanwhile.
    pub fn for_good() -> Self {
        Self::default()
    }

    /// Of a member of a group: has to be renewed before the first task begins.
    pub fn limited() -> Self {
        let since_2025 = SystemTime::now().duration_since(UNIX_EPOCH + YEAR_2025).unwrap_or_default();
        Self {
            birth: (since_2025.as_millis() / 100).try_into().unwrap_or(u32::MAX / 2),
            term: Some(Arc::new(Term { base: Instant::now(), until: AtomicU64::new(0) })),
        }
    }

    /// When it began, in tenths of a second since 2025: greater than any former life's, by this machine's clock. 0 where that
    /// does not matter.
    pub fn birth(&self) -> u32 {
        self.birth
    }

    /// Tasks may begin until then.
    pub fn renew(&self, until: Instant) {
        if let Some(term) = &self.term {
            let until = until.saturating_duration_since(term.base).as_nanos() as u64;
            term.until.store(until, Ordering::Relaxed);
        }
    }

    /// Whether a task may begin now.
    pub fn holds(&self, now: Instant) -> bool {
        match &self.term {
            None => true,
            Some(term) => {
                let now = now.saturating_duration_since(term.base).as_nanos() as u64;
                now < term.until.load(Ordering::Relaxed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_limited_tenure_holds_until_the_end_of_its_term() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let tenure = Tenure::limited();
        assert!(!tenure.holds(now) && Tenure::for_good().holds(now));
        assert!(tenure.birth() > 500_000_000 && Tenure::for_good().birth() == 0);
        tenure.renew(now + second);
        assert!(tenure.holds(now) && !tenure.holds(now + second));
    }
}
