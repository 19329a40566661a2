//! The last step of a task: handed to the log, with what the log said.

use super::{
    door::Door,
    problem::{Problem, ProblemCode},
    receive::Received,
};
use crate::log::{AppendError, NewRecord, NotWritten, Receipt};
use bytes::Bytes;
use partita_core::Partition;
use partita_proto::v1::Envelope;

/// Stores a task whose payload was received.
pub(super) async fn append(
    door: &Door,
    partition: Partition,
    key: Bytes,
    mut head: Envelope,
    received: Received,
) -> Result<Receipt, Problem> {
    let Received { intake, compression, size } = door.compressor.compress(received, &head).await?;
    head.payload_size = size;
    head.set_compression(compression);
    let (value, reservation) = intake.seal(&head);
    let record = NewRecord { key, value, reservation: Some(reservation) };
    door.log.append(partition, record).await.map_err(not_appended)
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
            };
            Problem::new(code, reason)
        }
        AppendError::Unknown { reason } => Problem::new(ProblemCode::UnknownOutcome, reason),
    }
}
