//! When nothing can be written: everybody is told, and the writer tries until it can write again.

use super::super::{
    checkpoint,
    queue::{Op, refused},
    schema::read_tail,
    store::chunks_of,
};
use super::{Failed, Writer};
use crate::log::{AppendError, LogHealth, NotWritten, Reply};
use rusqlite::ErrorCode;
use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

/// How often a log without room is tried again.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// Why nothing can be written for now.
pub(super) struct Trouble {
    pub(super) error: AppendError,
    /// A commit may have half happened: the log must be read again.
    pub(super) unsure: bool,
    pub(super) probe_at: Instant,
}

impl Writer<'_> {
    /// Tries whether the log can be written again, if it is time to.
    pub(super) fn try_again(&mut self, now: Instant) {
        if self.trouble.as_ref().is_some_and(|trouble| now >= trouble.probe_at) {
            match self.probe() {
                Ok(()) => {
                    tracing::info!("the embedded log can write again");
                    self.trouble = None;
                    self.shared.health.set(LogHealth::Ready);
                }
                Err(failed) => {
                    tracing::debug!(error = %failed.error, "the embedded log still cannot write");
                    if let Some(trouble) = &mut self.trouble {
                        trouble.probe_at = Instant::now() + PROBE_EVERY;
                    }
                }
            }
        }
    }

    /// The transaction failed: answers everything that waits, and stops writing until a probe succeeds.
    pub(super) fn give_up(&mut self, failed: &Failed) {
        let reason = failed.error.to_string();
        let full = failed.error.sqlite_error_code() == Some(ErrorCode::DiskFull);
        // SQLite writes the commit mark last, so a commit without room for it did not happen; any other failure there may have
        // left it on the disk.
        let unsure =
            failed.in_commit && !full && failed.error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy);
        let health = if full {
            LogHealth::Full(format!(
                "the embedded log's disk is full ({reason}): free some space; it goes on by itself"
            ))
        } else {
            LogHealth::Away(format!(
                "the embedded log cannot write ({reason}): check its disk; it is tried again"
            ))
        };
        tracing::error!(%reason, unsure, "the embedded log could not write");
        let later = match &health {
            LogHealth::Full(reason) => refused(NotWritten::Full, reason.clone()),
            LogHealth::Away(reason) | LogHealth::Mismatch(reason) => {
                refused(NotWritten::Away, reason.clone())
            }
            LogHealth::Ready => refused(NotWritten::Away, reason.clone()),
        };
        self.shared.health.set(health);
        let now = if unsure { AppendError::Unknown { reason } } else { later.clone() };
        self.trouble = Some(Trouble { error: later, unsure, probe_at: Instant::now() + PROBE_EVERY });
        self.fail_all(now);
    }

    pub(super) fn fail_all(&mut self, error: AppendError) {
        let (mut records, mut bytes, mut told) = (0, 0, 0);
        for pending in self.pending.drain(..) {
            if let (Some(begun), Op::Write(write)) = (pending.begun, &pending.op) {
                self.abandoned.push((begun.first, chunks_of(write.value.len())));
            }
            match pending.op {
                Op::Write(write) => {
                    records += 1;
                    bytes += write.weight();
                    told += u64::from(write.reply.is_owed());
                    self.replies.push((write.reply, Err(error.clone())));
                }
                Op::Commit(commit) => (commit.reply)(Err(error.to_string())),
            }
        }
        Reply::send_all(self.replies.drain(..));
        match error {
            AppendError::NotWritten { .. } => self.meters.not_written.increment(told),
            AppendError::Unknown { .. } => self.meters.unknown.increment(told),
        }
        self.settle(records, bytes);
    }

    /// Tries whether the log can be written again.
    fn probe(&mut self) -> Result<(), Failed> {
        if self.trouble.as_ref().is_some_and(|trouble| trouble.unsure) {
            self.read_again()?;
        }
        self.transaction(true, |writer| {
            let connection = writer.store.connection();
            connection.execute("INSERT OR REPLACE INTO probe VALUES (0, zeroblob(262144))", [])?;
            Ok(())
        })?;
        let abandoned = std::mem::take(&mut self.abandoned);
        let cleaned = self.transaction(true, |writer| {
            let connection = writer.store.connection();
            connection.execute("DELETE FROM probe", [])?;
            for (first, count) in &abandoned {
                connection.execute(
                    "DELETE FROM chunks WHERE id >= ?1 AND id < ?2",
                    (*first as i64, (first + count) as i64),
                )?;
                connection.execute("DELETE FROM staging WHERE chunk = ?1", [*first as i64])?;
            }
            Ok(())
        });
        if cleaned.is_err() {
            self.abandoned = abandoned;
        }
        cleaned
    }

    /// After a commit of unknown outcome: starts the WAL over, so that what may lie in it beyond the last good commit can never
    /// come back, and reads where the log ends.
    fn read_again(&mut self) -> Result<(), Failed> {
        let connection = self.store.connection();
        let _alone = self.shared.gate.write().unwrap_or_else(PoisonError::into_inner);
        let checkpointed = checkpoint::checkpoint(connection, "RESTART")?;
        if checkpointed.busy {
            let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
            return Err(rusqlite::Error::SqliteFailure(busy, None).into());
        }
        self.tail = read_tail(connection, self.tail.ends.len() as u32)?;
        self.noted = self.noted.min(self.tail.seq);
        self.requests.read_again(connection)?;
        self.shared.published.reset(self.tail.seq, self.tail.ends.clone());
        Ok(())
    }
}
