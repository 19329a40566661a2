//! A load: clients that hand over numbered tasks, each key's in order, and enter what they learn into a ledger.

use crate::{
    client::{self, Client},
    history::Outcome,
    ledger::Ledger,
    payload,
    random::Random,
};
use anyhow::{Context, Result};
use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::timeout};

/// What is to be sent.
#[derive(Debug, Clone)]
pub struct Load {
    /// What its keys begin with. Two loads of one run have different names.
    pub name: &'static str,
    /// How many tasks, over all clients.
    pub tasks: u64,
    /// Over how many keys. A key belongs to one client.
    pub keys: u64,
    /// How many clients, each with one request at a time.
    pub clients: u64,
    /// Payload sizes, drawn log-uniformly.
    pub sizes: RangeInclusive<u64>,
    /// How long a client tries to get one task accepted.
    pub patience: Duration,
    /// How long a client waits between two tasks.
    pub pause: Duration,
    /// Every fourth time a client hangs up before it is answered, within this time.
    pub hangs_up_within: Option<Duration>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            name: "client",
            tasks: 200,
            keys: 20,
            clients: 8,
            sizes: 10_000..=200_000,
            patience: Duration::from_secs(120),
            pause: Duration::ZERO,
            hangs_up_within: None,
        }
    }
}

/// A load that runs.
#[derive(Debug)]
pub struct Running {
    /// What its clients know.
    pub ledger: Ledger,
    name: &'static str,
    accepted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<Result<()>>,
}

impl Load {
    /// Starts the clients against the server at `address`, which may go away and come back.
    pub fn start(&self, address: SocketAddr, mut random: Random) -> Running {
        let mut running = Running {
            ledger: Ledger::default(),
            name: self.name,
            accepted: Arc::default(),
            stop: Arc::default(),
            clients: JoinSet::new(),
        };
        for index in 0..self.clients {
            let sender = Sender {
                load: self.clone(),
                client: Client::new(address),
                ledger: running.ledger.clone(),
                accepted: running.accepted.clone(),
                stop: running.stop.clone(),
                random: Random::new(random.bits()),
            };
            running.clients.spawn(sender.run(index));
        }
        running
    }
}

impl Running {
    /// What its keys begin with.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Tasks accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Waits until so many tasks are accepted. Fails as soon as a client has failed.
    pub async fn accepted_at_least(&mut self, tasks: u64) -> Result<()> {
        while self.accepted() < tasks {
            if let Some(ended) = self.clients.try_join_next() {
                ended.context("a client panicked")??;
            }
            anyhow::ensure!(!self.clients.is_empty() || self.accepted() >= tasks, "the load has ended");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Lets the clients finish the task in hand and begin no other.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it was told to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits until every client is done, and hands the ledger over.
    pub async fn finish(&mut self) -> Result<Ledger> {
        while let Some(ended) = self.clients.join_next().await {
            ended.context("a client panicked")??;
        }
        Ok(self.ledger.clone())
    }
}

/// One client.
struct Sender {
    load: Load,
    client: Client,
    ledger: Ledger,
    accepted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    random: Random,
}

impl Sender {
    async fn run(mut self, index: u64) -> Result<()> {
        let share = |total: u64| total / self.load.clients + u64::from(index < total % self.load.clients);
        let (tasks, keys) = (share(self.load.tasks), share(self.load.keys).max(1));
        let mut sequences = vec![0; keys as usize];
        for _ in 0..tasks {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let number = self.random.below(keys);
            let sequence = &mut sequences[number as usize];
            let key = format!("{}-{index}-key-{number}", self.load.name);
            let (low, high) = (*self.load.sizes.start(), *self.load.sizes.end());
            let size = self.random.log_uniform(low, high);
            let payload = payload::make(&key, *sequence, size as usize);
            self.hand_over(&key, *sequence, payload).await?;
            *sequence += 1;
            if !self.load.pause.is_zero() {
                tokio::time::sleep(self.load.pause).await;
            }
        }
        Ok(())
    }

    /// Posts one task until it is acknowledged: only then may the key's next one be sent.
    async fn hand_over(&mut self, key: &str, sequence: u64, payload: bytes::Bytes) -> Result<()> {
        let digest = payload::digest(&payload);
        let start = Instant::now();
        let mut wait = Duration::from_millis(10);
        loop {
            let invocation = self.ledger.invoke(key, sequence, &digest);
            let post = self.client.post(key, payload.clone());
            let answer = match self.load.hangs_up_within.filter(|_| self.random.below(4) == 0) {
                Some(within) => match timeout(within.mul_f64(self.random.fraction()), post).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        self.ledger.answer(invocation, Outcome::Unknown);
                        anyhow::ensure!(
                            start.elapsed() < self.load.patience,
                            "{key} {sequence}: hung up on all the time"
                        );
                        continue;
                    }
                },
                None => post.await,
            };
            let answer = client::or_none(answer)?;
            let (outcome, seen) = match &answer {
                Ok(answer) => (answer.outcome()?, answer.text()),
                // A connection that was refused carried nothing; one that broke may have carried everything.
                Err(error) if error.is_connect() => (Outcome::Failed, error.to_string()),
                Err(error) => (Outcome::Unknown, error.to_string()),
            };
            self.ledger.answer(invocation, outcome);
            if let Outcome::Ok(_) = outcome {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            anyhow::ensure!(
                start.elapsed() < self.load.patience,
                "{key} {sequence} ({} bytes) was not accepted within {:?}; last: {seen}",
                payload.len(),
                self.load.patience
            );
            tokio::time::sleep(wait.mul_f64(0.5 + self.random.fraction())).await;
            wait = (wait * 2).min(Duration::from_millis(500));
        }
    }
}
