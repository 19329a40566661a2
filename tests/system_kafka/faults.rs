//! Every fault in turn on three brokers: a front door, three workers that keep journals, a load, and a table of what was seen.
//!
//! Short in CI: one run of each. `PARTITA_TEST_RUNS=20` makes the table of RELIABILITY.md; `PARTITA_TEST_FAULTS` names some only.

use crate::PARTITIONS;
use anyhow::{Context, Result, ensure};
use partita_core::Partition;
use partita_tests::{
    checkers, checkers_starts,
    history::{History, Position, Step},
    journal::{self, Event, Line},
    kafka::{self, Kafka},
    load::{Load, Running},
    random::Random,
    server::{Server, Setup},
    size::number,
    wait,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const WORKERS: usize = 3;
/// `session.timeout.ms` of the workers: how long the group waits for one that is gone.
const SESSION: Duration = Duration::from_secs(6);
/// For how long a group may be without the coordinator that takes its commits, when a broker goes.
const COORDINATOR: Duration = Duration::from_secs(15);
/// What may be done and not yet committed: the commit interval, and twice as much for a commit on its way on a busy machine.
const UNCOMMITTED: Duration = Duration::from_secs(3);

/// What is done to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    WorkerKilled,
    WorkerStopped,
    WorkerPaused,
    Rebalances,
    DoorKilled,
    BrokerStopped,
    BrokerKilled,
    BrokerPaused,
    HandlerFails,
    HandlerHangs,
    Mixed,
}

impl Fault {
    const ALL: [(Self, Group, &'static str); 16] = [
        (Self::WorkerKilled, Group::Cooperative, "worker killed (-9), started again"),
        (Self::WorkerKilled, Group::Consumer, "the same, `group.protocol=consumer`"),
        (Self::WorkerStopped, Group::Cooperative, "worker stopped (SIGTERM), started again"),
        (Self::WorkerPaused, Group::Cooperative, "worker paused beyond its session, continued"),
        (Self::WorkerPaused, Group::Consumer, "the same, `group.protocol=consumer`"),
        (Self::Rebalances, Group::Cooperative, "workers join and leave at random"),
        (Self::Rebalances, Group::Eager, "the same, eager (`range`)"),
        (Self::Rebalances, Group::Consumer, "the same, `group.protocol=consumer`"),
        (Self::Rebalances, Group::Static, "the same, static membership"),
        (Self::DoorKilled, Group::Cooperative, "front door killed (-9), started again"),
        (Self::BrokerStopped, Group::Cooperative, "broker stopped, started again"),
        (Self::BrokerKilled, Group::Cooperative, "broker killed (-9), started again"),
        (Self::BrokerPaused, Group::Cooperative, "broker paused for 8 s, continued"),
        (Self::HandlerFails, Group::Cooperative, "handler fails, panics, rejects"),
        (Self::HandlerHangs, Group::Cooperative, "handler hangs, is given up"),
        (Self::Mixed, Group::Cooperative, "three of these, one after another"),
    ];

    /// What `Mixed` draws from.
    const MIXED: [Self; 8] = [
        Self::WorkerKilled,
        Self::WorkerStopped,
        Self::WorkerPaused,
        Self::Rebalances,
        Self::DoorKilled,
        Self::BrokerStopped,
        Self::BrokerKilled,
        Self::BrokerPaused,
    ];

    /// How the workers handle their tasks.
    fn manners(self) -> &'static [&'static str] {
        match self {
            Self::HandlerFails => &[
                "--delay-ms",
                "1",
                "--every",
                "7",
                "fail",
                "--every",
                "11",
                "panic",
                "--every",
                "13",
                "reject",
            ],
            Self::HandlerHangs => &["--delay-ms", "1", "--every", "20", "hang"],
            _ => &["--delay-ms", "4"],
        }
    }

    /// Whether owners of partitions may be gone without having committed what they did.
    fn is_abrupt(self) -> bool {
        !matches!(self, Self::WorkerStopped | Self::DoorKilled | Self::HandlerFails | Self::HandlerHangs)
    }

    /// Whether a producer may lose a partition's leader: INVARIANTS.md, 10.
    fn moves_leaders(self) -> bool {
        matches!(self, Self::BrokerStopped | Self::BrokerKilled | Self::BrokerPaused | Self::Mixed)
    }
}

/// How the workers' group works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// The default.
    Cooperative,
    Eager,
    /// KIP-848: the brokers assign.
    Consumer,
    /// `group.instance.id`.
    Static,
}

impl Group {
    fn settle(self, setup: Setup, worker: usize) -> Setup {
        let set = |setup: Setup, name: &str, value: &str| {
            setup.set(&format!("log.kafka.properties.\"{name}\""), format!("\"{value}\""))
        };
        let session = SESSION.as_millis().to_string();
        match self {
            Self::Cooperative => set(setup, "session.timeout.ms", &session),
            Self::Eager => {
                let setup = set(setup, "session.timeout.ms", &session);
                set(setup, "partition.assignment.strategy", "range")
            }
            Self::Consumer => set(setup, "group.protocol", "consumer"),
            Self::Static => {
                let setup = set(setup, "session.timeout.ms", &session);
                set(setup, "group.instance.id", &format!("worker-{worker}"))
            }
        }
    }
}

/// Sessions of `group.protocol=consumer` are the brokers' to set.
const BROKERS: &str = "group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500";

/// One run.
struct Run<'a> {
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
    /// For how long after it tasks may still end without being committed.
    longer: Duration,
}

/// What was seen of it.
#[derive(Debug, Default)]
struct Seen {
    acknowledged: u64,
    lost: usize,
    reordered: usize,
    stale: usize,
    others: usize,
    again: u64,
    bound: u64,
    /// The longest time in which a partition ended no task.
    standstill: Duration,
    wrong: Vec<String>,
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl<'a> Run<'a> {
    async fn start(
        kafka: &'a Kafka,
        topic: String,
        (fault, group): (Fault, Group),
        mut random: Random,
    ) -> Result<Self> {
        let setup = kafka.setup(&topic, PARTITIONS);
        let made = setup.command(&["topics", "create"]).await?;
        ensure!(made.code == Some(0), "{}", made.said());
        let setup = setup.set("worker.task_timeout", "\"2s\"");
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
    async fn go_on(&mut self, tasks: u64) -> Result<()> {
        self.load.accepted_at_least(self.load.accepted() + tasks).await
    }

    fn pick(&mut self) -> usize {
        self.random.below(self.workers.len() as u64) as usize
    }

    /// Something is done that concerns these partitions: by default all.
    fn mark(&mut self, partitions: Option<BTreeSet<u32>>, longer: Duration) {
        let partitions = partitions.unwrap_or_else(|| (0..PARTITIONS).collect());
        self.moments.push(Moment { time: now(), partitions, longer });
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
        worker.never_panicked_but_as_told()?;
        self.mark_worker(&worker).await?;
        let setup = end(worker).await?;
        self.go_on(100).await?;
        self.workers.insert(index, setup.start().await?);
        self.all_assigned().await
    }

    async fn act(&mut self, fault: Fault) -> Result<()> {
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

    /// Reads what is committed and then what has ended: in this order the second covers the first.
    fn look(&mut self) -> Result<Vec<Line>> {
        let committed = self.kafka.committed(&self.topic, PARTITIONS)?;
        let lines = journal::read(self.door.setup().home())?;
        for end in lines.iter().filter_map(Line::end) {
            if self.seen.insert(end.position) {
                self.steps.push(Step::Ended(end.position));
            }
        }
        self.steps.extend(committed.into_iter().map(Step::Committed));
        Ok(lines)
    }

    /// Ends the load, waits until all of it is handled and committed, and judges.
    async fn judge(mut self, fault: Fault) -> Result<Seen> {
        self.go_on(300).await?;
        self.look()?;
        self.load.stop();
        let stopped = now();
        let load = std::mem::replace(
            &mut self.load,
            Load { clients: 0, ..Load::default() }.start(self.door.setup().front(), Random::new(0)),
        );
        let ledger = load.finish().await?;
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
        let lost = checkers::nothing_lost(attempts, ends);
        let reordered = checkers::in_order(attempts, ends);
        let stale = checkers_starts::no_start_of_a_former_owner(&lines);
        let others = [
            checkers::within_redeliveries(ends, bound),
            checkers::written_once(attempts, ends, twice),
            checkers::commits_within_the_ended_prefix(&history.steps),
            checkers::nothing_failed_appears(attempts, ends),
            checkers_starts::one_at_a_time(&lines),
        ]
        .concat();
        for worker in &self.workers {
            worker.never_panicked_but_as_told()?;
        }
        self.door.never_panicked()?;
        Ok(Seen {
            acknowledged: ledger.counts().ok,
            lost: lost.len(),
            reordered: reordered.len(),
            stale: stale.len(),
            // One that was stopped just between the look whether a task may begin and its first line begins it: ADR 12.
            others: others.len() + stale.len().saturating_sub(self.continued),
            again,
            bound,
            standstill: self.standstill(&lines, stopped),
            wrong: [lost, reordered, if stale.len() > self.continued { stale } else { Vec::new() }, others]
                .concat(),
        })
    }

    /// How many tasks may have ended without being committed when something was done, and were in hand.
    fn uncommitted(&self, lines: &[Line]) -> u64 {
        let ended = |moment: &Moment| {
            let window = moment.time.saturating_sub(UNCOMMITTED)..=moment.time + moment.longer;
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

async fn stop(worker: Server) -> Result<Setup> {
    let setup = worker.setup().clone();
    let status = worker.stop(Duration::from_secs(15)).await?;
    ensure!(status.code() == Some(0), "a stopped worker ended with {status}");
    Ok(setup)
}

/// The row of a fault, over its runs.
fn row(name: &str, runs: &[Seen], failed: usize) -> String {
    let sum = |of: fn(&Seen) -> u64| runs.iter().map(of).sum::<u64>();
    let mut standstills: Vec<Duration> = runs.iter().map(|seen| seen.standstill).collect();
    standstills.sort();
    let at = |share: usize| {
        let index = (standstills.len() * share / 100).min(standstills.len().saturating_sub(1));
        standstills.get(index).map_or(0.0, Duration::as_secs_f64)
    };
    format!(
        "| {name} | {} | {} | {} | {} | {} | {} of {} | {} | {:.1} s, {:.1} s |",
        runs.len() + failed,
        sum(|seen| seen.acknowledged),
        sum(|seen| seen.lost as u64),
        sum(|seen| seen.reordered as u64),
        sum(|seen| seen.stale as u64),
        sum(|seen| seen.again),
        sum(|seen| seen.bound),
        sum(|seen| seen.others as u64) + failed as u64,
        at(50),
        at(95),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_loses_nothing_and_reorders_nothing() {
    let mut random = Random::from_env();
    let (runs, only) =
        (number("PARTITA_TEST_RUNS", 1), std::env::var("PARTITA_TEST_FAULTS").unwrap_or_default());
    let kafka = Kafka::up_with(3, BROKERS).unwrap();
    let mut table = vec![
        "| fault | runs | acknowledged | lost | reordered | stale starts | handled again, of allowed | other | standstill p50, p95 |".to_owned(),
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|".to_owned(),
    ];
    let mut wrong = Vec::new();
    for (fault, group, name) in Fault::ALL {
        if !only.is_empty() && !only.split(',').any(|part| name.contains(part)) {
            continue;
        }
        let (mut seen, mut failed) = (Vec::new(), 0);
        for index in 0..runs {
            let seed = random.bits();
            let topic = format!("{fault:?}-{group:?}-{index}");
            let start = Instant::now();
            match one(&kafka, topic, (fault, group), seed).await {
                Ok(run) => {
                    println!("{name}, seed {seed}, {:.0?}: {run:?}", start.elapsed());
                    wrong.extend(run.wrong.iter().map(|text| format!("{name}, seed {seed}: {text}")));
                    seen.push(run);
                }
                Err(error) => {
                    failed += 1;
                    println!("{name}, seed {seed}: {error:#}");
                    wrong.push(format!("{name}, seed {seed}: {error:#}"));
                    kafka.run(&["up", "3"]).unwrap();
                }
            }
        }
        table.push(row(name, &seen, failed));
    }
    println!("{}", table.join("\n"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn one(kafka: &Kafka, topic: String, (fault, group): (Fault, Group), seed: u64) -> Result<Seen> {
    let mut run = Run::start(kafka, topic, (fault, group), Random::new(seed)).await.context("the start")?;
    run.go_on(300).await?;
    run.look()?;
    run.act(fault).await.context("the fault")?;
    run.judge(fault).await.context("the end")
}
