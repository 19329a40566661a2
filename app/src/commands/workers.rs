//! Asking workers, through their admin listeners.

use crate::cli::WorkerArgs;
use anyhow::{Context, Result, bail, ensure};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use std::{
    io::{self, IsTerminal},
    time::Duration,
};

/// A worker finishes its task in hand before it answers a drop, which it says after 30 seconds.
const TIMEOUT: Duration = Duration::from_secs(40);

/// The processes that are asked.
pub(super) struct Workers {
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
    pub(super) fn of(args: &WorkerArgs) -> Result<Self> {
        let config = args.config.load()?.config;
        let urls = match args.admin.is_empty() {
            true => vec![format!("http://{}", config.admin.listen)],
            false => args.admin.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
        };
        let client = Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        Ok(Self { client, urls, token: config.admin.token })
    }

    async fn ask(&self, url: &str, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let mut request: RequestBuilder = self.client.request(method, format!("{url}/admin/v1{path}"));
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
    pub(super) async fn ask_all(
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

/// Asks the operator, who has to type the word.
pub(super) fn confirm(what: &str, word: &str) -> Result<()> {
    ensure!(
        io::stdin().is_terminal(),
        "{what}, and nobody is there to be asked\nhelp: say --yes to go on without being asked"
    );
    eprint!("{what}. Type \"{word}\" to go on: ");
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    ensure!(line.trim() == word, "nothing is done");
    Ok(())
}
