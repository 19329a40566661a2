//! Tasks from the program itself, without HTTP.

use super::Running;
use crate::{
    envelope::PayloadBuffer,
    log::{AppendError, Idempotency, IdempotencyKey, NewRecord, NotWritten, Receipt},
};
use bytes::Bytes;
use partita_core::partition_of;
use partita_proto::v1::Envelope;
use std::{
    future::Future,
    time::{SystemTime, UNIX_EPOCH},
};

/// The longest key, as for the front door.
const LONGEST_KEY: usize = 256;

/// A task that is to be stored.
#[derive(Debug, Clone, Default)]
pub struct NewTask {
    /// The name of the payload's type, for pipelines with several.
    pub type_name: Option<String>,
    /// The payload's media type.
    pub content_type: Option<String>,
    /// The payload.
    pub payload: Bytes,
    /// Names the task, where it may be submitted again: with the same name and payload it is stored once.
    pub idempotency_key: Option<String>,
}

impl Running {
    /// Stores a task, as `POST /v1/tasks/{key}` does: the receipt means that it is durable. Tasks of one key are handled in the
    /// order of these calls, not of their answers; but one with an `idempotency_key` over Kafka in the order of its answer: await that
    /// before the key's next.
    pub fn submit(
        &self,
        key: &str,
        task: NewTask,
    ) -> impl Future<Output = Result<Receipt, AppendError>> + use<> {
        let taken = self.record(key, task).map(|record| {
            let log = &self.shared.log;
            log.append(partition_of(key.as_bytes(), log.partitions()), record)
        });
        async move { taken?.await }
    }

    fn record(&self, key: &str, task: NewTask) -> Result<NewRecord, AppendError> {
        let size = task.payload.len() as u64;
        let limit = self.shared.config.limits.max_task.as_u64();
        if key.is_empty() || key.len() > LONGEST_KEY {
            return Err(refused(NotWritten::TooLarge, "a key has 1 to 256 bytes".into()));
        }
        if size > limit {
            let reason = format!("{size} bytes are above limits.max_task of {limit}");
            return Err(refused(NotWritten::TooLarge, reason));
        }
        let head = Envelope {
            created_at_ms: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
                as u64,
            r#type: task.type_name,
            content_type: task.content_type,
            payload_size: size,
            ..Envelope::default()
        };
        let room = PayloadBuffer::allocation(&head, task.payload.len()) as u64;
        let reservation = self.shared.memory.intake.try_reserve(room).ok_or_else(|| {
            refused(NotWritten::Busy, "memory.budget is used up by tasks that wait to be stored".into())
        })?;
        let mut buffer = PayloadBuffer::new(&head, task.payload.len());
        buffer.extend(&task.payload);
        let idempotency = task.idempotency_key.map(|name| Idempotency {
            key: IdempotencyKey::of_request(key.as_bytes(), &name, 0),
            digest: self.shared.log.payload_hash().of(&task.payload),
        });
        Ok(NewRecord {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: buffer.seal(&head),
            reservation: Some(reservation),
            idempotency,
        })
    }
}

fn refused(code: NotWritten, reason: String) -> AppendError {
    AppendError::NotWritten { code, reason }
}
