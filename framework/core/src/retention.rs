//! Which tasks of a partition the log's retention may soon delete though they have not ended.
//!
//! Kafka deletes whole segments from a partition's beginning: by age, once a segment's last record is older than `retention.ms`, and by
//! size, while the partition is larger than `retention.bytes` (<https://kafka.apache.org/documentation/#topicconfigs>).

use crate::Offset;

/// What a topic's retention goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// How old a record becomes at least, in milliseconds. `None`: it is not deleted for its age.
    pub age_ms: Option<u64>,
    /// Whether records are deleted for the partition's size.
    pub by_size: bool,
}

impl Retention {
    /// As the topic's settings say, where a negative number stands for no limit.
    pub fn from_settings(retention_ms: Option<i64>, retention_bytes: Option<i64>) -> Self {
        let limit = |setting: Option<i64>| setting.and_then(|limit| u64::try_from(limit).ok());
        Self { age_ms: limit(retention_ms), by_size: limit(retention_bytes).is_some() }
    }

    /// From which age on a task that has not ended raises the alarm: half of what it may become.
    pub fn alarm_age_ms(self) -> Option<u64> {
        self.age_ms.map(|age| age / 2)
    }
}

/// What a partition of the log holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its first offset.
    pub first: Offset,
    /// The offset after its last.
    pub last: Offset,
    /// The first offset whose record is younger than the alarm's age, `last` or more if none is. `None` without such an age.
    pub young: Option<Offset>,
}

impl Kept {
    /// Tasks below this offset that have not ended are in danger: they have reached the alarm's age, or, where retention goes by size
    /// and has begun to delete, are in the older half of what is there.
    pub fn endangered_before(self, retention: Retention) -> Offset {
        let by_age = self.young.unwrap_or(self.first);
        let deletes = retention.by_size && self.first > Offset(0);
        let older_half = if deletes { self.last.0.saturating_sub(self.first.0) / 2 } else { 0 };
        by_age.max(Offset(self.first.0 + older_half)).min(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BY_SIZE: Retention = Retention { age_ms: None, by_size: true };

    fn kept(first: u64, last: u64, young: Option<u64>) -> Kept {
        Kept { first: Offset(first), last: Offset(last), young: young.map(Offset) }
    }

    #[test]
    fn a_negative_limit_is_none() {
        assert_eq!(Retention::from_settings(Some(-1), Some(-1)), Retention::default());
        assert_eq!(Retention::from_settings(None, None), Retention::default());
        let both = Retention::from_settings(Some(604_800_000), Some(1 << 30));
        assert_eq!((both.alarm_age_ms(), both.by_size), (Some(302_400_000), true));
    }

    #[test]
    fn by_size_nothing_is_in_danger_before_the_first_deletion() {
        assert_eq!(kept(0, 100, None).endangered_before(BY_SIZE), Offset(0));
        assert_eq!(kept(40, 100, None).endangered_before(BY_SIZE), Offset(70));
    }

    #[test]
    fn of_age_and_size_the_nearer_counts() {
        let both = Retention { age_ms: Some(1000), by_size: true };
        assert_eq!(kept(40, 100, Some(50)).endangered_before(both), Offset(70));
        assert_eq!(kept(40, 100, Some(90)).endangered_before(both), Offset(90));
    }

    proptest! {
        #[test]
        fn what_is_in_danger_is_in_the_log(
            first in 0_u64..1000, length in 0_u64..1000, young in prop::option::of(any::<u64>()), by_size: bool,
        ) {
            let (last, retention) = (first + length, Retention { age_ms: Some(1), by_size });
            let before = kept(first, last, young).endangered_before(retention).0;
            prop_assert!((first..=last).contains(&before));
            if let Some(young) = young {
                prop_assert!(before >= young.min(last), "all that are old enough");
            }
            if !by_size {
                prop_assert_eq!(before, young.map_or(first, |young| young.clamp(first, last)), "and no others");
            }
        }
    }
}
