//! Tasks that come in through every way there is, and come out in order.

use crate::{
    client::{Answer, Client},
    observe, payload,
    server::Server,
};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use partita_proto::v1;
use prost::Message;
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The media types of `POST /v1/tasks`.
pub const STRUCTURED: &str = "application/cloudevents+json";
/// Many CloudEvents.
pub const BATCH: &str = "application/cloudevents-batch+json";
/// One a line.
pub const LINES: &str = "application/x-ndjson";
/// `partita.v1.TaskBatch`.
pub const PROTOBUF: &str = "application/x-protobuf";

/// How long handlers may take to come to the end of what was sent.
const PATIENCE: Duration = Duration::from_secs(120);

/// What became of one of many tasks.
#[derive(Debug, Deserialize)]
pub struct Entry {
    /// `accepted`, `retry` or `rejected`.
    pub status: String,
    /// Its id.
    pub id: Option<String>,
    /// Why it was not accepted.
    pub code: Option<String>,
    /// Where it is.
    pub partition: Option<u32>,
    /// Where it is.
    pub offset: Option<u64>,
}

/// The answer to many tasks.
#[derive(Debug, Deserialize)]
pub struct Entries {
    /// One for each.
    pub results: Vec<Entry>,
}

/// Posts to `/v1/tasks`.
pub async fn post(client: &Client, media_type: &str, body: impl Into<reqwest::Body>) -> Result<Answer> {
    let request = client.http().post(client.url(&["v1", "tasks"])).header("content-type", media_type);
    Answer::of(request.body(body).send().await?).await
}

/// Posts many tasks, all of which must be accepted.
pub async fn accept(client: &Client, media_type: &str, body: impl Into<reqwest::Body>) -> Result<Vec<Entry>> {
    let answer = post(client, media_type, body).await?;
    ensure!(answer.status == 202, "{}: {}", answer.status, answer.text());
    let entries: Entries = answer.json()?;
    let other = entries.results.iter().find(|entry| entry.status != "accepted");
    ensure!(other.is_none(), "{other:?}");
    Ok(entries.results)
}

/// An id that no event of this process has yet: two of one id would be one event, sent twice.
fn next_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

/// A CloudEvent as JSON whose data is text. No two are the same event.
pub fn event(key: &str, data: &str) -> serde_json::Value {
    json!({
        "specversion": "1.0", "id": next_id(), "source": "/tests", "type": "text", "partitionkey": key,
        "datacontenttype": "text/plain", "data": data,
    })
}

/// What was sent of each key, in order.
#[derive(Default)]
struct Sent(BTreeMap<String, Vec<Bytes>>);

impl Sent {
    /// The next few tasks: their keys and payloads.
    fn some(&mut self, count: usize) -> Vec<(String, String)> {
        let so_far: usize = self.0.values().map(Vec::len).sum();
        let mut some = Vec::new();
        for number in so_far..so_far + count {
            let (key, data) = (format!("way {}/é", number % 7), format!("{number} \"quoted\"\n"));
            self.0.entry(key.clone()).or_default().push(data.clone().into());
            some.push((key, data));
        }
        some
    }
}

/// Sends tasks of the same keys through each way in, round after round, and finds all of them recorded, in order.
pub async fn every_way_in_keeps_the_order(server: &Server) -> Result<()> {
    let client = server.client();
    let mut sent = Sent::default();
    for round in 0..5 {
        for (key, data) in sent.some(5) {
            client.accept(&key, data).await.context("by its path")?;
        }
        for (key, data) in sent.some(5) {
            binary(&client, &key, data).await.context("a binary event")?;
        }
        for (key, data) in sent.some(5) {
            let answer = post(&client, STRUCTURED, event(&key, &data).to_string()).await?;
            ensure!(answer.status == 202, "a structured event: {}", answer.text());
        }
        let events: Vec<_> = sent.some(100).iter().map(|(key, data)| event(key, data)).collect();
        accept(&client, BATCH, serde_json::to_vec(&events)?).await.context("a batch")?;
        let events = sent.some(3000);
        let lines: String = events.iter().map(|(key, data)| event(key, data).to_string() + "\n").collect();
        accept(&client, LINES, lines).await.context("lines")?;
        let task =
            |(key, data): (String, String)| v1::Task { key, payload: data.into(), ..v1::Task::default() };
        let tasks = sent.some(100).into_iter().map(task).collect();
        let entries = accept(&client, PROTOBUF, v1::TaskBatch { tasks }.encode_to_vec()).await?;
        ensure!(entries.len() == 100, "round {round}: {} entries", entries.len());
    }
    for (key, payloads) in &sent.0 {
        let chunks = observe::chunks(&client, key, payloads.len(), PATIENCE).await?;
        for (index, (chunk, payload)) in chunks.iter().zip(payloads).enumerate() {
            ensure!(chunk.sha256 == payload::digest(payload), "{key}: chunk {index} is another");
        }
    }
    Ok(())
}

async fn binary(client: &Client, key: &str, data: String) -> Result<()> {
    let key: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let request = client
        .http()
        .post(client.url(&["v1", "tasks"]))
        .header("ce-specversion", "1.0")
        .header("ce-id", next_id())
        .header("ce-source", "/tests")
        .header("ce-type", "text")
        .header("ce-subject", key)
        .header("content-type", "text/plain");
    let answer = Answer::of(request.body(data).send().await?).await?;
    ensure!(answer.status == 202, "{}: {}", answer.status, answer.text());
    Ok(())
}

/// Tasks of each key of a request in which one is refused, and which of one key's that is.
const ROUNDS: usize = 10;
const REFUSED: usize = 1;

/// One of many tasks of a request.
struct Told {
    key: String,
    data: String,
    /// None of its attributes is one that no task may have.
    is_valid: bool,
}

impl Told {
    fn event(&self) -> serde_json::Value {
        let mut event = event(&self.key, &self.data);
        if !self.is_valid {
            event["time"] = 1.into();
        }
        event
    }

    fn task(&self) -> v1::Task {
        const TOO_LONG: usize = (8 << 10) + 1;
        let r#type = (!self.is_valid).then(|| "t".repeat(TOO_LONG));
        let payload = self.data.clone().into();
        v1::Task { key: self.key.clone(), r#type, payload, ..v1::Task::default() }
    }
}

/// The same tasks as a body of any of the media types that have many.
fn written(media_type: &str, tasks: &[Told]) -> Vec<u8> {
    let events = || tasks.iter().map(Told::event);
    match media_type {
        PROTOBUF => v1::TaskBatch { tasks: tasks.iter().map(Told::task).collect() }.encode_to_vec(),
        LINES => events().map(|event| event.to_string() + "\n").collect::<String>().into(),
        _ => serde_json::Value::from_iter(events()).to_string().into(),
    }
}

/// In one request, however it is written, no task of a key is accepted after one that was not, and those of another key are. Mended and sent
/// again, each is there once, in its place.
pub async fn no_task_overtakes_one_of_its_key_that_was_refused(server: &Server) -> Result<()> {
    let client = server.client();
    for media_type in [BATCH, LINES, PROTOBUF] {
        let keys = ["refused", "other"].map(|name| format!("{name} {media_type}"));
        let of_both = |round: usize| {
            let told = |index: usize| {
                let (key, data) = (keys[index].clone(), format!("{round};"));
                Told { key, data, is_valid: (index, round) != (0, REFUSED) }
            };
            [told(0), told(1)]
        };
        let mut tasks: Vec<_> = (0..ROUNDS).flat_map(of_both).collect();
        let answer = post(&client, media_type, written(media_type, &tasks)).await?;
        ensure!(answer.status == 202, "{media_type}: {}: {}", answer.status, answer.text());
        let entries: Entries = answer.json()?;
        stops_at_the_refused(&tasks, &entries.results)
            .with_context(|| format!("{media_type}: {}", answer.text()))?;
        holds(&client, &keys[0], 0..REFUSED).await?;
        holds(&client, &keys[1], 0..ROUNDS).await?;

        tasks.retain(|task| task.key == keys[0]);
        tasks.drain(..REFUSED);
        tasks.iter_mut().for_each(|task| task.is_valid = true);
        accept(&client, media_type, written(media_type, &tasks)).await.context("what was mended")?;
        holds(&client, &keys[0], 0..ROUNDS).await?;
    }
    Ok(())
}

/// Fails unless of the invalid task's key those before it are accepted and those after it are for later, and all of the other key are accepted.
fn stops_at_the_refused(tasks: &[Told], results: &[Entry]) -> Result<()> {
    ensure!(results.len() == tasks.len(), "{} results", results.len());
    let refused = tasks.iter().position(|task| !task.is_valid).context("none is to be refused")?;
    for (index, (task, result)) in tasks.iter().zip(results).enumerate() {
        let expected = if index < refused || task.key != tasks[refused].key {
            ("accepted", None)
        } else if index == refused {
            ("rejected", Some("invalid_event"))
        } else {
            ("retry", Some("earlier_failed"))
        };
        ensure!((&result.status[..], result.code.as_deref()) == expected, "task {index}: {result:?}");
    }
    Ok(())
}

/// Waits for a key's recording to have these tasks, and fails if it has others.
async fn holds(client: &Client, key: &str, rounds: Range<usize>) -> Result<()> {
    let chunks = observe::chunks(client, key, rounds.len(), PATIENCE).await?;
    let content = client.content(key).await?;
    let expected: String = rounds.clone().map(|round| format!("{round};")).collect();
    ensure!(chunks.len() == rounds.len() && content == expected, "{key}: {content:?}");
    Ok(())
}
