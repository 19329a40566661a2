//! A task that will not be handled is stored where the operator can read it, and only then has it ended.

use super::{lane::Order, meter::End, runner::Runner, work::Work};
use crate::{
    log::{ParkedRecord, Record},
    metrics as names,
};
use bytes::Bytes;
use partita_core::{Offset, ParkReason, retry};
use partita_proto::v1::{Parked, parked::Kind};
use prost::Message;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Between two attempts to store a task while the log refuses it.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

impl<W: Work> Runner<W> {
    /// Stores the task. Returns once the log has it durably, however long that takes: the task has not ended before. An
    /// order ends the wait, and the task comes again to whoever is assigned the partition next.
    pub(crate) async fn put_aside(
        &mut self,
        record: &Record,
        end: End,
        reason: ParkReason,
        detail: String,
    ) -> Result<End, Order> {
        let assignment = &self.setup.assignment;
        let (partition, offset) = (assignment.partition, record.offset);
        tracing::warn!(%partition, %offset, reason = reason.label(), "a task is put aside");
        let parked = Bytes::from(self.note(offset, end, detail));
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.tenured().await?;
            let task =
                ParkedRecord { key: record.key.clone(), value: record.value.clone(), parked: parked.clone() };
            let stored = self.setup.log.park(partition, task);
            let stored = tokio::select! {
                biased;
                stored = stored => stored,
                () = self.lane.until_stopped() => return Err(Order::Stop),
            };
            let Err(error) = stored else { break };
            tracing::error!(%partition, %offset, %error, attempt, "a task could not be put aside and blocks its partition; it is tried again");
            let jitter = self.jitter(offset, attempt);
            self.wait(retry::backoff(attempt, BACKOFF, BACKOFF_MAX, jitter)).await?;
        }
        metrics::counter!(names::PARKED_TASKS_TOTAL, "reason" => reason.label()).increment(1);
        Ok(end)
    }

    fn note(&self, offset: Offset, end: End, reason: String) -> Vec<u8> {
        let assignment = &self.setup.assignment;
        let kind = if end == End::Rejected { Kind::Rejected } else { Kind::Parked };
        Parked {
            kind: kind.into(),
            reason,
            topic: assignment.topic().to_owned(),
            partition: assignment.partition(),
            offset: offset.0,
            epoch: assignment.epoch(),
            attempts: self.ctx.attempt,
            parked_at_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
        }
        .encode_to_vec()
    }
}
