//! What became of a task, by its partition and offset: from the committed offset, from what this process's workers have in hand, and from
//! the parking journal. Nothing is stored for it.

mod fates;

use crate::{
    log::{JournalRead, ReadError, TaskLog},
    memory::{MemoryBudget, MemoryPool},
    status::{PipelineStatus, Wish},
};
use fates::{Fate, Fates, Found};
use partita_core::{Offset, Partition};
use partita_proto::v1::Parked;
use prost::Message;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// How often a partition of another process is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// It waits for its turn; or it is being handled, by a worker of another process.
    Queued,
    /// It is being handled, or has been and its end is being committed.
    Running {
        /// Since when, in milliseconds since the Unix epoch, where that is known.
        since_ms: Option<u64>,
        /// Which attempt it is; 0 where that is not known.
        attempt: u32,
    },
    /// It was handled.
    Done,
    /// It was put aside, and waits for an operator.
    Parked(Aside),
    /// Its handler refused it for good.
    Rejected(Aside),
    /// It was parked, and an operator gave it up.
    Dropped(Aside),
}

/// Why and when a task was put aside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Aside {
    /// The kind of reason: attempts, parked, undecodable, unknown_type, rejected, behind; or empty.
    pub cause: String,
    /// For people.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl TaskState {
    /// Whether it stays so, unless an operator does something.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Queued | Self::Running { .. })
    }

    /// Its name.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running { .. } => "running",
            Self::Done => "done",
            Self::Parked(_) => "parked",
            Self::Rejected(_) => "rejected",
            Self::Dropped(_) => "dropped",
        }
    }
}

/// Where the states of tasks are asked for.
pub struct TaskStates {
    log: Arc<dyn TaskLog>,
    status: Arc<PipelineStatus>,
    fates: Mutex<Fates>,
    /// For the value of a journal's record, which comes with its reason.
    values: MemoryPool,
}

/// How far a partition has come.
struct Reach {
    /// Every task before this has ended.
    committed: Offset,
    /// Every task before this has, or is about to be noted as ended. What is known to a worker of this process.
    committable: Offset,
    /// There may be more.
    end: Option<Offset>,
}

impl TaskStates {
    pub(crate) fn new(log: Arc<dyn TaskLog>, status: Arc<PipelineStatus>, memory: &MemoryBudget) -> Self {
        let fates = Mutex::new(Fates::new(memory.states.clone()));
        Self { log, status, fates, values: memory.decode.clone() }
    }

    /// What became of a task; `None` if there is none.
    pub async fn of(&self, partition: Partition, offset: Offset) -> Result<Option<TaskState>, ReadError> {
        self.look(partition, offset, false).await
    }

    /// `exists`: it was there before, and the log need not be asked.
    async fn look(
        &self,
        partition: Partition,
        offset: Offset,
        exists: bool,
    ) -> Result<Option<TaskState>, ReadError> {
        if partition.0 >= self.log.partitions() {
            return Ok(None);
        }
        let reach = self.reach(partition).await?;
        if offset < reach.committed {
            return self.ended(partition, offset, reach.committed).await.map(Some);
        }
        if let Some(hand) = self.status.in_hand(partition).filter(|hand| hand.offset == offset) {
            return Ok(Some(TaskState::Running { since_ms: Some(hand.since_ms), attempt: hand.attempt }));
        }
        if offset < reach.committable {
            return Ok(Some(TaskState::Running { since_ms: None, attempt: 0 }));
        }
        let exists = match reach.end {
            _ if exists => true,
            Some(end) if offset < end => true,
            _ => offset < self.log.extent(partition, None).await?.end,
        };
        Ok(exists.then_some(TaskState::Queued))
    }

    /// The same, once it is settled, or as it is at the deadline, or when `enough` comes.
    pub async fn settled(
        &self,
        partition: Partition,
        offset: Offset,
        deadline: Instant,
        enough: impl Future<Output = ()>,
    ) -> Result<Option<TaskState>, ReadError> {
        let mut enough = std::pin::pin!(enough);
        let mut exists = false;
        loop {
            // Before the look: what changes after it is heard of.
            let Some(changed) = self.status.changed(partition) else { return Ok(None) };
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            let state = self.look(partition, offset, exists).await?;
            exists = true;
            if state.as_ref().is_none_or(TaskState::is_settled) {
                return Ok(state);
            }
            self.status.wish(Wish::Commit(partition, offset));
            let look = match self.status.partition(partition) {
                // It is heard of, unless the partition goes to another process in silence.
                Some(_) => 20 * LOOK,
                None => LOOK,
            };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(look) => {}
                () = tokio::time::sleep_until(deadline) => return Ok(state),
                () = &mut enough => return Ok(state),
            }
        }
    }

    async fn reach(&self, partition: Partition) -> Result<Reach, ReadError> {
        if let Some(owned) = self.status.partition(partition) {
            let committed = owned.committed.unwrap_or(owned.start);
            return Ok(Reach { committed, committable: owned.committable, end: owned.high_watermark });
        }
        let committed = self.log.committed(partition).await?.unwrap_or_default();
        Ok(Reach { committed, committable: committed, end: None })
    }

    /// How a task ended that is before the committed offset.
    async fn ended(
        &self,
        partition: Partition,
        offset: Offset,
        committed: Offset,
    ) -> Result<TaskState, ReadError> {
        let found = self.fates.lock().await.find(&self.log, partition, offset, committed).await?;
        let Some(Found { fate, position, size }) = found else { return Ok(TaskState::Done) };
        if fate == Fate::Done {
            return Ok(TaskState::Done);
        }
        let _memory = self.values.reserve(size).await;
        let page = self.log.journal(partition, position, JournalRead::Values(0)).await?;
        let record = page.records.into_iter().next().filter(|record| record.position == position);
        let note = record.and_then(|record| Parked::decode(record.parked).ok()).unwrap_or_default();
        let aside = Aside {
            cause: note.cause,
            reason: note.reason,
            attempts: note.attempts,
            at_ms: note.parked_at_ms,
        };
        Ok(match fate {
            Fate::Done => TaskState::Done,
            Fate::Parked => TaskState::Parked(aside),
            Fate::Rejected => TaskState::Rejected(aside),
            Fate::Dropped => TaskState::Dropped(aside),
        })
    }
}

impl std::fmt::Debug for TaskStates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskStates").finish_non_exhaustive()
    }
}
