//! One run: a front door, workers and a load on a cluster, and what has been seen of them.

mod act;
mod verdict;

use super::fault::{Fault, Group};
use crate::PARTITIONS;
use anyhow::{Result, ensure};
use partita_tests::{
    history::{Position, Step},
    journal::{self, Line},
    kafka::Kafka,
    load::Running,
    network::Network,
    random::Random,
    server::{Server, Setup},
    wait,
};
use std::{collections::BTreeSet, time::Duration};
pub(super) use verdict::Seen;

const WORKERS: usize = 3;

/// One run.
pub(super) struct Run<'a> {
    kafka: &'a Kafka,
    /// Between the brokers and those that are to be cut off from them.
    network: Network,
    topic: String,
    door: Server,
    workers: Vec<Server>,
    load: Running,
    random: Random,
    /// When something was done to it.
    moments: Vec<act::Moment>,
    /// How many workers went on after their session.
    continued: usize,
    seen: BTreeSet<Position>,
    steps: Vec<Step>,
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
        let network = kafka.network().await?;
        let door = fault.settle_door(setup.clone().role("front-door"), kafka)?.start().await?;
        let worker = |index| {
            let name = format!("worker-{index}");
            let setup = group.settle(setup.journal_worker(&name, fault.manners()), index);
            fault.settle_worker(setup, index, kafka)
        };
        let workers = (0..WORKERS).map(worker).collect::<Result<Vec<Setup>>>()?;
        let starting = workers.iter().map(Setup::start);
        let workers = futures_util::future::try_join_all(starting).await?;
        let load = fault.load().start(door.setup().front(), Random::new(random.bits()));
        let run = Self {
            kafka,
            network,
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
}
