//! The production actors over the scripted log: what they promise, and what they do when things fail.

mod chaos;
mod faults;
mod order;
mod parking;
mod rebalance;
mod rewind;
mod states;

use super::{ScriptedLog, TestPipeline, TestTask};
use crate::{
    Config, TaskError, TaskHandler,
    actor::{Single, spawner},
    handler::{Assignment, Task, TaskContext},
};
use bytes::Bytes;
use partita_core::partition_of;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// One line of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    what: What,
    partition: u32,
    offset: u64,
    epoch: u64,
    attempt: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Made,
    Assigned,
    Start,
    Done,
    Failed,
    Revoked,
}

/// What handlers did, across all partitions.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<Entry>>>);

impl Ledger {
    fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap().clone()
    }

    fn of(&self, what: What) -> Vec<Entry> {
        self.entries().into_iter().filter(|entry| entry.what == what).collect()
    }

    fn offsets(&self, what: What, partition: u32) -> Vec<u64> {
        self.of(what).iter().filter(|entry| entry.partition == partition).map(|entry| entry.offset).collect()
    }

    fn write(&self, what: What, assignment: &Assignment, offset: u64, attempt: u32) {
        let (partition, epoch) = (assignment.partition(), assignment.epoch());
        self.0.lock().unwrap().push(Entry { what, partition, offset, epoch, attempt });
    }
}

/// What a scripted handler does with a task.
enum Act {
    Succeed,
    After(Duration),
    Fail,
    Park,
    Reject,
    Unavailable,
    Panic,
}

type Script = Arc<dyn Fn(&TaskContext) -> Act + Send + Sync>;

struct Scripted {
    ledger: Ledger,
    script: Script,
    assignment: Assignment,
}

impl Scripted {
    fn new(ledger: &Ledger, script: &Script, assignment: &Assignment) -> Self {
        ledger.write(What::Made, assignment, 0, 0);
        Self { ledger: ledger.clone(), script: script.clone(), assignment: assignment.clone() }
    }
}

impl TaskHandler for Scripted {
    type Payload = Bytes;

    async fn handle(&mut self, _: Task<Bytes>, ctx: &TaskContext) -> Result<(), TaskError> {
        let write = |what| self.ledger.write(what, &self.assignment, ctx.offset(), ctx.attempt());
        write(What::Start);
        let result = match (self.script)(ctx) {
            Act::Succeed => Ok(()),
            Act::After(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Act::Fail => Err(TaskError::retry("the script says so")),
            Act::Park => Err(TaskError::Park("the script says so".into())),
            Act::Reject => Err(TaskError::reject("the script says so")),
            Act::Unavailable => {
                Err(TaskError::Unavailable { dependency: "the script".into(), retry_after: None })
            }
            Act::Panic => std::panic::resume_unwind(Box::new("the script says so")),
        };
        write(if result.is_ok() { What::Done } else { What::Failed });
        result
    }

    async fn assigned(&mut self, assignment: &Assignment) -> Result<(), TaskError> {
        self.ledger.write(What::Assigned, assignment, 0, 0);
        Ok(())
    }

    async fn revoked(&mut self, _: std::time::Instant) {
        self.ledger.write(What::Revoked, &self.assignment, 0, 0);
    }
}

fn config() -> Config {
    Config::default()
}

/// All partitions assigned, everything delivered as it is sent.
async fn pipeline(
    config: Config,
    partitions: u32,
    script: impl Fn(&TaskContext) -> Act + Send + Sync + 'static,
) -> (TestPipeline, Ledger) {
    let (ledger, script): (_, Script) = (Ledger::default(), Arc::new(script));
    let kept = ledger.clone();
    let pipeline =
        TestPipeline::with(config, partitions, move |assignment| Scripted::new(&ledger, &script, assignment))
            .await;
    (pipeline, kept)
}

/// Nothing assigned, nothing delivered unless the test says so.
fn pipeline_by_hand(
    config: Config,
    partitions: u32,
    script: impl Fn(&TaskContext) -> Act + Send + Sync + 'static,
) -> (TestPipeline, Ledger) {
    tokio::time::pause();
    let (ledger, script): (_, Script) = (Ledger::default(), Arc::new(script));
    let kept = ledger.clone();
    let log = ScriptedLog::new(partitions);
    log.deliver_by_hand();
    let make = move |assignment: &Assignment| Single(Scripted::new(&ledger, &script, assignment));
    let arbiters = vec![actix_rt::Arbiter::current()];
    (TestPipeline::over(log, config, spawner(Arc::new(make)), arbiters), kept)
}

/// A key of this partition; `n` tells several apart.
fn key_of(partition: u32, partitions: u32, n: usize) -> String {
    (0..)
        .map(|i| format!("key-{i}"))
        .filter(|key| partition_of(key.as_bytes(), partitions).0 == partition)
        .nth(n)
        .unwrap()
}

async fn send(pipeline: &TestPipeline, partition: u32, tasks: usize) {
    let key = key_of(partition, crate::log::TaskLog::partitions(pipeline.log()), 0);
    for n in 0..tasks {
        pipeline.send(TestTask::new(key.clone(), format!("task {n}"))).await;
    }
}
