//! `partita rewind`

use super::workers::{Workers, confirm};
use crate::cli::RewindArgs;
use anyhow::{Result, bail};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    process::ExitCode,
};

pub(super) fn run(args: &RewindArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(rewind(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn rewind(args: &RewindArgs) -> Result<()> {
    let workers = Workers::of(&args.worker)?;
    let mut body = match args.which.partition {
        Some(partition) => json!({ "partition": partition, "to": args.to }),
        None => json!({ "all": true, "to": args.to }),
    };
    body["dry_run"] = true.into();
    let mut out = io::stdout();
    let mut unread = 0;
    for one in ask(&workers, &body).await? {
        let (from, to) = (one["from"].as_u64().unwrap_or(0), one["to"].as_u64().unwrap_or(0));
        let what = match to.cmp(&from) {
            std::cmp::Ordering::Less => format!("{} tasks are handled again", from - to),
            std::cmp::Ordering::Equal => "nothing changes but that it begins anew".into(),
            std::cmp::Ordering::Greater => format!("{} tasks are NEVER handled", to - from),
        };
        unread += to.saturating_sub(from);
        let _ =
            writeln!(out, "partition {}: from {from} to {to} of {}: {what}", one["partition"], one["end"]);
    }
    if args.dry_run {
        return Ok(());
    }
    if !args.yes {
        let what = match unread {
            0 => "Tasks that are done may be done again".to_owned(),
            unread => format!("{unread} tasks will never be handled"),
        };
        confirm(&what, "rewind")?;
    }
    body["dry_run"] = false.into();
    let mut failed = Vec::new();
    for one in ask(&workers, &body).await? {
        match one["error"].as_str() {
            None => {
                let _ = writeln!(out, "partition {} is read from {} on", one["partition"], one["to"]);
            }
            Some(error) => failed.push(error.to_owned()),
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("\n"));
    }
    Ok(())
}

async fn ask(workers: &Workers, body: &Value) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for answer in workers.ask_all(Method::POST, "/rewind", Some(body)).await? {
        let mut answer: Value = answer.json().await?;
        if let Some(Value::Array(rewound)) = answer.get_mut("rewound").map(Value::take) {
            all.extend(rewound);
        }
    }
    all.sort_by_key(|one| one["partition"].as_u64());
    Ok(all)
}
