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
        Self {
            birth: birth(SystemTime::now()),
            term: Some(Arc::new(Term { base: Instant::now(), until: AtomicU64::new(0) })),
        }
    }

    /// Where the low halves of its epochs begin: greater than any former life's, by this machine's clock. 0 where that does not
    /// matter.
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

/// In tenths of a second since 2025: the low half of an epoch is full in 2038, and begins again.
fn birth(now: SystemTime) -> u32 {
    let since_2025 = now.duration_since(UNIX_EPOCH + YEAR_2025).unwrap_or_default();
    (since_2025.as_millis() / 100) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_tenure_holds_until_the_end_of_its_term() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let tenure = Tenure::limited();
        assert!(!tenure.holds(now) && Tenure::for_good().holds(now));
        tenure.renew(now + second);
        assert!(tenure.holds(now) && !tenure.holds(now + second));
    }

    #[test]
    fn a_birth_is_in_tenths_of_a_second_since_2025() {
        let at = |since_2025| birth(UNIX_EPOCH + YEAR_2025 + Duration::from_millis(since_2025));
        assert_eq!([at(0), at(99), at(100), at(86_400_000)], [0, 0, 1, 864_000]);
        assert_eq!((birth(UNIX_EPOCH), Tenure::for_good().birth()), (0, 0));
    }
}
