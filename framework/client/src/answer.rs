//! The front door's answers, and what follows from each.

use bytes::Bytes;
use reqwest::{RequestBuilder, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;
use std::{fmt, time::Duration};

/// A task is durable.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Receipt {
    /// The task's id.
    pub id: String,
    /// The topic.
    pub topic: String,
    /// Where it is in the topic.
    pub partition: u32,
    /// Where it is in its partition.
    pub offset: u64,
    /// It had been stored before, by a request with the same name.
    #[serde(skip)]
    pub repeated: bool,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TaskState {
    /// queued, running, done, parked, rejected or dropped.
    pub state: String,
    /// Why, where it was put aside.
    pub reason: Option<String>,
}

/// A refusal (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// Its stable name.
    pub code: String,
    /// What is wrong, for people.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.detail)
    }
}

/// The result of one of many tasks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// accepted, retry or rejected.
    pub status: String,
    /// Why it was not accepted.
    pub code: Option<String>,
    /// The same for people.
    pub detail: Option<String>,
}

/// What is to be done after an answer that settles nothing.
pub(crate) enum Next {
    /// It will never be stored so.
    Never(Problem),
    /// It was not stored; it may be later.
    Later(String, Option<Duration>),
    /// Nobody knows.
    Unknown(String, Option<Duration>),
}

pub(crate) enum Answer {
    Came {
        status: StatusCode,
        after: Option<Duration>,
        replayed: bool,
        body: Bytes,
    },
    /// Nothing was sent.
    NotSent(String),
    Broken(String),
}

impl Answer {
    /// Makes the request. Whoever accepts connections and says nothing is not waited for longer than this.
    pub(crate) async fn within(time: Duration, request: RequestBuilder) -> Self {
        let answer = tokio::time::timeout(time, Self::of(request)).await;
        answer.unwrap_or_else(|_| Self::Broken("no answer came in time".into()))
    }

    async fn of(request: RequestBuilder) -> Self {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() || error.is_builder() => return Self::NotSent(cause(&error)),
            Err(error) => return Self::Broken(cause(&error)),
        };
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let after =
            header(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        let replayed = header("idempotent-replayed") == Some("true");
        match response.bytes().await {
            Ok(body) => Self::Came { status, after, replayed, body },
            Err(error) => Self::Broken(cause(&error)),
        }
    }

    pub(crate) fn receipt(&self) -> Option<Receipt> {
        match self {
            Self::Came { status: StatusCode::ACCEPTED, replayed, body, .. } => {
                let receipt = serde_json::from_slice(body).ok();
                receipt.map(|receipt| Receipt { repeated: *replayed, ..receipt })
            }
            _ => None,
        }
    }

    pub(crate) fn state(&self) -> Option<TaskState> {
        match self {
            Self::Came { status: StatusCode::OK, body, .. } => serde_json::from_slice(body).ok(),
            _ => None,
        }
    }

    pub(crate) fn judge(&self) -> Next {
        let (status, after, body) = match self {
            Self::NotSent(why) => return Next::Later(why.clone(), None),
            Self::Broken(why) => return Next::Unknown(why.clone(), None),
            Self::Came { status, after, body, .. } => (*status, *after, body),
        };
        let problem = serde_json::from_slice(body).unwrap_or_else(|_| Problem {
            status: status.as_u16(),
            code: "unknown".into(),
            detail: String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
        });
        match status.as_u16() {
            425 | 429 | 503 => Next::Later(problem.to_string(), after),
            // An earlier attempt is under way, or nobody knows what became of it. A 408 may be a proxy's.
            408 | 409 => Next::Unknown(problem.to_string(), after),
            400..=499 => Next::Never(problem),
            _ => Next::Unknown(problem.to_string(), after),
        }
    }
}

/// What lies behind an error of the client.
fn cause(error: &reqwest::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
