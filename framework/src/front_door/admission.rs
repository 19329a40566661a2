//! Whether a task may come in: core decides, this file asks and words the answer.

use super::problem::{Problem, ProblemCode};
use crate::log::LogHealth;
use partita_core::{Admission, Behind, LogState, Partition, PartitionHealth, RefusalCode};
use std::sync::Arc;

/// What this process knows against a partition. Called for each task, from any thread: it must not wait.
pub type PartitionHealthOf = Arc<dyn Fn(Partition) -> PartitionHealth + Send + Sync>;

/// What this process knows of its log. Called for each task, from any thread: it must not wait.
pub type LogHealthNow = Arc<dyn Fn() -> LogHealth + Send + Sync>;

/// Decides by everything that is known before a byte of the task's body is kept.
pub(super) fn admit(
    draining: bool,
    health: LogHealth,
    partition: PartitionHealth,
    reserved: bool,
) -> Result<(), Problem> {
    let state = match &health {
        LogHealth::Ready => LogState::Ready,
        LogHealth::Away(_) => LogState::Away,
        LogHealth::Full(_) => LogState::Full,
        LogHealth::Mismatch(_) => LogState::Mismatch,
    };
    let admission = Admission { draining, log: state, partition, reserved };
    admission.admit().map_err(|refusal| {
        refused(refusal.code, partition, health).after(refusal.retry_after.as_secs() as u32)
    })
}

fn is_behind(Behind { tasks, age, .. }: Behind) -> Problem {
    let detail = format!(
        "{tasks} tasks of this key's partition have not ended, the oldest has waited for {} s: more than front_door.backlog_tasks or \
         front_door.backlog_age allows; other partitions go on",
        age.as_secs()
    );
    Problem::new(ProblemCode::PartitionBehind, detail)
}

fn refused(code: RefusalCode, partition: PartitionHealth, health: LogHealth) -> Problem {
    if let (RefusalCode::PartitionBehind, PartitionHealth::Behind(behind)) = (code, partition) {
        return is_behind(behind);
    }
    match (code, health) {
        (
            RefusalCode::LogAway | RefusalCode::LogFull | RefusalCode::LogMismatch,
            LogHealth::Away(reason) | LogHealth::Full(reason) | LogHealth::Mismatch(reason),
        ) => Problem::new(code.into(), reason),
        (RefusalCode::Draining, _) => draining(),
        (RefusalCode::OutOfMemoryBudget, _) => out_of_budget(),
        (RefusalCode::PartitionStuck, _) => Problem::new(
            ProblemCode::PartitionStuck,
            "the partition of this key waits for an operator; other keys go on",
        ),
        (other, _) => Problem::new(other.into(), "try again soon"),
    }
}

/// The refusal of a process that is stopping.
pub(super) fn draining() -> Problem {
    Problem::new(
        ProblemCode::Draining,
        "this process is stopping; send the task again, to another one if there is",
    )
}

/// The refusal of bytes that do not fit.
pub(super) fn out_of_budget() -> Problem {
    Problem::new(
        ProblemCode::OutOfMemoryBudget,
        "the memory for requests is in use; try again soon, or raise memory.budget",
    )
}

impl From<RefusalCode> for ProblemCode {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::Draining => Self::Draining,
            RefusalCode::NotReady => Self::NotReady,
            RefusalCode::LogMismatch => Self::LogMismatch,
            RefusalCode::LogAway => Self::LogAway,
            RefusalCode::LogFull => Self::LogFull,
            RefusalCode::PartitionStuck => Self::PartitionStuck,
            RefusalCode::PartitionBehind => Self::PartitionBehind,
            RefusalCode::OutOfMemoryBudget => Self::OutOfMemoryBudget,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_refusals_keep_their_names_and_their_times() {
        for code in RefusalCode::ALL {
            let problem = ProblemCode::from(code);
            assert_eq!(problem.code(), code.label());
            assert_eq!(problem.retry_after().map(u64::from), Some(code.retry_after().as_secs()));
        }
    }
}
