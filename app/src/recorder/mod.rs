//! The default handler: writes each payload as one object under its key, and serves them back.
//!
//! An object is named by the task's partition and offset and is never overwritten, so a redelivery changes nothing. It is durable when
//! the task ends: what is committed survives a power loss. A former owner of a partition is refused as soon as its successor has begun.

mod chunk;
mod config;
mod durable;
mod fence;
mod key_path;
mod routes;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use config::RecorderConfig;
pub(crate) use routes::routes;
pub(crate) use store::Recordings;

use bytes::Bytes;
use chunk::{Chunk, timestamp};
use fence::LaterClaim;
use partita::{Task, TaskContext, TaskError, TaskHandler};
use sha2::{Digest, Sha256};
use std::{collections::HashSet, sync::Arc, time::SystemTime};
use store::Put;

/// Payloads from this size on are hashed on a thread of their own: an arbiter has other partitions to serve.
const HASH_ASIDE: usize = 64 << 10;

/// Keys that are remembered as written to. Forgetting one costs a sync.
const REMEMBERED: usize = 4096;

/// One partition's recorder.
pub(crate) struct Recorder {
    recordings: Arc<Recordings>,
    claimed: bool,
    seen: HashSet<Box<[u8]>>,
}

impl Recorder {
    /// For one assignment of one partition.
    pub(crate) fn new(recordings: Arc<Recordings>) -> Self {
        Self { recordings, claimed: false, seen: HashSet::new() }
    }

    /// Writes a task's payload, unless a later owner has the partition.
    async fn record(&mut self, key: &[u8], chunk: Chunk, payload: Bytes) -> Result<(), TaskError> {
        if let Some(later) = self.recordings.hold(&chunk, self.claimed).await.map_err(unavailable)? {
            return Err(refused(&chunk, &later));
        }
        self.claimed = true;
        let seen = self.seen.contains(key);
        let put = self.recordings.put(key, &chunk, payload, seen).await.map_err(unavailable)?;
        if let Put::Conflict(there) = put {
            return Err(TaskError::Park(format!(
                "another chunk is stored as {}-{} of this key, from topic {} ({} bytes, {}): the log was made anew over old recordings; \
                 set handler.recorder.dir to an empty directory, or move the old recordings away",
                there.partition, there.offset, there.topic_id, there.size, there.stored_at
            )));
        }
        if !seen {
            if self.seen.len() >= REMEMBERED {
                self.seen.clear();
            }
            self.seen.insert(key.into());
        }
        Ok(())
    }
}

impl TaskHandler for Recorder {
    type Payload = Bytes;

    async fn handle(&mut self, task: Task<Bytes>, ctx: &TaskContext) -> Result<(), TaskError> {
        let fence = ctx.fence();
        let chunk = Chunk {
            partition: fence.partition,
            offset: fence.offset,
            type_name: task.type_name,
            content_type: task.content_type,
            size: task.payload.len() as u64,
            sha256: sha256(task.payload.clone()).await?,
            stored_at: timestamp(SystemTime::now()),
            topic_id: fence.topic_id.to_string(),
            epoch: fence.epoch,
        };
        self.record(ctx.key(), chunk, task.payload).await
    }
}

async fn sha256(payload: Bytes) -> Result<String, TaskError> {
    let aside = payload.len() >= HASH_ASIDE;
    let hash = move || hex::encode(Sha256::digest(&payload));
    if aside { Ok(tokio::task::spawn_blocking(hash).await?) } else { Ok(hash()) }
}

/// A disk that is full or away is waited for: no task is given up over it.
fn unavailable(error: object_store::Error) -> TaskError {
    TaskError::Unavailable { dependency: format!("the recordings directory ({error})"), retry_after: None }
}

/// A former owner waits until it hears that it is one: the task is its successor's.
fn refused(chunk: &Chunk, later: &LaterClaim) -> TaskError {
    let dependency = format!(
        "the claim to partition {} in the recordings directory (a later owner has it: its epoch is {}, this one's {}; only if there is \
         none, because the consumer group was made anew or the log comes from a backup, remove {})",
        chunk.partition,
        later.epoch,
        chunk.epoch,
        later.file.display()
    );
    TaskError::Unavailable { dependency, retry_after: None }
}
