//! What the front door tells of a task by its id.

use crate::client::{Answer, Client};
use anyhow::{Result, ensure};
use serde_json::Value;

/// Asks for a task.
pub async fn ask(client: &Client, id: &str, query: &str) -> Result<Answer> {
    let mut url = client.url(&["v1", "tasks", id]);
    url.set_query((!query.is_empty()).then_some(query));
    Ok(Answer::of(client.http().get(url).send().await?).await?)
}

/// The state of a task.
pub async fn state(client: &Client, id: &str, query: &str) -> Result<String> {
    let answer = ask(client, id, query).await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    let body: Value = answer.json()?;
    ensure!(body["id"] == id, "{body}");
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
