//! `TestPipeline`: the production actors over a scripted log, on the calling thread, with time that passes by itself.

use super::ScriptedLog;
use crate::{
    Config, Routes,
    actor::{Dismiss, Shutdown, Single, Spawner, Supervisor, spawner},
    envelope::PayloadBuffer,
    handler::{Assignment, TaskHandler},
    log::{NewRecord, Receipt, TaskLog},
    memory::MemoryBudget,
    operations::Operations,
    pipeline::{Shared, workers},
    status::PipelineStatus,
    task_state::TaskStates,
};
use actix_rt::Arbiter;
use bytes::Bytes;
use partita_core::{Exit, Offset, partition_of};
use partita_proto::v1::{Compression, Envelope, Header, parked::Kind};
use prost::Message;
use std::{cell::RefCell, collections::BTreeMap, convert::Infallible, fmt, sync::Arc, time::Duration};
use tokio::{sync::watch, time::timeout};

/// When the tasks of tests were made.
const NOW_MS: u64 = 1_700_000_000_000;

/// How much time may pass in a test before what has not ended is taken for stuck. It costs no waiting.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A pipeline in a test. It owns all of its log's partitions from the start.
///
/// To be made inside [`run`](super::run) or `#[actix_rt::test]`. It pauses tokio's clock, which then jumps to the next
/// timer whenever there is nothing else to do: backoffs and timeouts take no time.
pub struct TestPipeline {
    log: ScriptedLog,
    shared: Shared,
    pub(super) supervisor: actix::Addr<Supervisor>,
    exit: watch::Receiver<Option<Exit>>,
    sent: RefCell<Vec<(String, Receipt)>>,
}

/// A task to be sent.
#[derive(Debug, Clone, Default)]
pub struct TestTask {
    key: String,
    payload: Bytes,
    type_name: Option<String>,
    headers: Vec<(String, String)>,
    zstd: bool,
}

impl TestTask {
    /// A task of this key with this payload.
    pub fn new(key: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self { key: key.into(), payload: payload.into(), ..Self::default() }
    }

    /// A task of this key with this message as its payload.
    pub fn message(key: impl Into<String>, message: &impl Message) -> Self {
        Self::new(key, message.encode_to_vec())
    }

    /// Says the type of its payload.
    pub fn type_name(mut self, name: impl Into<String>) -> Self {
        self.type_name = Some(name.into());
        self
    }

    /// Adds a header. Names are lower case.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Has the payload stored compressed, as the front door does with large ones.
    pub fn compressed(mut self) -> Self {
        self.zstd = true;
        self
    }

    /// The record that the front door would make of it.
    pub(crate) fn record(self) -> NewRecord {
        let mut head = Envelope {
            created_at_ms: NOW_MS,
            r#type: self.type_name,
            payload_size: self.payload.len() as u64,
            headers: self.headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
            ..Envelope::default()
        };
        let mut stored = self.payload;
        if self.zstd
            && let Ok(compressed) = zstd::bulk::compress(&stored, 1)
        {
            head.set_compression(Compression::Zstd);
            stored = compressed.into();
        }
        let mut buffer = PayloadBuffer::new(&head, stored.len());
        buffer.extend(&stored);
        NewRecord { key: self.key.into(), value: buffer.seal(&head), reservation: None, idempotency: None }
    }
}

impl<K: Into<String>, P: Into<Bytes>> From<(K, P)> for TestTask {
    fn from((key, payload): (K, P)) -> Self {
        Self::new(key, payload)
    }
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its handler succeeded.
    Done,
    /// It is in the parking store, and may succeed later.
    Parked(String),
    /// It is in the parking store, and never will.
    Rejected(String),
}

/// One task that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its key.
    pub key: String,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl Ended {
    /// Why it was put aside, if it was.
    pub fn reason(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Done => None,
            Outcome::Parked(reason) | Outcome::Rejected(reason) => Some(reason),
        }
    }
}

/// All the tasks that were sent, when all of them have ended and are committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// In the order they were sent.
    pub tasks: Vec<Ended>,
}

impl Settled {
    /// The tasks of one key, in order.
    pub fn of(&self, key: &str) -> Vec<&Ended> {
        self.tasks.iter().filter(|task| task.key == key).collect()
    }

    /// The outcomes, in the order the tasks were sent.
    pub fn outcomes(&self) -> Vec<&Outcome> {
        self.tasks.iter().map(|task| &task.outcome).collect()
    }

    /// How many are done.
    pub fn done(&self) -> usize {
        self.tasks.iter().filter(|task| task.outcome == Outcome::Done).count()
    }
}

impl TestPipeline {
    /// A pipeline of 4 partitions with default settings.
    pub async fn start<H: TaskHandler>(factory: impl Fn(&Assignment) -> H + Send + Sync + 'static) -> Self {
        Self::with(Config::default(), 4, factory).await
    }

    /// A pipeline with these settings and so many partitions.
    pub async fn with<H: TaskHandler>(
        config: Config,
        partitions: u32,
        factory: impl Fn(&Assignment) -> H + Send + Sync + 'static,
    ) -> Self {
        let factory = move |assignment: &Assignment| Single(factory(assignment));
        Self::all_assigned(config, partitions, spawner(Arc::new(factory))).await
    }

    /// A pipeline of handlers by type.
    pub async fn routes(config: Config, partitions: u32, routes: Routes) -> Self {
        Self::all_assigned(config, partitions, spawner(routes.factory())).await
    }

    async fn all_assigned(config: Config, partitions: u32, spawner: Spawner) -> Self {
        tokio::time::pause();
        let pipeline = Self::over(ScriptedLog::new(partitions), config, spawner, vec![Arbiter::current()]);
        let all: Vec<u32> = (0..partitions).collect();
        pipeline.log.assign(&all);
        pipeline.owns(&all).await;
        pipeline
    }

    /// The actors over a log of which nothing is assigned yet.
    pub(crate) fn over(
        log: ScriptedLog,
        config: Config,
        spawner: Spawner,
        arbiters: Vec<actix_rt::ArbiterHandle>,
    ) -> Self {
        let memory = MemoryBudget::divide(config.memory.budget.as_u64(), config.limits.max_task.as_u64())
            .unwrap_or_else(|error| panic!("{error}"));
        let status = Arc::new(PipelineStatus::new(log.partitions()));
        let own: Arc<dyn TaskLog> = Arc::new(log.clone());
        let task_states = Arc::new(TaskStates::new(own.clone(), status.clone(), &memory));
        let shared = Shared { config: Arc::new(config), log: own, memory, status, task_states };
        let attach =
            |events: crate::actor::Events| Ok::<_, Infallible>(log.attach(move |event| events(event)));
        let Ok((supervisor, exit)) = workers::supervise(&shared, spawner, arbiters, log.tenure(), attach);
        Self { log, shared, supervisor, exit, sent: RefCell::default() }
    }

    /// Sends a task: `(key, payload)`, or a [`TestTask`]. It is delivered at once.
    pub async fn send(&self, task: impl Into<TestTask>) -> Receipt {
        let task = task.into();
        let key = task.key.clone();
        let partition = partition_of(key.as_bytes(), self.log.partitions());
        match self.log.append(partition, task.record()).await {
            Ok(receipt) => {
                self.sent.borrow_mut().push((key, receipt));
                receipt
            }
            Err(error) => panic!("the scripted log takes every task: {error}"),
        }
    }

    /// Waits until every task has ended and is committed.
    ///
    /// # Panics
    /// If that takes more than an hour of the test's time: a task is stuck, and the message says where.
    pub async fn settled(&self) -> Settled {
        self.wait_until("every task has ended and is committed", |pipeline| pipeline.log.is_settled()).await;
        // The last note of a task is the one that counts.
        let mut aside = BTreeMap::new();
        for partition in 0..self.log.partitions() {
            aside.extend(self.log.parked(partition).into_iter().map(|note| ((partition, note.offset), note)));
        }
        let ended = |(key, Receipt { partition, offset, .. }): &(String, Receipt)| {
            let outcome = match aside.remove(&(partition.0, offset.0)) {
                None => Outcome::Done,
                Some(note) if note.kind() == Kind::Rejected => Outcome::Rejected(note.reason),
                Some(note) => Outcome::Parked(note.reason),
            };
            Ended { key: key.clone(), partition: partition.0, offset: offset.0, outcome }
        };
        Settled { tasks: self.sent.borrow().iter().map(ended).collect() }
    }

    /// The committed offset of a key's partition: the next to read.
    pub fn committed(&self, key: &str) -> Option<Offset> {
        self.log.committed(partition_of(key.as_bytes(), self.log.partitions()).0)
    }

    /// Gives all partitions back in good order and takes them again, as a rebalance does.
    pub async fn rebalance(&self) {
        let all: Vec<u32> = (0..self.log.partitions()).collect();
        self.log.revoke(&all);
        self.wait_until("the partitions are given back", |pipeline| {
            all.iter().all(|&partition| !pipeline.log.owns(partition))
        })
        .await;
        self.log.assign(&all);
        self.owns(&all).await;
    }

    /// Stops as a process does: drained, committed, left.
    pub async fn shutdown(&self) -> Exit {
        self.shared.status.set_draining();
        self.supervisor.do_send(Shutdown);
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.map(|exit| *exit);
        ended.ok().flatten().unwrap_or(Exit::Fatal)
    }

    /// What operators may ask.
    pub fn operations(&self) -> Operations {
        self.shared.operations()
    }

    /// What became of tasks.
    pub fn task_states(&self) -> &TaskStates {
        &self.shared.task_states
    }

    /// The log, to make things happen.
    pub fn log(&self) -> &ScriptedLog {
        &self.log
    }

    /// What the pipeline says about itself.
    pub fn status(&self) -> &PipelineStatus {
        &self.shared.status
    }

    /// The memory that tasks are reserved from.
    pub fn memory(&self) -> &MemoryBudget {
        &self.shared.memory
    }

    /// Waits until these partitions are owned.
    pub async fn owns(&self, partitions: &[u32]) {
        self.wait_until("the partitions are assigned", |pipeline| {
            partitions.iter().all(|&partition| pipeline.log.owns(partition))
        })
        .await;
    }

    /// Waits until `condition` holds, looking whenever something happened.
    ///
    /// # Panics
    /// If it does not within an hour of the test's time.
    pub async fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                tokio::select! {
                    () = self.log.changed() => {}
                    // Not everything that may be waited for is a change of the log.
                    () = tokio::time::sleep(Duration::from_millis(10)) => {}
                }
            }
        };
        if timeout(PATIENCE, wait).await.is_err() {
            let status = self.status().partitions();
            panic!("waited in vain until {what}; partitions behind: {:?}; {status:#?}", self.log.unsettled());
        }
    }
}

impl Drop for TestPipeline {
    fn drop(&mut self) {
        self.supervisor.do_send(Dismiss);
    }
}

impl fmt::Debug for TestPipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestPipeline").field("log", &self.log).finish_non_exhaustive()
    }
}
