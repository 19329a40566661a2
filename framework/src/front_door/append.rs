//! The last step of a task: handed to the log, with what the log said.

use super::{
    compress::INLINE,
    door::Door,
    idempotency::Begun,
    problem::{Problem, ProblemCode},
    receive::Received,
};
use crate::log::{AppendError, Idempotency, IdempotencyKey, NewRecord, NotWritten, PayloadHash, Receipt};
use actix_web::web;
use bytes::Bytes;
use partita_core::Partition;
use partita_proto::v1::Envelope;

/// A payload of this size is digested on a thread of its own.
const LARGE: u64 = 1 << 20;

/// Stores a task whose payload was received, or finds that it was stored before.
pub(super) async fn append(
    door: &Door,
    partition: Partition,
    key: Bytes,
    head: Envelope,
    received: Received,
    begun: Option<Begun>,
) -> Result<Receipt, Problem> {
    let name = begun.as_ref().map(|begun| begun.key);
    let record = record(door, key, head, received, name).await?;
    door.log.append(partition, record).await.map_err(not_appended)
}

/// Whether [`record_at_once`] may be used: the payload is so small that what it takes delays nobody.
pub(super) fn is_small(received: &Received) -> bool {
    received.size <= INLINE
}

/// The record of a small payload.
pub(super) fn record_at_once(
    door: &Door,
    key: Bytes,
    head: Envelope,
    received: Received,
    name: Option<IdempotencyKey>,
) -> NewRecord {
    let received = if name.is_some() { received.digested(door.log.payload_hash()) } else { received };
    let received = door.compressor.compress_at_once(received, &head);
    sealed(key, head, received, name)
}

/// The record of any payload.
pub(super) async fn record(
    door: &Door,
    key: Bytes,
    head: Envelope,
    received: Received,
    name: Option<IdempotencyKey>,
) -> Result<NewRecord, Problem> {
    if is_small(&received) {
        return Ok(record_at_once(door, key, head, received, name));
    }
    let received = if name.is_some() { digested(received, door.log.payload_hash()).await? } else { received };
    let received = door.compressor.compress(received, &head).await?;
    Ok(sealed(key, head, received, name))
}

fn sealed(key: Bytes, mut head: Envelope, received: Received, name: Option<IdempotencyKey>) -> NewRecord {
    let Received { intake, compression, size, digest } = received;
    head.payload_size = size;
    head.set_compression(compression);
    let (value, reservation) = intake.seal(&head);
    let idempotency = name.zip(digest).map(|(key, digest)| Idempotency { key, digest });
    NewRecord { key, value, reservation: Some(reservation), idempotency }
}

async fn digested(received: Received, hash: PayloadHash) -> Result<Received, Problem> {
    if received.digest.is_some() || received.size < LARGE {
        return Ok(received.digested(hash));
    }
    let broken = |_| Problem::new(ProblemCode::Internal, "the payload could not be looked at");
    web::block(move || received.digested(hash)).await.map_err(broken)
}

/// What the log's refusal is to the task's sender.
pub(super) fn not_appended(error: AppendError) -> Problem {
    match error {
        AppendError::NotWritten { code, reason } => {
            let code = match code {
                NotWritten::Away => ProblemCode::LogAway,
                NotWritten::Full => ProblemCode::LogFull,
                NotWritten::Busy => ProblemCode::LogBusy,
                NotWritten::Closing => ProblemCode::Draining,
                NotWritten::TooLarge => ProblemCode::TooLarge,
                NotWritten::InFlight => ProblemCode::IdempotencyKeyInFlight,
                NotWritten::NotReady => ProblemCode::NotReady,
                NotWritten::Reused => ProblemCode::IdempotencyKeyReused,
            };
            Problem::new(code, reason)
        }
        AppendError::Unknown { reason } => Problem::new(ProblemCode::UnknownOutcome, reason),
    }
}
