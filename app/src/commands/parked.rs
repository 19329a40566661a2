//! `partita parked list | show | redrive | drop`: asks the workers, through their admin listeners.

use crate::cli::{ParkedCommand, WhichParked, WorkerArgs};
use anyhow::{Context, Result, bail, ensure};
use comfy_table::{Table, presets::NOTHING};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

/// A worker finishes its task in hand before it answers a drop, which it says after 30 seconds.
const TIMEOUT: Duration = Duration::from_secs(40);

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

/// The processes that are asked.
struct Workers {
    client: Client,
    urls: Vec<String>,
    token: Option<String>,
}

/// What one of them answered.
enum Answer {
    Ok(reqwest::Response),
    /// Another one owns the partition.
    NotOwned(String),
}

impl Workers {
    fn of(args: &WorkerArgs) -> Result<Self> {
        let config = args.config.load()?.config;
        let urls = match args.admin.is_empty() {
            true => vec![format!("http://{}", config.admin.listen)],
            false => args.admin.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
        };
        let client = Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        Ok(Self { client, urls, token: config.admin.token })
    }

    async fn ask(&self, url: &str, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let mut request: RequestBuilder = self.client.request(method, format!("{url}/admin/v1/parked{path}"));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.with_context(|| {
            format!("no answer from {url}\nhelp: name the worker's admin listener with --admin, as it has admin.listen")
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(Answer::Ok(answer));
        }
        let problem: Value = answer.json().await.unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or("no reason was given").to_owned();
        match (status, problem["code"].as_str()) {
            (StatusCode::CONFLICT, Some("not_owned")) => Ok(Answer::NotOwned(detail)),
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                bail!("{url} refuses: {detail}\nhelp: set admin.token, or PARTITA_ADMIN__TOKEN")
            }
            (StatusCode::NOT_FOUND, None) => bail!("{url} is not a partita admin listener"),
            _ => bail!("{url}: {detail}"),
        }
    }

    /// Asks all of them; those that own nothing of what is meant do not count, unless none does.
    async fn ask_all(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Vec<reqwest::Response>> {
        let (mut answers, mut not_owned) = (Vec::new(), None);
        for url in &self.urls {
            match self.ask(url, method.clone(), path, body).await? {
                Answer::Ok(answer) => answers.push(answer),
                Answer::NotOwned(detail) => not_owned = Some(detail),
            }
        }
        match not_owned {
            Some(detail) if answers.is_empty() => {
                bail!("{detail}\nhelp: name every worker with --admin, once each")
            }
            _ => Ok(answers),
        }
    }
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
    for answer in workers.ask_all(Method::GET, &query, None).await? {
        let mut page: Value = answer.json().await?;
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
    let path = format!("/{task}{}", if payload { "/payload" } else { "" });
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
    for answer in workers.ask_all(Method::POST, "/redrive", Some(&which.body())).await? {
        let answer: Value = answer.json().await?;
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
        ensure!(
            io::stdin().is_terminal(),
            "nobody is there to be asked\nhelp: say --yes to drop {which} without being asked"
        );
        eprint!("{which} will never be handled. Type \"drop\" to go on: ");
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        ensure!(line.trim() == "drop", "nothing is dropped");
    }
    let mut body = which.body();
    body["reason"] = reason.into();
    let mut dropped = 0;
    for answer in workers.ask_all(Method::POST, "/drop", Some(&body)).await? {
        let answer: Value = answer.json().await?;
        dropped += answer["dropped"].as_u64().unwrap_or(0);
    }
    let _ = writeln!(io::stdout(), "{dropped} tasks are dropped");
    Ok(())
}
