//! The last step of a task: handed to the log, with what the log said.

use super::{
    door::Door,
    idempotency::Begun,
    problem::{Problem, ProblemCode},
    receive::Received,
};
use crate::log::{AppendError, Idempotency, NewRecord, NotWritten, PayloadDigest, Receipt};
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
    mut head: Envelope,
    received: Received,
    begun: Option<Begun>,
) -> Result<Receipt, Problem> {
    let (received, idempotency) = match &begun {
        Some(begun) => {
            let (received, digest) = digest(received).await?;
            (received, Some(Idempotency { key: begun.key, digest }))
        }
        None => (received, None),
    };
    let Received { intake, compression, size, .. } = door.compressor.compress(received, &head).await?;
    head.payload_size = size;
    head.set_compression(compression);
    let (value, reservation) = intake.seal(&head);
    let record = NewRecord { key, value, reservation: Some(reservation), idempotency };
    door.log.append(partition, record).await.map_err(not_appended)
}

/// The digest of the payload, where it was not made while it came.
async fn digest(received: Received) -> Result<(Received, PayloadDigest), Problem> {
    let digest = |received: Received| {
        let digest = received.digest.unwrap_or_else(|| PayloadDigest::of(received.intake.payload()));
        (received, digest)
    };
    if received.digest.is_some() || received.size < LARGE {
        return Ok(digest(received));
    }
    let broken = |_| Problem::new(ProblemCode::Internal, "the payload could not be looked at");
    web::block(move || digest(received)).await.map_err(broken)
}

fn not_appended(error: AppendError) -> Problem {
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
