//! One run: started, brought into trouble, judged.

use super::fault::{Fault, Group, SESSION};
use crate::PARTITIONS;
use anyhow::{Result, bail, ensure};
use partita_core::Partition;
use partita_tests::{
    checkers, checkers_starts,
    history::{History, Position, Step},
    journal::{self, Event, Line},
    kafka::{self, Kafka},
    load::{Load, Running},
    random::Random,
    server::{Server, Setup},
    wait,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const WORKERS: usize = 3;
/// For how long a group may be without the coordinator that takes its commits, when a broker goes.
const COORDINATOR: Duration = Duration::from_secs(15);
/// What may be done and not yet committed: the commit interval, and twice as much for a commit on its way on a busy machine.
const UNCOMMITTED: Duration = Duration::from_secs(3);

/// One run.
pub(super) struct Run<'a> {
    kafka: &'a Kafka,
    topic: String,
    door: Server,
    workers: Vec<Server>,
    load: Running,
    random: Random,
    /// When something was done to it.
    moments: Vec<Moment>,
    /// How many workers went on after their session.
    continued: usize,
    seen: BTreeSet<Position>,
    steps: Vec<Step>,
}

/// When something was done, and to whose partitions.
struct Moment {
    time: Duration,
    partitions: BTreeSet<u32>,
    /// For how long before it, and after it, tasks may have ended without being committed.
    uncommitted: (Duration, Duration),
}

/// What was seen of it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) acknowledged: u64,
    pub(super) lost: usize,
    pub(super) reordered: usize,
    pub(super) stale: usize,
    pub(super) others: usize,
    pub(super) again: u64,
    pub(super) bound: u64,
    /// The longest time in which a partition ended no task.
    pub(super) standstill: Duration,
    pub(super) wrong: Vec<String>,
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl<'a> Run<'a> {
    pub(super) async fn start(
        kafka: &'a Kafka,
        topic: String,
        (fault, group): (Fault, Group),
        mut random: Random,
    ) -> Result<Self> {
        let setup = kafka.setup(&topic, PARTITIONS);
        let made = setup.command(&["topics", "create"]).await?;
        ensure!(made.code == Some(0), "{}", made.said());
        let setup = setup.set("worker.task_timeout", "\"2s\"").set("retry.breaker_tasks", "0");
        let door = setup.clone().role("front-door").start().await?;
        let worker = |index| {
            let name = format!("worker-{index}");
            group.settle(setup.journal_worker(&name, fault.manners()), index)
        };
        let workers: Vec<Setup> = (0..WORKERS).map(worker).collect();
        let starting = workers.iter().map(Setup::start);
        let workers = futures_util::future::try_join_all(starting).await?;
        let load = Load { tasks: u64::MAX, keys: 64, clients: 32, sizes: 1_000..=20_000, ..Load::default() };
        let load = load.start(door.setup().front(), Random::new(random.bits()));
        let run = Self {
            kafka,
            topic,
            door,
            workers,
            load,
            random,
            moments: Vec::new(),
            continued: 0,
            seen: BTreeSet::new(),
            steps: Vec::new(),
        };
        run.all_assigned().await?;
        Ok(run)
    }

    /// Waits until the workers share all partitions.
    async fn all_assigned(&self) -> Result<()> {
        wait::until("all partitions are assigned", Duration::from_secs(60), async || {
            let mut sum = 0;
            for worker in &self.workers {
                sum += worker.partitions().await?.len();
            }
            ensure!(sum == PARTITIONS as usize, "{sum} of {PARTITIONS}");
            Ok(Some(()))
        })
        .await
    }

    /// Lets the load go on for a while.
    pub(super) async fn go_on(&mut self, tasks: u64) -> Result<()> {
        self.load.accepted_at_least(self.load.accepted() + tasks).await
    }

    fn pick(&mut self) -> usize {
        self.random.below(self.workers.len() as u64) as usize
    }

    /// Something is done that concerns these partitions: by default all.
    fn mark(&mut self, partitions: Option<BTreeSet<u32>>, longer: Duration) {
        let partitions = partitions.unwrap_or_else(|| (0..PARTITIONS).collect());
        // While a group waits for a member that is gone, the others' commits wait too: behind their JoinGroup, on its connection.
        let rebalance = if self.moments.is_empty() { Duration::ZERO } else { SESSION };
        self.moments.push(Moment { time: now(), partitions, uncommitted: (UNCOMMITTED + rebalance, longer) });
    }

    /// Something is done to a worker.
    async fn mark_worker(&mut self, worker: &Server) -> Result<()> {
        let owned = worker.partitions().await?.into_iter().map(|partition| partition.partition).collect();
        self.mark(Some(owned), Duration::ZERO);
        Ok(())
    }

    /// Puts another life in a worker's place.
    async fn replace_worker(
        &mut self,
        index: usize,
        end: impl AsyncFnOnce(Server) -> Result<Setup>,
    ) -> Result<()> {
        let worker = self.workers.remove(index);
        never_panicked_but_as_told(&worker)?;
        self.mark_worker(&worker).await?;
        let setup = end(worker).await?;
        self.go_on(100).await?;
        self.workers.insert(index, setup.start().await?);
        self.all_assigned().await
    }

    pub(super) async fn act(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::WorkerKilled => {
                let index = self.pick();
                self.replace_worker(index, async |worker| Ok(worker.kill())).await
            }
            Fault::WorkerStopped => {
                let index = self.pick();
                self.replace_worker(index, stop).await
            }
            Fault::WorkerPaused => {
                let index = self.pick();
                let worker = self.workers.remove(index);
                self.mark_worker(&worker).await?;
                worker.signal("STOP")?;
                tokio::time::sleep(SESSION + Duration::from_secs(2)).await;
                self.go_on(100).await?;
                self.mark(None, Duration::ZERO);
                worker.signal("CONT")?;
                self.continued += 1;
                self.workers.insert(index, worker);
                self.go_on(100).await?;
                self.all_assigned().await
            }
            Fault::Rebalances => {
                for _ in 0..4 {
                    let (index, kills) = (self.pick(), self.random.below(2) == 0);
                    let worker = self.workers.remove(index);
                    self.mark_worker(&worker).await?;
                    let setup = if kills { worker.kill() } else { stop(worker).await? };
                    self.go_on(50).await?;
                    // Not waited for: the next one goes while this one joins.
                    self.workers.insert(index, setup.spawn()?);
                    self.workers[index].ready(Duration::from_secs(60)).await?;
                }
                self.all_assigned().await
            }
            Fault::DoorKilled => {
                self.mark(Some(BTreeSet::new()), Duration::ZERO);
                let setup = self.door.setup().clone();
                self.door.signal("KILL")?;
                self.door.ended(Duration::from_secs(10)).await?;
                self.door = setup.start().await?;
                Ok(())
            }
            Fault::BrokerStopped | Fault::BrokerKilled => {
                let broker = 1 + self.random.below(3) as u32;
                let how = if fault == Fault::BrokerKilled { kafka::Fault::Kill } else { kafka::Fault::Stop };
                self.mark(None, COORDINATOR);
                self.kafka.fault(how, broker)?;
                self.go_on(100).await?;
                self.mark(None, COORDINATOR);
                self.kafka.fault(kafka::Fault::Start, broker)?;
                self.kafka.ready()
            }
            Fault::BrokerPaused => {
                let broker = 1 + self.random.below(3) as u32;
                self.mark(None, COORDINATOR);
                self.kafka.fault(kafka::Fault::Pause, broker)?;
                tokio::time::sleep(Duration::from_secs(8)).await;
                self.mark(None, COORDINATOR);
                self.kafka.fault(kafka::Fault::Continue, broker)?;
                self.kafka.ready()
            }
            Fault::HandlerFails | Fault::HandlerHangs => {
                self.mark(Some(BTreeSet::new()), Duration::ZERO);
                self.go_on(2000).await
            }
            Fault::Parking => self.park_and_redrive().await,
            Fault::Mixed => {
                for _ in 0..3 {
                    let fault = Fault::MIXED[self.random.below(Fault::MIXED.len() as u64) as usize];
                    Box::pin(self.act(fault)).await?;
                    self.look()?;
                }
                Ok(())
            }
        }
    }

    /// Keys are parked while a worker is killed, and another one while they are redriven; then more are parked than redriven.
    async fn park_and_redrive(&mut self) -> Result<()> {
        self.go_on(1500).await?;
        let index = self.pick();
        self.replace_worker(index, async |worker| Ok(worker.kill())).await?;
        self.look()?;
        let parked = self.parked().await?;
        ensure!(parked > 100, "{parked} tasks are parked: too tame");
        self.redrive().await?;
        self.go_on(300).await?;
        std::fs::write(self.door.setup().home().join("mended"), "")?;
        self.redrive().await?;
        let index = self.pick();
        self.replace_worker(index, async |worker| Ok(worker.kill())).await?;
        std::fs::remove_file(self.door.setup().home().join("mended"))?;
        self.go_on(300).await?;
        self.look()?;
        Ok(())
    }

    /// How many tasks are parked, as the workers say.
    async fn parked(&self) -> Result<u64> {
        let mut parked = 0;
        for worker in &self.workers {
            parked += worker.partitions().await?.iter().map(|one| one.parked_tasks).sum::<u64>();
        }
        Ok(parked)
    }

    /// Has everything redriven that is parked, as an operator does.
    async fn redrive(&self) -> Result<()> {
        let urls: Vec<String> =
            self.workers.iter().map(|worker| format!("http://{}", worker.setup().admin())).collect();
        let mut arguments = vec!["parked", "redrive", "--all"];
        arguments.extend(urls.iter().flat_map(|url| ["--admin", url]));
        let done = self.door.setup().command(&arguments).await?;
        ensure!(done.code == Some(0), "{}", done.said());
        Ok(())
    }

    /// Until nothing is parked.
    async fn redrive_all(&self) -> Result<()> {
        std::fs::write(self.door.setup().home().join("mended"), "")?;
        wait::until("nothing is parked", Duration::from_secs(60), async || match self.parked().await? {
            0 => Ok(Some(())),
            parked => {
                self.redrive().await?;
                bail!("{parked} tasks are parked")
            }
        })
        .await
    }

    /// Reads what is committed and then what has ended: in this order the second covers the first.
    pub(super) fn look(&mut self) -> Result<Vec<Line>> {
        let committed = self.kafka.committed(&self.topic, PARTITIONS)?;
        let lines = journal::read(self.door.setup().home())?;
        for end in lines.iter().filter_map(Line::end) {
            if self.seen.insert(end.position) {
                self.steps.push(Step::Ended(end.position));
            }
        }
        // To the topic a parked task has ended, once the parking topic has it.
        for position in self.kafka.parked(&self.topic, PARTITIONS)? {
            if self.seen.insert(position) {
                self.steps.push(Step::Ended(position));
            }
        }
        self.steps.extend(committed.into_iter().map(Step::Committed));
        Ok(lines)
    }

    /// Ends the load, waits until all of it is handled and committed, and judges.
    pub(super) async fn judge(mut self, fault: Fault) -> Result<Seen> {
        self.go_on(300).await?;
        self.look()?;
        self.load.stop();
        let stopped = now();
        let ledger = self.load.finish().await?;
        if fault == Fault::Parking {
            self.redrive_all().await?;
        }
        wait::until("committed = end on every partition", Duration::from_secs(60), async || {
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

/// C6: no partition stood still for longer than the fault explains.
fn recovered_in_time(fault: Fault, standstill: Duration) -> Vec<String> {
    let late = |within: Duration| {
        format!("C6: a partition stood still for {standstill:.1?}, allowed are {within:?}")
    };
    fault.recovers_within().filter(|within| standstill > *within).map(late).into_iter().collect()
}

/// Fails if a worker's log has a panic in it, apart from those that its handler was told to have.
fn never_panicked_but_as_told(worker: &Server) -> Result<()> {
    let log = worker.log();
    let lines = log.lines().zip(log.lines().skip(1));
    let mut panics = lines.filter(|(line, _)| line.contains("panicked at"));
    match panics.find(|(_, next)| *next != "as it was told") {
        Some((line, next)) => bail!("a worker's log has a panic: {line} {next}"),
        None => Ok(()),
    }
}

async fn stop(worker: Server) -> Result<Setup> {
    let setup = worker.setup().clone();
    let status = worker.stop(Duration::from_secs(15)).await?;
    ensure!(status.code() == Some(0), "a stopped worker ended with {status}");
    Ok(setup)
}
