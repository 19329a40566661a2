//! What the front door tells of a task by its id.

use crate::{
    client::{Answer, Client, Receipt},
    journal::{self, Event},
    payload,
    server::Server,
    wait,
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(60);
/// How soon whoever waits for a task hears of its end: the gate is looked at twice a second, and what is not heard of is committed each second.
const PROMPT: Duration = Duration::from_secs(5);
/// Why the operator of a test gives a task up.
const REASON: &str = "nobody wants it any more";

/// The manners of the worker in [`every_state_is_told`]: of each key the second task is parked and the third rejected.
pub const MANNERS: [&str; 7] = ["--gated", "--every", "2", "park", "--every", "3", "reject"];

/// Asks for a task.
pub async fn ask(client: &Client, id: &str, query: &str) -> Result<Answer> {
    let mut url = client.url(&["v1", "tasks", id]);
    url.set_query((!query.is_empty()).then_some(query));
    Answer::of(client.http().get(url).send().await?).await
}

/// What is told of a task.
pub async fn told(client: &Client, id: &str, query: &str) -> Result<Value> {
    let answer = ask(client, id, query).await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    let body: Value = answer.json()?;
    let place = format!("{}-{}", body["partition"], body["offset"]);
    ensure!(body["id"] == id && place == id && body["topic"].is_string(), "{body}");
    Ok(body)
}

/// The state of a task.
pub async fn state(client: &Client, id: &str, query: &str) -> Result<String> {
    let body = told(client, id, query).await?;
    Ok(body["state"].as_str().unwrap_or_default().to_owned())
}

/// Tasks of one key are done in their order, also where the last one is waited for; and what is no task is said to be none.
pub async fn whoever_waits_hears_of_the_end(client: &Client) -> Result<()> {
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(client.accept("waited for", format!("task {number}")).await?.id);
    }
    let last = &ids[ids.len() - 1];
    ensure!(state(client, last, "wait=done&timeout=60s").await? == "done");
    for id in &ids {
        ensure!(state(client, id, "").await? == "done", "{id} was before it");
    }
    for (id, query, status, code) in [
        ("0-999999999", "", 404, "not_found"),
        ("99999-0", "", 404, "not_found"),
        ("0-999999999", "wait=done", 404, "not_found"),
        (last, "wait=forever", 400, "invalid_query"),
        (last, "wait=done&timeout=1h", 400, "invalid_query"),
    ] {
        let answer = ask(client, id, query).await?;
        let problem: Value = answer.json()?;
        ensure!((answer.status, &problem["code"]) == (status, &Value::from(code)), "{id}?{query}: {problem}");
    }
    Ok(())
}

/// Takes tasks to every state that there is, and has each told. `worker` is the process that handles them, with [`MANNERS`]; where it is the
/// `door` itself, its offsets are not committed by themselves for longer than `PROMPT`.
pub async fn every_state_is_told(door: &Server, worker: &Server) -> Result<()> {
    let client = door.client();
    let post = async |key: &str, sequence| client.accept(key, payload::make(key, sequence, 1000)).await;
    let first = post("done", 0).await?;
    in_hand(door, worker, &first).await.context("of a task in hand")?;
    let body = told(&client, &first.id, "").await?;
    ensure!(body["state"] == "done" && body.get("at").is_none() && body.get("since").is_none(), "{body}");

    for (state, sequence) in [("parked", 1), ("rejected", 2)] {
        let id = post(state, sequence).await?.id;
        aside(&client, &id, state, "as it was told").await?;
    }
    let dropped = post("dropped", 1).await?.id;
    aside(&client, &dropped, "parked", "as it was told").await?;
    give_up(worker, "dropped").await?;
    aside(&client, &dropped, "dropped", REASON).await
}

/// A task that stands before the gate is in hand, which only the process that handles it knows; whoever waits for it hears of its end.
async fn in_hand(door: &Server, worker: &Server, task: &Receipt) -> Result<()> {
    let (client, id, home) = (door.client(), task.id.clone(), worker.setup().home());
    wait::until("the task has begun", SOON, async || {
        let lines = journal::read(home)?;
        let begun =
            |line: &journal::Line| line.event == Event::Start && line.entry.position() == task.position();
        Ok(lines.iter().any(begun).then_some(()))
    })
    .await?;
    if door.pid() == worker.pid() {
        let body = told(&client, &id, "").await?;
        ensure!(body["state"] == "running" && body["attempt"] == 1 && is_time(&body["since"]), "{body}");
    } else {
        ensure!(state(&client, &id, "").await? == "queued", "it is in the hand of another process");
    }
    let waiting = tokio::spawn(async move { state(&client, &id, "wait=done&timeout=60s").await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(!waiting.is_finished(), "it has not ended");
    fs::write(home.join("open"), "")?;
    let opened = Instant::now();
    let state = waiting.await??;
    ensure!(state == "done" && opened.elapsed() < PROMPT, "{state}, after {:?}", opened.elapsed());
    Ok(())
}

/// Waits for a task that is put aside, and looks at what is told of it: its handler, or an operator, said so with this reason.
async fn aside(client: &Client, id: &str, state: &str, reason: &str) -> Result<()> {
    let body = told(client, id, "wait=done&timeout=60s").await?;
    ensure!(body["state"] == state && body["cause"] == state && body["reason"] == reason, "{body}");
    ensure!(body["attempts"] == 1 && is_time(&body["at"]), "{body}");
    Ok(())
}

/// Has an operator drop what is parked of a key.
async fn give_up(worker: &Server, key: &str) -> Result<()> {
    let admin = format!("http://{}", worker.setup().admin());
    let arguments = ["parked", "drop", "--key", key, "--reason", REASON, "--yes", "--admin", &admin];
    let dropped = worker.setup().command(&arguments).await?;
    ensure!(dropped.code == Some(0) && dropped.stdout.contains("1 tasks are dropped"), "{}", dropped.said());
    Ok(())
}

/// Whether it is a time as RFC 3339 has it, in UTC and to the millisecond.
fn is_time(value: &Value) -> bool {
    const FORM: &str = "dddd-dd-ddTdd:dd:dd.dddZ";
    let fits = |(byte, form): (u8, u8)| if form == b'd' { byte.is_ascii_digit() } else { byte == form };
    value.as_str().is_some_and(|text| text.len() == FORM.len() && text.bytes().zip(FORM.bytes()).all(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_from_what_looks_like_one() {
        assert!(is_time(&"2026-11-26T10:00:00.000Z".into()));
        for other in ["2026-11-26T10:00:00Z", "2026-11-26 10:00:00.000Z", "2026-11-26T10:00:00.000+", ""] {
            assert!(!is_time(&other.into()), "{other}");
        }
        assert!(!is_time(&Value::Null) && !is_time(&1_795_687_200_000_u64.into()));
    }
}
