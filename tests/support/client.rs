//! The front door and the recordings, as a client sees them.

use crate::{
    history::{Outcome, Position},
    statuses,
};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use partita_core::{Offset, Partition};
use reqwest::{
    Url,
    header::{CONTENT_LENGTH, HeaderMap, HeaderName},
};
use serde::Deserialize;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{io::AsyncReadExt, net::TcpStream, sync::mpsc};

/// A client of one server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The body of a 202.
#[derive(Debug, Clone, Deserialize)]
pub struct Receipt {
    /// The task's id.
    pub id: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
}

impl Receipt {
    /// The task's place in the log.
    pub fn position(&self) -> Position {
        Position { partition: Partition(self.partition), offset: Offset(self.offset) }
    }
}

/// The body of every error.
#[derive(Debug, Clone, Deserialize)]
pub struct Problem {
    /// The HTTP status again.
    pub status: u16,
    /// Its stable name.
    pub code: String,
    /// What happened, for people.
    pub detail: String,
    /// The request's id.
    pub request_id: String,
}

/// `GET /v1/recordings/{key}`.
#[derive(Debug, Clone, Deserialize)]
pub struct Recording {
    /// The key.
    pub key: String,
    /// Its chunks, in order.
    pub chunks: Vec<Chunk>,
}

/// One chunk of a recording.
#[derive(Debug, Clone, Deserialize)]
pub struct Chunk {
    /// Where it was read.
    pub partition: u32,
    /// Where it was read.
    pub offset: u64,
    /// The payload's type name.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    /// The payload's media type.
    pub content_type: Option<String>,
    /// The payload's size.
    pub size: u64,
    /// The payload's SHA-256, in hex.
    pub sha256: String,
}

impl Chunk {
    /// Its place in the log.
    pub fn position(&self) -> Position {
        Position { partition: Partition(self.partition), offset: Offset(self.offset) }
    }
}

#[derive(Deserialize)]
struct Page {
    recordings: Vec<Listed>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    key: String,
}

impl Client {
    /// A client of the server at `address`.
    pub fn new(address: SocketAddr) -> Self {
        // The binary's clients speak TLS, and so this one could; whoever was first is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(120)).build();
        let base = Url::parse(&format!("http://{address}/"));
        Self { http: http.expect("a client without TLS"), base: base.expect("an address is a URL's host") }
    }

    /// A URL of the server: the segments are percent-encoded.
    pub fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(segments);
        }
        url
    }

    /// The client underneath, for requests that no method here makes.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Posts a task, once.
    pub async fn post(&self, key: &str, body: impl Into<reqwest::Body>) -> Result<Answer> {
        Answer::of(self.http.post(self.url(&["v1", "tasks", key])).body(body).send().await?).await
    }

    /// Posts a task that must be accepted.
    pub async fn accept(&self, key: &str, body: impl Into<reqwest::Body>) -> Result<Receipt> {
        let answer = self.post(key, body).await?;
        ensure!(answer.status == 202, "{}: {}", answer.status, answer.text());
        answer.json()
    }

    /// A key's recording; `None` if there is none.
    pub async fn recording(&self, key: &str) -> Result<Option<Recording>> {
        let answer = self.get(&["v1", "recordings", key]).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        answer.json().map(Some)
    }

    /// A chunk's payload.
    pub async fn chunk(&self, key: &str, position: Position) -> Result<Bytes> {
        let name = format!("{}-{}", position.partition.0, position.offset.0);
        let answer = self.get(&["v1", "recordings", key, "chunks", &name]).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        Ok(answer.body)
    }

    /// All payloads of a key, one after another.
    pub async fn content(&self, key: &str) -> Result<Bytes> {
        let answer = self.get(&["v1", "recordings", key, "content"]).await?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        Ok(answer.body)
    }

    /// All keys that have a recording, page by page.
    pub async fn keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut url = self.url(&["v1", "recordings"]);
            if let Some(after) = &after {
                url.query_pairs_mut().append_pair("after", after);
            }
            let answer = Answer::of(self.http.get(url).send().await?).await?;
            ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
            let page: Page = answer.json()?;
            keys.extend(page.recordings.into_iter().map(|listed| listed.key));
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(keys),
            }
        }
    }

    /// `GET` of a path.
    pub async fn get(&self, segments: &[&str]) -> Result<Answer> {
        Answer::of(self.http.get(self.url(segments)).send().await?).await
    }
}

/// A body whose pieces are sent by hand; it ends when the sender is dropped.
pub fn hand_fed() -> (mpsc::Sender<io::Result<Bytes>>, reqwest::Body) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    (sender, reqwest::Body::wrap_stream(pieces))
}

/// An answer, or why there is none. One that no client should see is an error of its own.
pub fn or_none(attempt: Result<Answer>) -> Result<reqwest::Result<Answer>> {
    match attempt {
        Ok(answer) => Ok(Ok(answer)),
        Err(error) => Ok(Err(error.downcast::<reqwest::Error>()?)),
    }
}

impl Answer {
    /// Reads a response to its end. One of the front door must have the form that the table of statuses gives it.
    pub async fn of(response: reqwest::Response) -> Result<Self> {
        // The admin listener has a form of its own.
        let is_front_doors = response.url().path().starts_with("/v1/");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer = Self { status, headers, body: response.bytes().await? };
        if is_front_doors { answer.in_its_form() } else { Ok(answer) }
    }

    fn in_its_form(self) -> Result<Self> {
        statuses::is_in_its_form(&self).with_context(|| format!("{}: {}", self.status, self.text()))?;
        Ok(self)
    }

    /// Reads a response of the front door off a connection that is spoken by hand, which stays open.
    pub async fn read(stream: &mut TcpStream) -> Result<Self> {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let mut lines = head.lines();
                let status = lines.next().and_then(|line| line.get(9..12)).context("no status")?.parse()?;
                let mut headers = HeaderMap::new();
                for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
                    headers.insert(HeaderName::try_from(name)?, value.parse()?);
                }
                let length = headers.get(CONTENT_LENGTH).context("no length")?.to_str()?.parse::<usize>()?;
                if body.len() >= length {
                    return Self { status, headers, body: body.to_owned().into() }.in_its_form();
                }
            }
            let read = stream.read_buf(&mut bytes).await?;
            ensure!(read > 0, "it was closed after {:?}", String::from_utf8_lossy(&bytes));
        }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).with_context(|| format!("{}: {}", self.status, self.text()))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What a client knows of a task after this answer; an error if it is one that no client should see.
    pub fn outcome(&self) -> Result<Outcome> {
        match self.status {
            202 => Ok(Outcome::Ok(self.json::<Receipt>()?.position())),
            503 => Ok(Outcome::Failed),
            504 => Ok(Outcome::Unknown),
            status => anyhow::bail!("{status}: {}", self.text()),
        }
    }
}
