//! `partita parked list | show | redrive | drop`: asks the workers, through their admin listeners.

use super::workers::{Workers, confirm};
use crate::cli::{ParkedCommand, WhichParked};
use anyhow::{Result, ensure};
use comfy_table::{Table, presets::NOTHING};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    process::ExitCode,
};

pub(super) fn run(command: ParkedCommand) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            ParkedCommand::List { key, partition, limit, json, worker } => {
                list(&Workers::of(&worker)?, key, partition, limit, json).await
            }
            ParkedCommand::Show { task, payload, worker } => {
                show(&Workers::of(&worker)?, &task, payload).await
            }
            ParkedCommand::Redrive { which, worker } => redrive(&Workers::of(&worker)?, &which).await,
            ParkedCommand::Drop { which, reason, yes, worker } => {
                drop_tasks(&Workers::of(&worker)?, &which, &reason, yes).await
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn list(
    workers: &Workers,
    key: Option<String>,
    partition: Option<u32>,
    limit: usize,
    as_json: bool,
) -> Result<()> {
    ensure!((1..=1000).contains(&limit), "--limit is from 1 to 1000");
    let mut query = format!("?limit={limit}");
    if let Some(key) = &key {
        let key = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC);
        query.push_str(&format!("&key={key}"));
    }
    if let Some(partition) = partition {
        query.push_str(&format!("&partition={partition}"));
    }
    let (mut tasks, mut more) = (Vec::new(), false);
    for answer in workers.ask_all(Method::GET, &format!("/parked{query}"), None).await? {
        let mut page: Value = answer.json().await?;
        tell_unread(&page);
        more |= !page["next"].is_null();
        if let Some(Value::Array(page)) = page.get_mut("parked").map(Value::take) {
            tasks.extend(page);
        }
    }
    tasks.sort_by_key(|task| (task["partition"].as_u64(), task["offset"].as_u64()));
    let mut out = io::stdout().lock();
    // A reader that has seen enough (`| head`) is no failure.
    if as_json {
        for task in &tasks {
            let _ = writeln!(out, "{task}");
        }
        return Ok(());
    }
    if tasks.is_empty() {
        let _ = writeln!(out, "nothing is parked");
        return Ok(());
    }
    let _ = writeln!(out, "{}", table(&tasks));
    if more {
        let _ = writeln!(out, "… and more: raise --limit, or name a --partition or a --key");
    }
    Ok(())
}

/// Says which partitions were left out.
fn tell_unread(answer: &Value) {
    let Some(unread) = answer["unread"].as_array().filter(|unread| !unread.is_empty()) else { return };
    let numbers: Vec<String> = unread.iter().map(Value::to_string).collect();
    let _ = writeln!(
        io::stderr(),
        "left out: partitions that do not know yet what is parked in them: {}; /admin/v1/partitions says what they wait for",
        numbers.join(", ")
    );
}

fn table(tasks: &[Value]) -> Table {
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.lines().next().unwrap_or_default().to_owned(),
        other => other.to_string(),
    };
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["TASK", "KEY", "CAUSE", "ATTEMPTS", "BYTES", "PARKED AT", "REASON"]);
    for task in tasks {
        let cause = match task["redriving"].as_bool() {
            Some(true) => format!("{}, redriving", text(&task["cause"])),
            _ => text(&task["cause"]),
        };
        table.add_row([
            text(&task["task"]),
            text(&task["key"]),
            cause,
            text(&task["attempts"]),
            text(&task["bytes"]),
            text(&task["parked_at"]),
            text(&task["reason"]),
        ]);
    }
    table
}

async fn show(workers: &Workers, task: &str, payload: bool) -> Result<()> {
    let path = format!("/parked/{task}{}", if payload { "/payload" } else { "" });
    let Some(mut answer) = workers.ask_all(Method::GET, &path, None).await?.into_iter().next() else {
        return Ok(());
    };
    let mut out = io::stdout().lock();
    if !payload {
        let shown: Value = answer.json().await?;
        let _ = writeln!(out, "{}", serde_json::to_string_pretty(&shown)?);
        return Ok(());
    }
    while let Some(chunk) = answer.chunk().await? {
        if out.write_all(&chunk).is_err() {
            break;
        }
    }
    Ok(())
}

impl WhichParked {
    fn body(&self) -> Value {
        match (&self.task, &self.key, self.partition) {
            (Some(task), ..) => json!({ "task": task }),
            (_, Some(key), _) => json!({ "key": key }),
            (_, _, Some(partition)) => json!({ "partition": partition }),
            (None, None, None) => json!({ "all": true }),
        }
    }
}

impl std::fmt::Display for WhichParked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.task, &self.key, self.partition) {
            (Some(task), ..) => write!(f, "the parked task {task}"),
            (_, Some(key), _) => write!(f, "all parked tasks of key {key:?}"),
            (_, _, Some(partition)) => write!(f, "all parked tasks of partition {partition}"),
            (None, None, None) => write!(f, "all parked tasks"),
        }
    }
}

async fn redrive(workers: &Workers, which: &WhichParked) -> Result<()> {
    let (mut keys, mut tasks) = (0, 0);
    for answer in workers.ask_all(Method::POST, "/parked/redrive", Some(&which.body())).await? {
        let answer: Value = answer.json().await?;
        tell_unread(&answer);
        keys += answer["keys"].as_u64().unwrap_or(0);
        tasks += answer["tasks"].as_u64().unwrap_or(0);
    }
    let _ = writeln!(
        io::stdout(),
        "{keys} keys with {tasks} tasks are being redriven; `partita parked list` shows what is left"
    );
    Ok(())
}

async fn drop_tasks(workers: &Workers, which: &WhichParked, reason: &str, yes: bool) -> Result<()> {
    if !yes {
        confirm(&format!("{which} will never be handled"), "drop")?;
    }
    let mut body = which.body();
    body["reason"] = reason.into();
    let mut dropped = 0;
    for answer in workers.ask_all(Method::POST, "/parked/drop", Some(&body)).await? {
        let answer: Value = answer.json().await?;
        tell_unread(&answer);
        dropped += answer["dropped"].as_u64().unwrap_or(0);
    }
    let _ = writeln!(io::stdout(), "{dropped} tasks are dropped");
    Ok(())
}
