//! Many connections: most of them idle, some busy, one slow and large; and the same clients at a server that has no others.

use crate::{
    client::{self, Answer, Client, Receipt},
    payload, process,
    random::Random,
    scenario::MAX_TASK,
    server::Server,
};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinSet,
    time::{interval, sleep, timeout},
};

/// Connections that are kept alive and do nothing.
const IDLE: usize = 2000;
/// Clients with a task each, again and again.
const BUSY: usize = 256;
/// Of the large task: pieces of a megabyte, one a second.
const PIECE: usize = 1_000_000;
/// The clients turn from one server to the other after this: soon, so that what else the machine does falls on both.
const TURN: Duration = Duration::from_secs(1);
/// The idle connections ask again after this time and a turn of both: within less than a minute, or they would rightly be taken for dead.
const ASK_AFTER: Duration = Duration::from_secs(30);
/// Between two times that are as good as none.
const NO_DIFFERENCE: Duration = Duration::from_millis(1);
/// How long each client waits after each answer: what is measured is a door's answer, not a queue for the machine.
const PAUSE: Duration = Duration::from_millis(500);
/// How long an idle connection may wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// `memory.budget` of both servers.
pub const BUDGET: &str = "\"512MiB\"";
/// What the crowded one may have resident.
const RESIDENT: u64 = (512 + 64) << 20;

/// Lets the same clients post small tasks to either server in turn, while one of them has 2,000 idle connections and takes a task of the
/// largest size at a megabyte a second: whatever else the machine does, it does to both. The small ones may take twice as long there, and the
/// memory is kept.
pub async fn a_crowd_costs_the_others_nothing(crowded: &Server, alone: &Server) -> Result<()> {
    let mut idle = Idle::open(crowded.setup().front()).await?;
    let body = Bytes::from(Random::new(1).bytes(MAX_TASK));
    let large = tokio::spawn(upload(crowded.client(), body.clone()));
    let (mut without, mut beside) = (Busy::of(alone), Busy::of(crowded));
    let mut asked = Instant::now();
    while !large.is_finished() {
        without.turn().await?;
        beside.turn().await?;
        if asked.elapsed() >= ASK_AFTER {
            asked = Instant::now();
            idle.ask().await.context("the idle connections while the large task is taken")?;
        }
    }
    let receipt = large.await??;
    idle.ask().await.context("the idle connections in the end")?;
    let recorded = crate::observe::chunks(&crowded.client(), "large", 1, Duration::from_secs(60)).await?;
    ensure!(recorded[0].position() == receipt.position(), "{receipt:?}, and recorded {recorded:?}");
    ensure!(recorded[0].sha256 == payload::digest(&body), "the large task has other bytes");
    let resident = process::peak_resident(crowded.pid())?;
    eprintln!("beside the others {beside}; without {without}; {} MiB resident at most", resident >> 20);
    ensure!(
        beside.p99_of_a_turn() <= 2 * without.p99_of_a_turn() + NO_DIFFERENCE,
        "the slowest in a hundred took longer than twice as long: {beside}; without {without}"
    );
    ensure!(resident <= RESIDENT, "{} MiB became resident", resident >> 20);
    crowded.is_sound().await?;
    alone.is_sound().await
}

/// A task of the largest size, at a megabyte a second.
async fn upload(client: Client, body: Bytes) -> Result<Receipt> {
    let (pieces, stream) = client::hand_fed();
    let feed = async move {
        let mut clock = interval(Duration::from_secs(1));
        for start in (0..body.len()).step_by(PIECE) {
            clock.tick().await;
            let piece = body.slice(start..(start + PIECE).min(body.len()));
            pieces.send(Ok(piece)).await.context("the large task was not taken to its end")?;
        }
        anyhow::Ok(())
    };
    let url = client.url(&["v1", "tasks", "large"]);
    let post = client.http().post(url).header("content-length", MAX_TASK).timeout(Duration::from_secs(300));
    let (fed, answer) = tokio::join!(feed, post.body(stream).send());
    let answer = Answer::of(answer?).await?;
    ensure!(answer.status == 202, "{}: {}", answer.status, answer.text());
    fed?;
    answer.json()
}

/// Clients of one server, each with a connection of its own.
struct Busy {
    client: Client,
    /// How long the answers of each turn took, in order.
    turns: Vec<Vec<Duration>>,
}

impl Busy {
    fn of(server: &Server) -> Self {
        Self { client: server.client(), turns: Vec::new() }
    }

    async fn turn(&mut self) -> Result<()> {
        let end = Instant::now() + TURN;
        let mut clients = JoinSet::new();
        for number in 0..BUSY {
            let (client, sent) = (self.client.clone(), self.turns.len() as u64 * 1000);
            clients.spawn(async move {
                let mut took = Vec::new();
                // They do not all begin at once.
                sleep(PAUSE.mul_f64(number as f64 / BUSY as f64)).await;
                while Instant::now() < end {
                    let key = format!("busy-{number}");
                    let task = payload::make(&key, sent + took.len() as u64, 10_000);
                    let start = Instant::now();
                    client.accept(&key, task).await?;
                    took.push(start.elapsed());
                    sleep(PAUSE).await;
                }
                anyhow::Ok(took)
            });
        }
        let mut took = Vec::new();
        while let Some(client) = clients.join_next().await {
            took.extend(client??);
        }
        took.sort_unstable();
        self.turns.push(took);
        Ok(())
    }

    /// The slowest in a hundred of a turn: of the turn in the middle, since another test may have the disk to itself in some.
    fn p99_of_a_turn(&self) -> Duration {
        let mut of_turns: Vec<_> = self.turns.iter().map(|took| took[took.len() * 99 / 100]).collect();
        of_turns.sort_unstable();
        of_turns[of_turns.len() / 2]
    }
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = self.turns.concat();
        all.sort_unstable();
        let (count, p99) = (all.len(), all[all.len() * 99 / 100]);
        write!(f, "{count} small tasks, p99 {:?} in a turn and {p99:?} over all", self.p99_of_a_turn())
    }
}

/// Connections that ask a small question now and then.
struct Idle(Vec<TcpStream>);

impl Idle {
    async fn open(address: SocketAddr) -> Result<Self> {
        // A connection is a file.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
        let mut idle = Self(Vec::with_capacity(IDLE));
        for _ in 0..IDLE {
            idle.0.push(TcpStream::connect(address).await?);
        }
        idle.ask().await?;
        Ok(idle)
    }

    /// Each asks once, and must be answered on the connection that it has.
    async fn ask(&mut self) -> Result<()> {
        for (number, stream) in self.0.iter_mut().enumerate() {
            let answered = timeout(PATIENCE, ask(stream)).await;
            answered.context("no answer").flatten().with_context(|| format!("idle connection {number}"))?;
        }
        Ok(())
    }
}

async fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"GET /v1/recordings?limit=1 HTTP/1.1\r\nhost: idle\r\n\r\n").await?;
    let answer = Answer::read(stream).await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    Ok(())
}

/// Connections that wait for a task and send requests behind that.
const WAITING: usize = 300;
/// Those requests: actix-http makes 8 KiB of each.
const BEHIND: usize = 6000;
/// What the waiting connections may make resident, and how much of the processor they may take.
const MORE_RESIDENT: u64 = 64 << 20;
const MORE_TIME: Duration = Duration::from_millis(500);

/// What somebody may send before such a wait, in pieces, to have what follows taken for something else than requests.
fn tricks() -> Vec<[String; 2]> {
    let chunked = "HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let expect = "POST /v1/tasks/x HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n";
    let tricks = [
        ("", ""),
        (expect, "x"),
        ("CONNECT x:1 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx", ""),
        (
            "GET /openapi.json ",
            &format!("{chunked}0\r\n\nPOST / HTTP/1.1\r\ncontent-length: 9999999999\r\n\r\n"),
        ),
        (
            &format!("POST /v1/tasks/x {chunked}{}1", "0".repeat(1023)),
            "0\r\nx\r\nfffffffffff\r\n\r\n0\r\n\r\n",
        ),
        (&format!("GET / HTTP/1.1\r\nhost: x\r\ncontent-length: {}", " ".repeat(2000)), "1\r\n\r\nx"),
    ];
    tricks.map(|(first, second)| [first.to_owned(), second.to_owned()]).to_vec()
}

/// Many connections that wait for a task which does not end, and send small requests behind that, take next to nothing.
pub async fn what_is_sent_behind_a_wait_costs_little(server: &Server) -> Result<()> {
    let id = server.client().accept("waited", payload::make("waited", 0, 1000)).await?.id;
    let wait = format!("GET /v1/tasks/{id}?wait=done&timeout=5m HTTP/1.1\r\nhost: x\r\n\r\n");
    let behind = wait + &"GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(BEHIND);
    let before = process::resident(server.pid())?;
    let mut streams = Vec::new();
    for [first, _] in tricks().into_iter().cycle().take(WAITING) {
        let mut stream = TcpStream::connect(server.setup().front()).await?;
        stream.write_all(first.as_bytes()).await?;
        streams.push(stream);
    }
    sleep(Duration::from_millis(500)).await;
    for (stream, [_, second]) in streams.iter().zip(tricks().into_iter().cycle()) {
        stream.writable().await?;
        // As much as the other side's kernel takes; who was hung up on has lost.
        let _ = stream.try_write((second + &behind).as_bytes());
    }
    sleep(Duration::from_secs(2)).await;
    let mut bytes = [0; 4096];
    if let Ok(read) = streams[0].try_read(&mut bytes) {
        bail!("the wait was over: {}", String::from_utf8_lossy(&bytes[..read]));
    }
    let spent = process::cpu_time(server.pid())?;
    sleep(Duration::from_secs(1)).await;
    let spent = process::cpu_time(server.pid())? - spent;
    let more = process::resident(server.pid())?.saturating_sub(before);
    eprintln!("{WAITING} connections that wait: {} KiB resident, {spent:?} of a second", more >> 10);
    ensure!(more <= MORE_RESIDENT, "{} MiB more are resident", more >> 20);
    ensure!(spent <= MORE_TIME, "{spent:?} of a second were spent on nothing");
    server.is_sound().await
}
