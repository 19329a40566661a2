//! A worker that keeps a journal of every start and every end, so that a run can be judged by what really happened.
//!
//! `journal-worker CONFIG JOURNAL [--serve] [--gated] [--delay-ms N] [--every N WHAT]…`: with `--serve` it is the front door too, over
//! the log that CONFIG names; `--gated` tasks stand still until there is a file `open` in the directory it runs in; each task takes
//! N ms; every N-th task of a key does WHAT instead: `fail` (once), `panic` (once), `hang` (once, until it is given up), `reject`, `slow` (ten seconds), `park` (until there is
//! a file `mended` there).

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use partita::{
    Pipeline, Role, Task, TaskContext, TaskError, TaskHandler,
    config::{Loader, LogKind},
};
use partita_tests::{
    journal::{Entry, Event, Journal},
    payload,
};
use std::{path::Path, sync::Arc, time::Duration};

/// What this program holds is measured.
#[path = "../../app/src/allocator.rs"]
mod allocator;

/// What would be parked succeeds once this is there.
const MENDED: &str = "mended";
/// What is gated goes on once this is there.
const OPEN: &str = "open";

#[derive(Clone, Default)]
struct Manners {
    gated: bool,
    delay: Duration,
    every: Vec<(u64, String)>,
}

impl Manners {
    fn of(&self, sequence: u64) -> &str {
        let due = |(period, _): &&(u64, String)| sequence % period == period - 1;
        self.every.iter().find(due).map_or("", |(_, what)| what)
    }
}

struct Worker {
    journal: Journal,
    manners: Manners,
}

/// An attempt that is dropped before its end, because it was given up, says so too.
struct Open<'a> {
    journal: &'a Journal,
    entry: Option<Entry>,
}

impl Open<'_> {
    fn close(mut self, event: Event) -> Result<(), TaskError> {
        match self.entry.take() {
            Some(entry) => self.journal.write(event, &entry).map_err(TaskError::retry),
            None => Ok(()),
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take()
            && let Err(error) = self.journal.write(Event::Dropped, &entry)
        {
            tracing::error!(%error, "the journal could not be written");
        }
    }
}

impl TaskHandler for Worker {
    type Payload = Bytes;

    async fn handle(&mut self, task: Task<Bytes>, ctx: &TaskContext) -> Result<(), TaskError> {
        let mut entry = Entry {
            key: ctx.key_str().into(),
            digest: "-".into(),
            partition: ctx.partition(),
            offset: ctx.offset(),
            epoch: ctx.epoch(),
            attempt: ctx.attempt(),
        };
        // Before anything else: between the look whether it may begin and this line lies what no look can cover.
        self.journal.write(Event::Start, &entry).map_err(TaskError::retry)?;
        entry.digest = payload::digest(&task.payload);
        let open = Open { journal: &self.journal, entry: Some(entry) };
        let (key, sequence) = payload::parse(&task.payload).map_err(TaskError::reject)?;
        if key.as_bytes() != ctx.key() {
            return Err(TaskError::reject("a task of another key"));
        }
        let first = ctx.attempt() == 1;
        while self.manners.gated && !Path::new(OPEN).exists() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        tokio::time::sleep(self.manners.delay).await;
        match self.manners.of(sequence) {
            "fail" if first => {
                open.close(Event::Failed)?;
                return Err(TaskError::retry("as it was told"));
            }
            "panic" if first => panic!("as it was told"),
            "hang" if first => std::future::pending().await,
            "slow" => tokio::time::sleep(Duration::from_secs(10)).await,
            "park" if !Path::new(MENDED).exists() => {
                open.close(Event::Failed)?;
                return Err(TaskError::Park("as it was told".into()));
            }
            "reject" => {
                open.close(Event::End)?;
                return Err(TaskError::reject("as it was told"));
            }
            _ => {}
        }
        open.close(Event::End)
    }
}

fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let config = arguments.next().context("no configuration is named")?;
    let journal = Journal::append_to(arguments.next().context("no journal is named")?.as_ref())?;
    let mut manners = Manners::default();
    let mut serve = false;
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u64> { Ok(arguments.next().context("a number is missing")?.parse()?) };
        match argument.as_str() {
            "--serve" => serve = true,
            "--gated" => manners.gated = true,
            "--delay-ms" => manners.delay = Duration::from_millis(number()?),
            "--every" => {
                let period = number()?;
                manners.every.push((period, arguments.next().context("what?")?));
            }
            other => bail!("{other} means nothing"),
        }
    }
    let page = partita::prometheus::install()?;
    let mut config = Loader::new().file(config).load()?.config;
    allocator::adapt_to(config.memory.budget.as_u64())?;
    let mut role = Role::All;
    if !serve {
        (config.log.kind, role) = (LogKind::Kafka, Role::Worker);
    }
    let handler = move |_: &_| Worker { journal: journal.clone(), manners: manners.clone() };
    let pipeline =
        Pipeline::builder(config).role(role).metrics(Arc::new(move || page.render())).handler(handler);
    Ok(actix_rt::System::new().block_on(pipeline.run())?)
}
