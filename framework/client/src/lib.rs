//! A client of Partita's front door.
//!
//! A task is sent until the front door says that it is stored, or that it never will be: a refusal that is for now is waited for, an answer
//! that does not come or says that the outcome is unknown is followed by the same request under the same name, which stores nothing twice.
//!
//! ```no_run
//! # async fn example() -> Result<(), partita_client::Error> {
//! use partita_client::{Client, Task};
//!
//! let client = Client::new("http://127.0.0.1:8080")?;
//! let receipt = client.send("session-1", Task::new("hello")).await?;
//! let state = client.wait(&receipt, std::time::Duration::from_secs(30)).await?;
//! println!("{} is {}", receipt.id, state.state);
//! # Ok(())
//! # }
//! ```

mod answer;
mod backoff;
mod lines;
#[cfg(test)]
mod tests;

pub use answer::{Entry, Problem, Receipt, TaskState};
pub use lines::{Outcome, Rejected};

use answer::Answer;
use backoff::Backoff;
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    RequestBuilder, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use std::time::Duration;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a task is not known to be stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client cannot be made so.
    #[error("{0}")]
    Usage(String),
    /// The front door refuses it, and will again: mend what `problem` names.
    #[error("refused: {0}")]
    Refused(Problem),
    /// It was not stored for as long as it was tried.
    #[error("not stored within the time: {0}")]
    GaveUp(String),
    /// It may have been stored or not, and could not be found out for as long as it was tried. Send it again under the same name.
    #[error("it is not known whether it is stored: {0}")]
    Unknown(String),
    /// A question was not answered for as long as it was asked.
    #[error("no answer within the time: {0}")]
    NoAnswer(String),
}

/// A task to send.
#[derive(Debug, Clone, Default)]
pub struct Task {
    /// The payload.
    pub payload: Bytes,
    /// The payload's media type.
    pub content_type: Option<String>,
    /// The name of the payload's type.
    pub type_name: Option<String>,
    /// Its name: of all requests with the same one and the same key, one is stored. Made where there is none; set one that is remembered
    /// elsewhere, if it may be sent again by another process.
    pub idempotency_key: Option<String>,
}

impl Task {
    /// A task with this payload.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), ..Self::default() }
    }
}

/// A client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<HeaderValue>,
    patience: Duration,
}

impl Client {
    /// A client of the front door at this URL: `http://` or `https://`, a host, and perhaps a path in front of `/v1`.
    pub fn new(url: &str) -> Result<Self, Error> {
        let usage = |what: &dyn std::fmt::Display| Error::Usage(format!("{url}: {what}"));
        let mut base = Url::parse(url).map_err(|error| usage(&error))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(usage(&"it does not begin with http:// or https://"));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        // For https; whoever was first is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).build();
        let http = http.map_err(|error| usage(&error))?;
        Ok(Self { http, base, token: None, patience: Duration::from_secs(120) })
    }

    /// Shows this token.
    pub fn token(mut self, token: &str) -> Result<Self, Error> {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value =
            value.map_err(|_| Error::Usage("the token has characters that no token has".into()))?;
        value.set_sensitive(true);
        self.token = Some(value);
        Ok(self)
    }

    /// How long one task, or one part of many, is tried; 2 minutes where nothing is said. No attempt but the first is begun with less than
    /// half a second left.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends a task of this key until it is stored.
    pub async fn send(&self, key: &str, task: Task) -> Result<Receipt, Error> {
        let Task { payload, content_type, type_name, idempotency_key } = task;
        let mut headers = HeaderMap::new();
        let name = idempotency_key.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
        for (header, value) in
            [("idempotency-key", Some(name)), ("content-type", content_type), ("partita-type", type_name)]
        {
            let Some(value) = value else { continue };
            let value = HeaderValue::try_from(value)
                .map_err(|_| Error::Usage(format!("{header} has characters that no header has")))?;
            headers.insert(header, value);
        }
        let url = self.url(&format!("v1/tasks/{}", utf8_percent_encode(key, NON_ALPHANUMERIC)))?;
        let request = || self.http.post(url.clone()).headers(headers.clone()).body(payload.clone());
        self.until_settled(self.patience, request, |answer| answer.receipt()).await
    }

    /// What became of a task.
    pub async fn state(&self, receipt: &Receipt) -> Result<TaskState, Error> {
        self.ask(receipt, "", self.patience).await
    }

    /// The same, once it is done, parked, rejected or dropped, or after `timeout` (at most 5 minutes).
    pub async fn wait(&self, receipt: &Receipt, timeout: Duration) -> Result<TaskState, Error> {
        let query = format!("?wait=done&timeout={}ms", timeout.as_millis());
        self.ask(receipt, &query, self.patience.saturating_add(timeout)).await
    }

    async fn ask(&self, receipt: &Receipt, query: &str, patience: Duration) -> Result<TaskState, Error> {
        let url = self.url(&format!("v1/tasks/{}-{}{query}", receipt.partition, receipt.offset))?;
        let answer =
            self.until_settled(patience, || self.http.get(url.clone()), |answer| answer.state()).await;
        answer.map_err(|error| match error {
            Error::GaveUp(why) | Error::Unknown(why) => Error::NoAnswer(why),
            error => error,
        })
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        self.base.join(path).map_err(|error| Error::Usage(error.to_string()))
    }

    /// Makes a request again and again until its answer settles it.
    async fn until_settled<T>(
        &self,
        patience: Duration,
        request: impl Fn() -> RequestBuilder,
        settled: impl Fn(&Answer) -> Option<T>,
    ) -> Result<T, Error> {
        let mut backoff = Backoff::new(patience);
        let mut maybe_stored = false;
        loop {
            let answer = Answer::within(backoff.left(), self.shown(request())).await;
            if let Some(settled) = settled(&answer) {
                return Ok(settled);
            }
            let (why, after) = match answer.judge() {
                answer::Next::Never(problem) => return Err(Error::Refused(problem)),
                answer::Next::Later(why, after) => (why, after),
                answer::Next::Unknown(why, after) => {
                    maybe_stored = true;
                    (why, after)
                }
            };
            if !backoff.wait(after).await {
                return Err(if maybe_stored { Error::Unknown(why) } else { Error::GaveUp(why) });
            }
        }
    }

    /// A request with these lines, each a CloudEvent.
    fn post_lines(&self, body: Bytes) -> Result<RequestBuilder, Error> {
        let request = self.http.post(self.url("v1/tasks")?).header(CONTENT_TYPE, "application/x-ndjson");
        Ok(self.shown(request).body(body))
    }

    /// The request with the token, if there is one.
    fn shown(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        }
    }
}
