//! What is done to a run.

use super::{Run, verdict::never_panicked_but_as_told};
use crate::{
    PARTITIONS,
    faults::fault::{Fault, SESSION},
};
use anyhow::{Result, bail, ensure};
use partita_tests::{
    clock, kafka,
    network::Cut,
    server::{Server, Setup},
    size::number,
    wait,
};
use std::{collections::BTreeSet, time::Duration};

/// For how long a group may be without the coordinator that takes its commits, when a broker goes.
const COORDINATOR: Duration = Duration::from_secs(15);
/// What may be done and not yet committed: the commit interval, and twice as much for a commit on its way on a busy machine.
const UNCOMMITTED: Duration = Duration::from_secs(3);

/// When something was done, and to whose partitions.
pub(super) struct Moment {
    pub(super) time: Duration,
    pub(super) partitions: BTreeSet<u32>,
    /// For how long before it, and after it, tasks may have ended without being committed.
    pub(super) uncommitted: (Duration, Duration),
}

impl Run<'_> {
    fn pick(&mut self) -> usize {
        self.random.below(self.workers.len() as u64) as usize
    }

    /// Something is done that concerns these partitions: by default all.
    fn mark(&mut self, partitions: Option<BTreeSet<u32>>, longer: Duration) {
        let partitions = partitions.unwrap_or_else(|| (0..PARTITIONS).collect());
        // While a group waits for a member that is gone, the others' commits wait too: behind their JoinGroup, on its connection.
        let rebalance = if self.moments.is_empty() { Duration::ZERO } else { SESSION };
        self.moments.push(Moment {
            time: clock::monotonic(),
            partitions,
            uncommitted: (UNCOMMITTED + rebalance, longer),
        });
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

    pub(in crate::faults) async fn act(&mut self, fault: Fault) -> Result<()> {
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
            Fault::WorkerCutOff => {
                let worker = self.workers.remove(0);
                self.mark_worker(&worker).await?;
                let cut = self.random_cut();
                self.network.cut(Some(cut));
                tokio::time::sleep(SESSION + Duration::from_secs(2)).await;
                self.go_on(100).await?;
                self.mark(None, Duration::ZERO);
                self.network.cut(None);
                self.workers.insert(0, worker);
                self.go_on(100).await?;
                self.all_assigned().await
            }
            Fault::DoorCutOff => {
                self.mark(Some(BTreeSet::new()), Duration::ZERO);
                let cut = self.random_cut();
                self.network.cut(Some(cut));
                let (least, more) = (Duration::from_secs(2), Duration::from_secs(10));
                tokio::time::sleep(least + more.mul_f64(self.random.fraction())).await;
                self.network.cut(None);
                self.door.ready(Duration::from_secs(60)).await?;
                self.go_on(100).await
            }
            Fault::ClientsHangUp => {
                self.mark(Some(BTreeSet::new()), Duration::ZERO);
                self.go_on(2000).await
            }
            Fault::RebalancesUnderPressure => {
                self.some_paused().await?;
                Box::pin(self.act(Fault::Rebalances)).await
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
            Fault::BrokerDiskFull => {
                let broker = 1 + self.random.below(3) as u32;
                self.mark(None, COORDINATOR);
                self.kafka.set_disk_full(broker, true)?;
                let seen = self.until_given_up(broker).await;
                self.kafka.set_disk_full(broker, false)?;
                seen?;
                self.mark(None, COORDINATOR);
                self.kafka.fault(kafka::Fault::Start, broker)?;
                self.kafka.ready()
            }
            Fault::ClocksJump => self.jump().await,
            Fault::HandlerSlow => {
                self.mark(Some(BTreeSet::new()), Duration::ZERO);
                let before = self.rebalances().await?;
                self.go_on(3500).await?;
                self.load.stop();
                tokio::time::sleep(Duration::from_secs(12)).await;
                ensure!(self.rebalances().await? == before, "a worker with a slow handler was sent away");
                Ok(())
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
            Fault::AnyKilled => {
                let end = clock::monotonic() + Duration::from_secs(number("PARTITA_TEST_KILL_SECONDS", 15));
                let mut kills = 0;
                while clock::monotonic() < end {
                    let fault = Fault::KILLED[self.random.below(Fault::KILLED.len() as u64) as usize];
                    Box::pin(self.act(fault)).await?;
                    self.look()?;
                    self.go_on(100).await?;
                    kills += 1;
                }
                println!("{kills} kills");
                Ok(())
            }
        }
    }

    /// Lets the load go on until Kafka has given up a broker whose only disk fails.
    async fn until_given_up(&mut self, broker: u32) -> Result<()> {
        self.go_on(100).await?;
        wait::until("the broker ends", Duration::from_secs(60), async || {
            Ok((!self.kafka.is_up(broker)?).then_some(()))
        })
        .await
    }

    fn random_cut(&mut self) -> Cut {
        [Cut::Both, Cut::Requests, Cut::Answers][self.random.below(3) as usize]
    }

    /// Waits until more waits for handlers than they may hold.
    async fn some_paused(&self) -> Result<()> {
        wait::until("partitions are paused", Duration::from_secs(60), async || {
            for worker in &self.workers {
                if worker.partitions().await?.iter().any(|partition| partition.paused) {
                    return Ok(Some(()));
                }
            }
            Ok(None)
        })
        .await
    }

    /// How many partitions were given and taken so far.
    async fn rebalances(&self) -> Result<f64> {
        let mut sum = 0.0;
        for worker in &self.workers {
            sum += worker.metrics().await?.sum("partita_rebalances_total").unwrap_or(0.0);
        }
        Ok(sum)
    }

    /// Clocks jump; a worker that is killed begins its next life before its former one, by its clock.
    async fn jump(&mut self) -> Result<()> {
        const HOUR: i64 = 3600;
        self.mark(Some(BTreeSet::new()), Duration::ZERO);
        let victim = self.pick();
        for off in [2 * HOUR, -10 * 24 * HOUR] {
            self.door.setup().clock().jump_to(off)?;
            self.go_on(200).await?;
            self.workers[victim].setup().clock().jump_to(off)?;
            self.go_on(200).await?;
        }
        self.replace_worker(victim, async |worker| Ok(worker.kill())).await
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
    pub(super) async fn redrive_all(&self) -> Result<()> {
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
}

async fn stop(worker: Server) -> Result<Setup> {
    let setup = worker.setup().clone();
    let status = worker.stop(Duration::from_secs(15)).await?;
    ensure!(status.code() == Some(0), "a stopped worker ended with {status}");
    Ok(setup)
}
