//! Whether the front door may take a task: decided before any of its bytes is kept.

use crate::Behind;
use std::time::Duration;

/// What is known when a task knocks. `admit` decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Whether the process is on its way out.
    pub draining: bool,
    /// May appends be expected to succeed?
    pub log: LogState,
    /// The partition of the task's key.
    pub partition: PartitionHealth,
    /// Whether the task's bytes could be reserved.
    pub reserved: bool,
}

/// The log, as far as it is known without asking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogState {
    /// It was not reached yet since the start.
    Starting,
    /// Appends are expected to succeed.
    Ready,
    /// It cannot be reached.
    Away,
    /// It has no room.
    Full,
    /// The topic is not the one that this process was started with.
    Mismatch,
}

/// A partition, as far as this process knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionHealth {
    /// Nothing is known against it. Also a partition whose worker is another process.
    Open,
    /// It is halted: a task put there would wait for an operator.
    Stuck,
    /// More of its tasks wait than may, or for longer.
    Behind(Behind),
}

/// A task that is not taken. It is not written, for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", .code.label())]
pub struct Refusal {
    /// Why.
    pub code: RefusalCode,
    /// When it may be worth another try.
    pub retry_after: Duration,
}

/// Why a task is not taken. Closed, because it is a metric's label and a problem's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// The process is on its way out; another one takes over.
    Draining,
    /// The process has just started.
    NotReady,
    /// The topic has another number of partitions or another identity than at start.
    LogMismatch,
    /// The log cannot be reached.
    LogAway,
    /// The log has no room.
    LogFull,
    /// The partition of this key is halted.
    PartitionStuck,
    /// The partition of this key is too far behind.
    PartitionBehind,
    /// Too many bytes are on their way already.
    OutOfMemoryBudget,
}

impl RefusalCode {
    /// Every code there is.
    pub const ALL: [Self; 8] = [
        Self::Draining,
        Self::NotReady,
        Self::LogMismatch,
        Self::LogAway,
        Self::LogFull,
        Self::PartitionStuck,
        Self::PartitionBehind,
        Self::OutOfMemoryBudget,
    ];

    /// The stable name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::NotReady => "not_ready",
            Self::LogMismatch => "log_mismatch",
            Self::LogAway => "log_away",
            Self::LogFull => "log_full",
            Self::PartitionStuck => "partition_stuck",
            Self::PartitionBehind => "partition_behind",
            Self::OutOfMemoryBudget => "out_of_memory_budget",
        }
    }

    /// How soon another try may help: soon where it mends itself, later where somebody has to act.
    pub fn retry_after(self) -> Duration {
        Duration::from_secs(match self {
            Self::OutOfMemoryBudget | Self::Draining | Self::NotReady => 1,
            Self::LogAway => 5,
            Self::PartitionBehind => 10,
            Self::LogFull | Self::PartitionStuck | Self::LogMismatch => 30,
        })
    }
}

impl From<RefusalCode> for Refusal {
    fn from(code: RefusalCode) -> Self {
        Self { code, retry_after: code.retry_after() }
    }
}

impl Admission {
    /// Takes the task or says why not. What concerns the whole process is named before what concerns the one task.
    pub fn admit(self) -> Result<(), Refusal> {
        if self.draining {
            return Err(RefusalCode::Draining.into());
        }
        match self.log {
            LogState::Starting => return Err(RefusalCode::NotReady.into()),
            LogState::Mismatch => return Err(RefusalCode::LogMismatch.into()),
            LogState::Away => return Err(RefusalCode::LogAway.into()),
            LogState::Full => return Err(RefusalCode::LogFull.into()),
            LogState::Ready => {}
        }
        match self.partition {
            PartitionHealth::Open => {}
            PartitionHealth::Stuck => return Err(RefusalCode::PartitionStuck.into()),
            PartitionHealth::Behind(Behind { retry_after, .. }) => {
                return Err(Refusal { code: RefusalCode::PartitionBehind, retry_after });
            }
        }
        if self.reserved { Ok(()) } else { Err(RefusalCode::OutOfMemoryBudget.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Admission =
        Admission { draining: false, log: LogState::Ready, partition: PartitionHealth::Open, reserved: true };

    const BEHIND: Behind =
        Behind { tasks: 9, age: Duration::from_secs(8), retry_after: Duration::from_secs(7) };

    #[test]
    fn a_partition_that_is_behind_is_tried_again_when_it_may_have_caught_up() {
        let admission = Admission { partition: PartitionHealth::Behind(BEHIND), ..WELL };
        assert_eq!(admission.admit().unwrap_err().retry_after, BEHIND.retry_after);
    }

    fn code(admission: Admission) -> Option<&'static str> {
        admission.admit().err().map(|refusal| refusal.code.label())
    }

    #[test]
    fn a_task_is_taken_only_where_nothing_speaks_against_it() {
        assert_eq!(code(WELL), None);
        let cases = [
            (Admission { draining: true, ..WELL }, "draining"),
            (Admission { log: LogState::Starting, ..WELL }, "not_ready"),
            (Admission { log: LogState::Away, ..WELL }, "log_away"),
            (Admission { log: LogState::Full, ..WELL }, "log_full"),
            (Admission { log: LogState::Mismatch, ..WELL }, "log_mismatch"),
            (Admission { partition: PartitionHealth::Stuck, ..WELL }, "partition_stuck"),
            (Admission { partition: PartitionHealth::Behind(BEHIND), ..WELL }, "partition_behind"),
            (Admission { reserved: false, ..WELL }, "out_of_memory_budget"),
        ];
        for (admission, expected) in cases {
            assert_eq!(code(admission), Some(expected));
        }
    }

    #[test]
    fn every_refusal_says_when_to_come_again() {
        for code in RefusalCode::ALL {
            assert!(Refusal::from(code).retry_after >= Duration::from_secs(1));
        }
    }

    #[test]
    fn a_process_on_its_way_out_says_so_whatever_else_is_wrong() {
        let all_wrong = Admission {
            draining: true,
            log: LogState::Away,
            partition: PartitionHealth::Stuck,
            reserved: false,
        };
        assert_eq!(code(all_wrong), Some("draining"));
    }
}
