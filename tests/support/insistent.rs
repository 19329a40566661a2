//! Clients that insist: they name each task, give up waiting in the middle, hang up, ask two front doors at once, and send the same
//! again until somebody says 202. Each task is stored once, and every answer names the same place.

use crate::{
    client::{self, Answer, Client, Receipt, hand_fed},
    history::Position,
    payload,
    random::Random,
    wait,
};
use anyhow::{Context, Result, bail, ensure};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How long a task may be refused before that is a failure: a claim that a crash cut short is looked into after a minute.
const PATIENCE: Duration = Duration::from_secs(180);

/// What is sent, and by how many.
#[derive(Debug, Clone, Copy)]
pub struct Insistent {
    /// Tasks.
    pub tasks: u64,
    /// The clients, each with tasks of its own.
    pub clients: u64,
    /// The most bytes of a task.
    pub most: u64,
}

/// Clients at work.
pub struct Running {
    clients: JoinSet<Result<Stored>>,
    stored: Arc<AtomicUsize>,
    done: Stored,
}

/// Where each task is, by its key and number.
pub type Stored = BTreeMap<(String, u64), Position>;

impl Insistent {
    /// Starts them.
    pub fn start(self, doors: &[SocketAddr], mut random: Random) -> Running {
        let stored = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for number in 0..self.clients {
            let doors: Vec<Client> = doors.iter().map(|door| Client::new(*door)).collect();
            let (random, stored) = (Random::new(random.bits()), stored.clone());
            let tasks = self.tasks / self.clients;
            clients.spawn(async move {
                let mut client = One { number, doors, random, most: self.most };
                let mut all = Stored::new();
                for task in 0..tasks {
                    let (key, position) = client.insist(task).await?;
                    stored.fetch_add(1, Ordering::SeqCst);
                    all.insert((key, task), position);
                }
                Ok(all)
            });
        }
        Running { clients, stored, done: Stored::new() }
    }
}

impl Running {
    /// Waits until so many tasks are stored. Fails as soon as a client has failed.
    pub async fn stored_at_least(&mut self, count: usize) -> Result<()> {
        let began = Instant::now();
        while self.stored.load(Ordering::SeqCst) < count {
            let stored = self.stored.load(Ordering::SeqCst);
            ensure!(began.elapsed() < PATIENCE, "{stored} of {count} tasks are stored after {PATIENCE:?}");
            while let Some(client) = self.clients.try_join_next() {
                self.done.extend(client??);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until all are.
    pub async fn finish(mut self) -> Result<Stored> {
        while let Some(client) = self.clients.join_next().await {
            self.done.extend(client??);
        }
        Ok(self.done)
    }
}

struct One {
    number: u64,
    doors: Vec<Client>,
    random: Random,
    most: u64,
}

impl One {
    /// Sends a task until it is stored.
    async fn insist(&mut self, task: u64) -> Result<(String, Position)> {
        let key = format!("insistent {}/{}", self.number, task % 3);
        let size = self.random.log_uniform(300, self.most) as usize;
        let body = payload::make(&key, task, size);
        let name = name(&key, task);
        let began = Instant::now();
        loop {
            ensure!(began.elapsed() < PATIENCE, "{name} is refused for longer than {PATIENCE:?}");
            match self.random.below(10) {
                0 => self.hang_up(&key, &name, &body).await,
                1 => self.impatient(&key, &name, &body).await,
                2 if self.doors.len() > 1 => {
                    let (one, other) = (&self.doors[0], &self.doors[1]);
                    let (one, other) = tokio::join!(
                        post(one, &key, &name, body.clone()),
                        post(other, &key, &name, body.clone())
                    );
                    match (place(one)?, place(other)?) {
                        (Some(one), Some(other)) => ensure!(one == other, "{name}: {one:?} and {other:?}"),
                        (None, None) => continue,
                        _ => {}
                    }
                }
                _ => {}
            }
            let door = &self.doors[self.random.below(self.doors.len() as u64) as usize];
            if let Some(position) = place(post(door, &key, &name, body.clone()).await)? {
                return Ok((key, position));
            }
            tokio::time::sleep(Duration::from_millis(20 + self.random.below(200))).await;
        }
    }

    /// Waits for the answer for a few milliseconds only.
    async fn impatient(&mut self, key: &str, name: &str, body: &bytes::Bytes) {
        let patience = Duration::from_micros(self.random.below(8000));
        let door = &self.doors[self.random.below(self.doors.len() as u64) as usize];
        let _ = tokio::time::timeout(patience, post(door, key, name, body.clone())).await;
    }

    /// Hangs up in the middle of the body.
    async fn hang_up(&mut self, key: &str, name: &str, body: &bytes::Bytes) {
        let door = self.doors[self.random.below(self.doors.len() as u64) as usize].clone();
        let (pieces, fed) = hand_fed();
        let url = door.url(&["v1", "tasks", key]);
        let request = door.http().post(url).header("Idempotency-Key", name).body(fed).send();
        let sending = tokio::spawn(request);
        let _ = pieces.send(Ok(body.slice(..body.len() / 2))).await;
        tokio::time::sleep(Duration::from_millis(self.random.below(20))).await;
        // An end in good order would make the half a whole.
        let _ = pieces.send(Err(std::io::ErrorKind::ConnectionAborted.into())).await;
        let _ = sending.await;
    }
}

fn name(key: &str, task: u64) -> String {
    format!("{}:{task}", key.replace(' ', "_"))
}

async fn post(door: &Client, key: &str, name: &str, body: bytes::Bytes) -> Result<Answer> {
    let request = door.http().post(door.url(&["v1", "tasks", key])).header("Idempotency-Key", name);
    Answer::of(request.body(body).send().await?).await
}

/// Where the task is; `None`: it is to be sent again.
fn place(answer: Result<Answer>) -> Result<Option<Position>> {
    let Ok(answer) = client::or_none(answer)? else { return Ok(None) };
    match answer.status {
        202 => Ok(Some(answer.json::<Receipt>()?.position())),
        409 | 503 | 504 => Ok(None),
        status => bail!("{status}: {}", answer.text()),
    }
}

/// Asks each door for a part of the tasks once more: the first answer again, and another payload is refused.
pub async fn all_are_known(doors: &[SocketAddr], stored: &Stored) -> Result<()> {
    for door in doors {
        let door = Client::new(*door);
        for ((key, task), position) in stored.iter().step_by(stored.len() / 60 + 1) {
            let chunk = door.chunk(key, *position).await.context("the task's payload")?;
            let again = post(&door, key, &name(key, *task), chunk).await?;
            ensure!(again.status == 202, "{key} {task}: {}: {}", again.status, again.text());
            ensure!(again.json::<Receipt>()?.position() == *position, "{key} {task}: {}", again.text());
            ensure!(again.header("idempotent-replayed") == Some("true"), "{key} {task}");
            let other = post(&door, key, &name(key, *task), "another payload".into()).await?;
            ensure!(other.status == 422, "{key} {task}: {}: {}", other.status, other.text());
        }
    }
    Ok(())
}

/// Every task was handled once, where its receipt says, and no other task was.
pub async fn each_was_stored_once(client: &Client, stored: &Stored) -> Result<()> {
    let mut expected: BTreeMap<&str, Vec<Position>> = BTreeMap::new();
    for ((key, _), position) in stored {
        expected.entry(key).or_default().push(*position);
    }
    for (key, mut positions) in expected {
        positions.sort_by_key(|position| position.offset);
        wait::until("all of a key's tasks are handled", PATIENCE, async || {
            let recording = client.recording(key).await?.context("no recording yet")?;
            let chunks: Vec<_> = recording.chunks.iter().map(|chunk| chunk.position()).collect();
            ensure!(chunks.len() >= positions.len(), "{} of {}", chunks.len(), positions.len());
            // More would not go away again.
            Ok(Some(chunks))
        })
        .await
        .and_then(|chunks| {
            ensure!(chunks == positions, "{key}: {chunks:?} are stored, {positions:?} were acknowledged");
            Ok(())
        })?;
    }
    Ok(())
}
