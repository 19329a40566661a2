//! A started front door, a log that follows a script, and an HTTP client that can misbehave.

use crate::{
    config::FrontDoorConfig,
    envelope,
    front_door::{FrontDoor, FrontDoorHandle, FrontDoorOptions, Routes},
    log::{
        AppendError, AppendFuture, BacklogFuture, CommittedFuture, ExtentFuture, Idempotency, IdempotencyKey,
        JournalFuture, JournalRead, LogHealth, NewRecord, NotWritten, ParkedRecord, PayloadDigest, ReadError,
        Receipt, Reply, TaskLog,
    },
    memory::{MemoryPool, Reservation},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use partita_core::{Offset, Partition, PartitionHealth, Position};
use partita_proto::v1::Envelope;
use std::{
    collections::{BTreeMap, HashMap},
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::watch;

/// What the fake log answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Script {
    Ok,
    NotWritten(NotWritten),
    Unknown,
    /// Answers once the script is changed, by the new one.
    Wait,
}

/// A stored record and the memory it holds.
pub(super) struct Stored {
    pub(super) partition: Partition,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    _reservation: Option<Reservation>,
}

pub(super) struct FakeLog {
    script: watch::Sender<Script>,
    health: Mutex<LogHealth>,
    stored: Mutex<Vec<Stored>>,
    ends: Mutex<BTreeMap<Partition, u64>>,
    /// What idempotent appends were stored as.
    remembered: Arc<Mutex<HashMap<IdempotencyKey, (PayloadDigest, Receipt)>>>,
    keep: bool,
    pub(super) appends: AtomicU64,
}

impl FakeLog {
    pub(super) fn new(keep: bool) -> Arc<Self> {
        Arc::new(Self {
            script: watch::Sender::new(Script::Ok),
            health: Mutex::default(),
            stored: Mutex::default(),
            ends: Mutex::default(),
            remembered: Arc::default(),
            keep,
            appends: AtomicU64::new(0),
        })
    }

    pub(super) fn script(&self, script: Script) {
        self.script.send_replace(script);
    }

    pub(super) fn set_health(&self, health: LogHealth) {
        *self.health.lock().unwrap() = health;
    }

    /// The keys and payloads stored so far, in order.
    pub(super) fn payloads(&self) -> Vec<(Bytes, Bytes)> {
        let stored = self.stored.lock().unwrap();
        stored.iter().map(|one| (one.key.clone(), envelope::payload(&mut decode(one)).unwrap())).collect()
    }

    /// The only record's envelope, and its payload.
    pub(super) fn only(&self) -> (Envelope, Bytes) {
        let stored = self.stored.lock().unwrap();
        assert_eq!(stored.len(), 1);
        let envelope = decode(&stored[0]);
        let payload = envelope::payload(&mut envelope.clone()).unwrap();
        (envelope, payload)
    }

    pub(super) fn partition_of_only(&self) -> Partition {
        self.stored.lock().unwrap()[0].partition
    }

    /// As if nothing had been stored so far.
    pub(super) fn forget(&self) {
        self.stored.lock().unwrap().clear();
        self.remembered.lock().unwrap().clear();
        self.appends.store(0, Ordering::SeqCst);
    }

    /// Waits until so many appends were taken.
    pub(super) fn await_appends(&self, count: u64) {
        await_that("the append", || self.appends.load(Ordering::SeqCst) >= count);
    }
}

fn decode(stored: &Stored) -> Envelope {
    envelope::decode(stored.value.clone(), u64::MAX).unwrap()
}

impl TaskLog for FakeLog {
    fn topic(&self) -> &str {
        "fake"
    }

    fn topic_id(&self) -> &str {
        "fake-1"
    }

    fn partitions(&self) -> u32 {
        16
    }

    fn submit(&self, partition: Partition, record: NewRecord, reply: Reply) {
        let NewRecord { key, value, reservation, idempotency } = record;
        if let Some(idempotency) = idempotency
            && let Some((digest, receipt)) = self.remembered.lock().unwrap().get(&idempotency.key)
        {
            let reused = NotWritten::Reused;
            let repeated = Ok(Receipt { repeated: true, ..*receipt });
            let refused = Err(AppendError::NotWritten { code: reused, reason: "as the script says".into() });
            return reply.send(if *digest == idempotency.digest { repeated } else { refused });
        }
        let mut script = self.script.subscribe();
        let now = script.borrow_and_update().clone();
        let receipt = {
            let mut ends = self.ends.lock().unwrap();
            let end = ends.entry(partition).or_default();
            *end += 1;
            Receipt::new(partition, Offset(*end - 1))
        };
        if self.keep && matches!(now, Script::Ok | Script::Wait) {
            self.stored.lock().unwrap().push(Stored { partition, key, value, _reservation: reservation });
        }
        self.appends.fetch_add(1, Ordering::SeqCst);
        let remembered = self.remembered.clone();
        let settle = move |answer| {
            let outcome = match answer {
                Script::Ok | Script::Wait => {
                    if let Some(Idempotency { key, digest }) = idempotency {
                        remembered.lock().unwrap().insert(key, (digest, receipt));
                    }
                    Ok(receipt)
                }
                Script::NotWritten(code) => {
                    Err(AppendError::NotWritten { code, reason: "as the script says".into() })
                }
                Script::Unknown => Err(AppendError::Unknown { reason: "as the script says".into() }),
            };
            reply.send(outcome);
        };
        if now != Script::Wait {
            return settle(now);
        }
        tokio::spawn(async move {
            let changed = script.wait_for(|script| *script != Script::Wait).await;
            settle(changed.map(|script| script.clone()).unwrap_or(Script::Unknown));
        });
    }

    fn park(&self, _: Partition, _: ParkedRecord) -> AppendFuture {
        Box::pin(async { Err(AppendError::Unknown { reason: "the front door parks nothing".into() }) })
    }

    fn extent(&self, _: Partition, _: Option<i64>) -> ExtentFuture {
        Box::pin(async { Err(ReadError("the front door asks for no extent".into())) })
    }

    fn committed(&self, _: Partition) -> CommittedFuture {
        Box::pin(async { Err(ReadError("nothing is committed here".into())) })
    }

    fn backlog(&self) -> BacklogFuture {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn journal(&self, _: Partition, _: Position, _: JournalRead) -> JournalFuture {
        Box::pin(async { Err(ReadError("the front door reads no journal".into())) })
    }

    fn health(&self) -> LogHealth {
        self.health.lock().unwrap().clone()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// What a test's front door is like.
pub(super) struct Setup {
    pub(super) max_task: u64,
    pub(super) pool: u64,
    pub(super) config: FrontDoorConfig,
    pub(super) routes: Vec<Routes>,
    pub(super) keep: bool,
}

impl Default for Setup {
    fn default() -> Self {
        let config = FrontDoorConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            threads: Some(2),
            ..FrontDoorConfig::default()
        };
        Self { max_task: 1 << 20, pool: 16 << 20, config, routes: Vec::new(), keep: true }
    }
}

/// A front door that runs on a thread of its own until this is dropped.
pub(super) struct Running {
    pub(super) log: Arc<FakeLog>,
    pub(super) pool: MemoryPool,
    pub(super) front_door: FrontDoor,
    pub(super) options: FrontDoorOptions,
    pub(super) handle: FrontDoorHandle,
    health: Arc<Mutex<PartitionHealth>>,
    tokio: tokio::runtime::Handle,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Setup {
    pub(super) fn start(self) -> Running {
        let log = FakeLog::new(self.keep);
        let pool = MemoryPool::new("intake", self.pool);
        let scripted = Arc::new(Mutex::new(PartitionHealth::Open));
        let known = scripted.clone();
        let partition_health = move |_| *known.lock().unwrap();
        let health = log.clone();
        let options = FrontDoorOptions {
            config: self.config,
            log_health: Arc::new(move || health.health()),
            max_task: self.max_task,
            log: log.clone(),
            intake: pool.clone(),
            partition_health: Arc::new(partition_health),
            task_states: None,
            routes: self.routes,
        };
        let front_door = FrontDoor::new(options.clone()).unwrap();
        let opening = front_door.clone();
        let (started, starting) = mpsc::channel();
        let (end, ended) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix_rt::System::new().block_on(async move {
                let handle = opening.start().unwrap();
                started.send((handle.clone(), tokio::runtime::Handle::current())).unwrap();
                let _ = ended.await;
                handle.stop().await;
            });
        });
        let (handle, tokio) = starting.recv().unwrap();
        Running {
            log,
            pool,
            front_door,
            options,
            handle,
            health: scripted,
            tokio,
            end: Some(end),
            thread: Some(thread),
        }
    }
}

impl Running {
    /// How every partition is.
    pub(super) fn set_partitions(&self, health: PartitionHealth) {
        *self.health.lock().unwrap() = health;
    }

    pub(super) fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.handle.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection { reader: BufReader::new(stream) }
    }

    /// Posts a task and reads the answer.
    pub(super) fn post(&self, key: &str, headers: &str, body: &[u8]) -> Response {
        let mut connection = self.connect();
        connection.send_post(key, headers, body);
        connection.response()
    }

    /// Runs a future of the front door's thread to its end, from another.
    pub(super) fn spawn<F>(&self, future: F) -> mpsc::Receiver<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (done, receiver) = mpsc::channel();
        self.tokio.spawn(async move {
            future.await;
            let _ = done.send(());
        });
        receiver
    }

    pub(super) fn await_idle_pool(&self) {
        await_that("an empty pool", || self.pool.reserved() == 0);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.log.script(Script::Ok);
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Polls until a condition holds, or fails the test after ten seconds.
pub(super) fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{what} did not come about");
}

/// One connection, spoken by hand.
pub(super) struct Connection {
    reader: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Connection {
    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Sends as much as the other side takes.
    pub(super) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    pub(super) fn send_post(&mut self, key: &str, headers: &str, body: &[u8]) {
        self.send(format!(
            "POST /v1/tasks/{key} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        ));
        self.send(body);
    }

    pub(super) fn send_chunked_head(&mut self, key: &str, headers: &str) {
        self.send(format!(
            "POST /v1/tasks/{key} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n{headers}\r\n"
        ));
    }

    pub(super) fn send_chunk(&mut self, bytes: &[u8]) {
        self.send(format!("{:x}\r\n", bytes.len()));
        self.send(bytes);
        self.send("\r\n");
    }

    pub(super) fn half_close(&self) {
        self.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    pub(super) fn response(&mut self) -> Response {
        self.try_response().unwrap()
    }

    /// The head of a response whose body is read by hand.
    pub(super) fn head(&mut self) -> Response {
        self.try_head().unwrap()
    }

    /// Whether something of an answer, or its end, comes within this time.
    pub(super) fn has_answer(&mut self, within: Duration) -> bool {
        self.reader.get_ref().set_read_timeout(Some(within)).unwrap();
        let came = self.reader.fill_buf().is_ok();
        self.reader.get_ref().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        came
    }

    /// Whether the other side has hung up, or answered.
    pub(super) fn is_over(&mut self) -> bool {
        self.has_answer(Duration::from_millis(1))
    }

    /// The status of the answer; `None` where it was hung up on without one.
    pub(super) fn status_or_end(&mut self) -> Option<u16> {
        self.try_head().ok().map(|response| response.status)
    }

    /// A second hold of the connection, to write while answers are read.
    pub(super) fn writer(&self) -> TcpStream {
        self.reader.get_ref().try_clone().unwrap()
    }

    pub(super) fn set_write_timeout(&self, timeout: Duration) {
        self.reader.get_ref().set_write_timeout(Some(timeout)).unwrap();
    }

    fn try_head(&mut self) -> std::io::Result<Response> {
        let mut line = || {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            std::io::Result::Ok(line.trim_end().to_owned())
        };
        let status = line()?;
        let bad = || std::io::Error::other(format!("no status line: {status:?}"));
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(bad)?;
        let mut headers = Vec::new();
        loop {
            let line = line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        Ok(Response { status, headers, body: Vec::new() })
    }

    pub(super) fn try_response(&mut self) -> std::io::Result<Response> {
        let mut response = self.try_head()?;
        if response.header("transfer-encoding") == Some("chunked") {
            while self.chunk(&mut response.body)? > 0 {}
            return Ok(response);
        }
        let length = response.header("content-length").map_or(0, |length| length.parse().unwrap());
        response.body.resize(length, 0);
        self.reader.read_exact(&mut response.body)?;
        Ok(response)
    }

    /// Reads a chunk into `body` and says how long it is: 0 at the end.
    pub(super) fn chunk(&mut self, body: &mut Vec<u8>) -> std::io::Result<usize> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim_end(), 16).map_err(std::io::Error::other)?;
        let start = body.len();
        body.resize(start + size + 2, 0);
        self.reader.read_exact(&mut body[start..])?;
        body.truncate(start + size);
        Ok(size)
    }

    /// Whether the other side closes the connection, and sends nothing more.
    pub(super) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }
}

impl Response {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The problem's code, after checking that it is one, whole.
    #[track_caller]
    pub(super) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        let code = problem["code"].as_str().unwrap().to_owned();
        assert_eq!(problem["status"], self.status);
        assert_eq!(problem["type"], format!("urn:partita:problem:{code}"));
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        assert!(!problem["title"].as_str().unwrap().is_empty());
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        assert_eq!(self.header("retry-after").is_some(), matches!(self.status, 409 | 429 | 503));
        code
    }
}
