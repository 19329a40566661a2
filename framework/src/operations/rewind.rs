//! Reading a partition from another offset on: again from an earlier one, or past what cannot be read.

use super::{OperationError, Operations};
use crate::status::Wish;
use humantime_serde::re::humantime::parse_rfc3339_weak;
use partita_core::{Epoch, Offset, Partition};
use std::{
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long the new offset may take to be committed.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Where a partition is to be read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewindTo {
    /// The first task that the log still has.
    Earliest,
    /// The end: nothing that is there now is handled.
    Latest,
    /// Where it is committed: a partition that was halted for what lies around that goes on.
    Committed,
    /// An offset.
    Offset(u64),
    /// The first task that the log took at this time or later.
    Time(SystemTime),
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewound {
    /// Which partition.
    pub partition: u32,
    /// The next offset to read before, as far as it was committed.
    pub from: u64,
    /// The next offset to read now.
    pub to: u64,
    /// The offset after the log's last record.
    pub end: u64,
}

impl Operations {
    /// Where `to` is in a partition that this process owns, without going there.
    pub async fn locate(&self, partition: u32, to: RewindTo) -> Result<Rewound, OperationError> {
        self.owned(partition)?;
        let place = Partition(partition);
        let time_ms = match to {
            RewindTo::Time(time) => {
                Some(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64)
            }
            RewindTo::Earliest | RewindTo::Latest | RewindTo::Committed | RewindTo::Offset(_) => None,
        };
        let extent = self.log.extent(place, time_ms).await?;
        let (first, end) = (extent.first.0, extent.end.0);
        let known = self.status.partition(place).ok_or(OperationError::NotOwned(partition))?;
        let from = known.committed.unwrap_or(known.start).0;
        let within = |asked| match (first..=end).contains(&asked) {
            true => Ok(asked),
            false => Err(OperationError::OutOfRange { partition, first, end, asked }),
        };
        let offset = match to {
            RewindTo::Earliest => first,
            RewindTo::Latest => end,
            RewindTo::Time(_) => extent.at.map_or(end, |offset| offset.0),
            RewindTo::Offset(asked) => within(asked)?,
            RewindTo::Committed => within(from)?,
        };
        Ok(Rewound { partition, from, to: offset, end })
    }

    /// Has a partition read from there on. The task in hand is given up; what is parked stays parked. Returns once the new offset is
    /// committed.
    pub async fn rewind(&self, partition: u32, to: RewindTo) -> Result<Rewound, OperationError> {
        let rewound = self.locate(partition, to).await?;
        let place = Partition(partition);
        let before = self.epoch(place).ok_or(OperationError::NotOwned(partition))?;
        self.status.wish(Wish::Rewind(place, Offset(rewound.to)));
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            tokio::time::sleep(LOOK).await;
            let status = self.status.partition(place).ok_or(OperationError::TakenAway(partition))?;
            let stored = status.committed.is_some_and(|committed| committed.0 >= rewound.to);
            if status.epoch > before && stored {
                return Ok(rewound);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(OperationError::NotStored(partition));
            }
        }
    }

    fn epoch(&self, partition: Partition) -> Option<Epoch> {
        self.status.partition(partition).map(|status| status.epoch)
    }
}

impl FromStr for RewindTo {
    type Err = String;

    /// `earliest`, `latest`, `committed`, an offset, or a time as RFC 3339 has it.
    fn from_str(text: &str) -> Result<Self, String> {
        let time = || {
            parse_rfc3339_weak(text).map(Self::Time).map_err(|_| {
                format!("{text:?} is not earliest, latest, committed, an offset, or a time like 2026-01-31T12:00:00Z")
            })
        };
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            "committed" => Ok(Self::Committed),
            _ => text.parse().map(Self::Offset).or_else(|_| time()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_word_an_offset_or_a_time() {
        assert_eq!("earliest".parse(), Ok(RewindTo::Earliest));
        assert_eq!("latest".parse(), Ok(RewindTo::Latest));
        assert_eq!("committed".parse(), Ok(RewindTo::Committed));
        assert_eq!("42".parse(), Ok(RewindTo::Offset(42)));
        let noon = UNIX_EPOCH + Duration::from_secs(1_769_860_800);
        for text in ["2026-01-31T12:00:00Z", "2026-01-31 12:00:00"] {
            assert_eq!(text.parse(), Ok(RewindTo::Time(noon)));
        }
        for text in ["", "first", "-1", "yesterday"] {
            assert!(text.parse::<RewindTo>().is_err(), "{text:?}");
        }
    }
}
