//! How much somebody may do in a second: the generic cell rate algorithm (ITU-T I.371, "virtual scheduling"), in which one may also run
//! into debt. What is asked for is not known beforehand, as a body's size: it is charged afterwards, and what comes next waits for it.

use std::time::Duration;

/// A rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units a second. So many may also come at once.
    pub per_second: u64,
}

/// How much of a rate was used: until when it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used(Duration);

/// In which what may come at once is counted.
const WINDOW: Duration = Duration::from_secs(1);

impl Rate {
    /// Whether something may come now, or how long it is to wait. `now` never goes back.
    pub fn admits(self, used: Used, now: Duration) -> Result<(), Duration> {
        // Something of the window must be free, however little: what comes may cost more than there is.
        match (used.0 + self.cost(1)).checked_sub(now + WINDOW) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(wait) => Err(wait),
        }
    }

    /// Charges `units`, also beyond what there is.
    #[must_use]
    pub fn charge(self, used: Used, units: u64, now: Duration) -> Used {
        Used(used.0.max(now) + self.cost(units))
    }

    /// Units that may come at once now.
    pub fn remaining(self, used: Used, now: Duration) -> u64 {
        let free = (now + WINDOW).saturating_sub(used.0.max(now));
        (free.as_secs_f64() * self.per_second as f64 + 1e-6) as u64
    }

    fn cost(self, units: u64) -> Duration {
        const SECOND: u64 = 1_000_000_000;
        let per_second = self.per_second.max(1);
        // What fits 64 bits, as nearly all does, is divided much faster.
        let nanos = match units.checked_mul(SECOND) {
            Some(units) => units / per_second,
            None => (u128::from(units) * u128::from(SECOND) / u128::from(per_second)) as u64,
        };
        Duration::from_nanos(nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Over any stretch of time no more is charged than the rate allows, one window's worth, and the last charge.
        #[test]
        fn no_stretch_of_time_has_more_than_its_rate(
            per_second in 1..2000_u64, steps in prop::collection::vec((0..400_u64, 1..3000_u64), 1..200)
        ) {
            let rate = Rate { per_second };
            let (mut used, mut now) = (Used::default(), Duration::ZERO);
            let mut charged: Vec<(Duration, u64)> = Vec::new();
            for (passed, units) in steps {
                now += Duration::from_millis(passed);
                match rate.admits(used, now) {
                    Ok(()) => {
                        used = rate.charge(used, units, now);
                        charged.push((now, units));
                    }
                    Err(wait) => prop_assert!(rate.admits(used, now + wait).is_ok()),
                }
            }
            for first in 0..charged.len() {
                let mut sum = 0;
                for (at, units) in &charged[first..] {
                    let allowed = ((*at - charged[first].0).as_secs_f64() + 1.0) * per_second as f64 + 1.0;
                    prop_assert!(sum as f64 <= allowed, "{sum} of {allowed}");
                    sum += units;
                }
            }
        }
    }

    #[test]
    fn a_windows_worth_may_come_at_once_and_then_one_after_another() {
        let rate = Rate { per_second: 10 };
        let (mut used, now) = (Used::default(), Duration::from_secs(5));
        for left in (0..10).rev() {
            assert_eq!(rate.admits(used, now), Ok(()));
            used = rate.charge(used, 1, now);
            assert_eq!(rate.remaining(used, now), left);
        }
        assert_eq!(rate.admits(used, now), Err(Duration::from_millis(100)));
        assert_eq!(rate.admits(used, now + Duration::from_millis(100)), Ok(()));
        assert_eq!(rate.remaining(used, now + Duration::from_secs(9)), 10);
    }

    #[test]
    fn a_debt_is_waited_for() {
        let rate = Rate { per_second: 1000 };
        let used = rate.charge(Used::default(), 60_000, Duration::ZERO);
        assert_eq!(rate.admits(used, Duration::ZERO), Err(Duration::from_millis(59_001)));
    }
}
