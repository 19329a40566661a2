//! Until when a consumer's partitions may be taken for its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// Written by the consumer's thread, looked at before each task begins. See [`partita_core::Lease`].
#[derive(Debug, Clone, Default)]
pub struct Tenure(Option<Arc<Term>>);

#[derive(Debug)]
struct Term {
    base: Instant,
    /// In nanoseconds since `base`.
    until: AtomicU64,
}

impl Tenure {
    /// Of a log that nobody else can read meanwhile.
    pub fn for_good() -> Self {
        Self(None)
    }

    /// Has to be renewed before the first task begins.
    pub fn limited() -> Self {
        Self(Some(Arc::new(Term { base: Instant::now(), until: AtomicU64::new(0) })))
    }

    /// Tasks may begin until then.
    pub fn renew(&self, until: Instant) {
        if let Some(term) = &self.0 {
            let until = until.saturating_duration_since(term.base).as_nanos() as u64;
            term.until.store(until, Ordering::Relaxed);
        }
    }

    /// Whether a task may begin now.
    pub fn holds(&self, now: Instant) -> bool {
        match &self.0 {
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
        tenure.renew(now + second);
        assert!(tenure.holds(now) && !tenure.holds(now + second));
    }
}
