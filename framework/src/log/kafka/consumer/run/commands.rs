//! What the supervisor says, done: lanes opened anew and closed, offsets committed.

use super::{
    super::{
        super::native::{Protocol, Seek},
        committed,
    },
    End, Member,
};
use crate::log::{ConsumerCommand, ConsumerEvent};
use crossbeam_channel::TryRecvError;
use partita_core::{CommitId, Mark, Offset, Partition};
use rdkafka::error::RDKafkaErrorCode as Code;
use std::time::Duration;

/// How long a seek may take.
const SEEK: Duration = Duration::from_millis(500);

impl Member {
    pub(super) fn obey(&mut self) -> Option<End> {
        loop {
            match self.port.commands.try_recv() {
                Ok(ConsumerCommand::CompleteAssign { intent, lanes }) => self.complete_assign(intent, lanes),
                Ok(ConsumerCommand::CompleteRevoke { intent }) => self.complete_revoke(intent),
                Ok(ConsumerCommand::CloseLane { partition, epoch }) => {
                    if self.lanes.epoch(partition) == Some(epoch) {
                        self.shut(partition);
                    }
                }
                Ok(ConsumerCommand::Reopen(lane)) => {
                    self.close_lane(lane.partition);
                    self.foreign.remove(&lane.partition);
                    if self.owned.contains(&lane.partition) {
                        self.reopening.push(lane);
                        self.reopen();
                    }
                }
                Ok(ConsumerCommand::Commit { commit, offsets }) => self.commit(commit, offsets),
                Ok(ConsumerCommand::Close) | Err(TryRecvError::Disconnected) => return Some(End::Close),
                Err(TryRecvError::Empty) => return None,
            }
        }
    }

    /// Seeks what is to be reopened; what fails is tried again in the next round.
    pub(super) fn reopen(&mut self) {
        for lane in std::mem::take(&mut self.reopening) {
            let partition = lane.partition;
            let there = match self.native.seek(partition, lane.start, SEEK) {
                Seek::Done => Ok(()),
                Seek::NotFetching => self.fetch_anew(partition, lane.start),
                Seek::Failed(reason) => Err(reason),
            };
            match there {
                Ok(()) => {
                    self.flow.open(partition);
                    self.lanes.open(lane);
                    self.native.set_paused(&[partition], false);
                }
                Err(reason) => {
                    tracing::warn!(%partition, reason, "a seek failed and is tried again");
                    self.reopening.push(lane);
                }
            }
        }
    }

    /// Has librdkafka fetch a partition from this offset on that it fetches no more, and so cannot seek: it gives up at an offset that is
    /// not in the log.
    pub(super) fn fetch_anew(&self, partition: Partition, start: Offset) -> Result<(), String> {
        if self.pending.is_some() {
            // What is said of assignments now would be taken for the answer.
            return Err("the group's question comes first".into());
        }
        match self.native.protocol() {
            Protocol::Cooperative => {
                self.native.unassign(&[partition]).and_then(|()| self.native.assign(&[(partition, start)]))
            }
            // Only the whole assignment could be given.
            Protocol::Eager => {
                Err("an eager group cannot begin one partition anew: restart this worker".into())
            }
        }
    }

    pub(super) fn commit(&mut self, commit: CommitId, offsets: Vec<(Partition, Offset, Mark)>) {
        let text = |partition, mark: &Mark| {
            let former = self.foreign.get(&partition).map(String::as_str);
            committed::to_text(mark, former.or(self.asker.topic_id()).unwrap_or_default())
        };
        let (owned, others): (Vec<_>, Vec<_>) = offsets
            .into_iter()
            .map(|(partition, offset, mark)| (partition, offset, text(partition, &mark)))
            .partition(|(partition, ..)| self.owned.contains(partition));
        if !others.is_empty() {
            tracing::warn!(?others, "offsets of partitions that are not owned are not committed");
        }
        let sent = match owned.is_empty() {
            true => Err("the partitions are not owned any more".to_owned()),
            false => self.native.commit(commit, &owned),
        };
        if let Err(reason) = sent {
            self.emit(ConsumerEvent::CommitDone { commit, committed: Vec::new(), error: Some(reason) });
        }
    }

    pub(super) fn committed(
        &mut self,
        commit: CommitId,
        partitions: Vec<(Partition, Option<Code>)>,
        error: Option<Code>,
    ) {
        let failed = partitions
            .iter()
            .find_map(|(partition, error)| error.map(|code| format!("partition {partition}: {code}")));
        // An error of the whole request says nothing of its partitions: count none as stored.
        let committed = match error {
            Some(_) => Vec::new(),
            None => {
                partitions.iter().filter(|(_, error)| error.is_none()).map(|(stored, _)| *stored).collect()
            }
        };
        let error = error.map(|code| code.to_string()).or(failed);
        self.emit(ConsumerEvent::CommitDone { commit, committed, error });
    }
}
