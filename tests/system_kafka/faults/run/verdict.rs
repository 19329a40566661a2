//! What is said of a run in the end.

use super::{Run, act::Moment};
use crate::{
    PARTITIONS,
    faults::fault::{Fault, POLL_INTERVAL},
};
use anyhow::{Result, bail, ensure};
use partita_core::Partition;
use partita_tests::{
    checkers, checkers_starts, clock,
    history::{History, Position},
    journal::{Event, Line},
    server::Server,
    wait,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What was seen of it.
#[derive(Debug, Default)]
pub(in crate::faults) struct Seen {
    pub(in crate::faults) acknowledged: u64,
    pub(in crate::faults) lost: usize,
    pub(in crate::faults) reordered: usize,
    pub(in crate::faults) stale: usize,
    pub(in crate::faults) others: usize,
    pub(in crate::faults) again: u64,
    pub(in crate::faults) bound: u64,
    /// The longest time in which a partition ended no task.
    pub(in crate::faults) standstill: Duration,
    pub(in crate::faults) wrong: Vec<String>,
}

impl Run<'_> {
    /// Ends the load, waits until all of it is handled and committed, and judges.
    pub(in crate::faults) async fn judge(mut self, fault: Fault) -> Result<Seen> {
        if !self.load.is_stopped() {
            self.go_on(300).await?;
        }
        self.look()?;
        self.load.stop();
        let stopped = clock::monotonic();
        let ledger = self.load.finish().await?;
        if fault == Fault::Parking {
            self.redrive_all().await?;
        }
        wait::until("committed = end on every partition", fault.ends_within(), async || {
            self.kafka.committed_is_end(&self.topic, PARTITIONS).map(Some)
        })
        .await?;
        let lines = self.look()?;
        let history = History {
            attempts: ledger.attempts(),
            ends: lines.iter().filter_map(Line::end).collect(),
            steps: std::mem::take(&mut self.steps),
        };
        let (attempts, ends) = (&history.attempts, &history.ends);
        let positions: BTreeSet<Position> = ends.iter().map(|end| end.position).collect();
        let again = (ends.len() - positions.len()) as u64;
        let bound = if fault.is_abrupt() { self.uncommitted(&lines) } else { 0 };
        let bad = |event| lines.iter().filter(|line| line.event == event).count();
        let (failures, given_up) = (bad(Event::Failed), bad(Event::Dropped));
        match fault {
            Fault::HandlerFails => {
                ensure!(failures > 10 && given_up > 10, "{failures}, {given_up}: too tame")
            }
            Fault::HandlerHangs => ensure!(given_up > 10, "{given_up}: too tame"),
            Fault::HandlerSlow => {
                let slow = longer_than(&lines, POLL_INTERVAL);
                ensure!(slow > 10, "{slow} tasks were slow: too tame");
            }
            _ => {}
        }
        let twice = if fault.moves_leaders() { 32 * 2 * self.moments.len() as u64 } else { 0 };
        let standstill = self.standstill(&lines, stopped);
        let lost = checkers::nothing_lost(attempts, ends);
        let reordered = checkers::in_order(attempts, ends);
        let stale = checkers_starts::no_start_of_a_former_owner(&lines);
        let others = [
            checkers::within_redeliveries(ends, bound),
            checkers::written_once(attempts, ends, twice),
            checkers::commits_within_the_ended_prefix(&history.steps),
            checkers::nothing_failed_appears(attempts, ends),
            checkers_starts::one_at_a_time(&lines),
            recovered_in_time(fault, standstill),
        ]
        .concat();
        for worker in &self.workers {
            never_panicked_but_as_told(worker)?;
            worker.no_invariant_broke().await?;
        }
        self.door.is_sound().await?;
        self.door_is_empty().await?;
        Ok(Seen {
            acknowledged: ledger.counts().ok,
            lost: lost.len(),
            reordered: reordered.len(),
            stale: stale.len(),
            // One that was stopped just between the look whether a task may begin and its first line begins it: ADR 12.
            others: others.len() + stale.len().saturating_sub(self.continued),
            again,
            bound,
            standstill,
            wrong: [lost, reordered, if stale.len() > self.continued { stale } else { Vec::new() }, others]
                .concat(),
        })
    }

    /// Waits until the front door holds nothing any more, whoever hung up.
    async fn door_is_empty(&self) -> Result<()> {
        wait::until("the front door is empty", Duration::from_secs(60), async || {
            let metrics = self.door.metrics().await?;
            let held = metrics.sum_where("partita_memory_reserved_bytes", "use", "intake");
            let open = metrics.sum("partita_http_requests_in_flight").unwrap_or(0.0);
            ensure!(held == 0.0 && open == 0.0, "{held} bytes, {open} requests");
            Ok(Some(()))
        })
        .await
    }

    /// How many tasks may have ended without being committed when something was done, and were in hand.
    fn uncommitted(&self, lines: &[Line]) -> u64 {
        let ended = |moment: &Moment| {
            let (before, after) = moment.uncommitted;
            let window = moment.time.saturating_sub(before)..=moment.time + after;
            let concerned = |line: &&Line| {
                line.event == Event::End
                    && moment.partitions.contains(&line.entry.partition)
                    && window.contains(&line.time)
            };
            (lines.iter().filter(concerned).count() + moment.partitions.len()) as u64
        };
        self.moments.iter().map(ended).sum()
    }

    /// The longest time without an end in any partition, from the first moment to the load's end.
    fn standstill(&self, lines: &[Line], stopped: Duration) -> Duration {
        let Some(Moment { time: first, .. }) = self.moments.first() else { return Duration::ZERO };
        let mut last: BTreeMap<Partition, Duration> = BTreeMap::new();
        let mut longest = Duration::ZERO;
        for (line, end) in lines.iter().filter_map(|line| line.end().map(|end| (line, end))) {
            let before = last.insert(end.position.partition, line.time).unwrap_or(line.time);
            if line.time >= *first && before <= stopped {
                longest = longest.max(line.time.saturating_sub(before.max(*first)));
            }
        }
        longest
    }
}

/// How many tasks took longer than this in their handler.
fn longer_than(lines: &[Line], time: Duration) -> usize {
    let mut began = BTreeMap::new();
    let mut longer = 0;
    for Line { time: at, event, entry } in lines {
        match event {
            Event::Start => _ = began.insert((entry.partition, entry.epoch), *at),
            Event::End => {
                let start = began.remove(&(entry.partition, entry.epoch));
                longer += usize::from(start.is_some_and(|start| at.saturating_sub(start) > time));
            }
            Event::Failed | Event::Dropped => {}
        }
    }
    longer
}

/// C6: no partition stood still for longer than the fault explains.
fn recovered_in_time(fault: Fault, standstill: Duration) -> Vec<String> {
    let late = |within: Duration| {
        format!("C6: a partition stood still for {standstill:.1?}, allowed are {within:?}")
    };
    fault.recovers_within().filter(|within| standstill > *within).map(late).into_iter().collect()
}

/// Fails if a worker's log has a panic in it, apart from those that its handler was told to have.
pub(super) fn never_panicked_but_as_told(worker: &Server) -> Result<()> {
    let log = worker.log();
    let lines = log.lines().zip(log.lines().skip(1));
    let mut panics = lines.filter(|(line, _)| line.contains("panicked at"));
    match panics.find(|(_, next)| *next != "as it was told") {
        Some((line, next)) => bail!("a worker's log has a panic: {line} {next}"),
        None => Ok(()),
    }
}
