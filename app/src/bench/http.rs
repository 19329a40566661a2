//! One keep-alive connection that posts tasks: HTTP/1.1 by hand, since a general client would cost more than the
//! server that is measured.

use super::{
    payload::Payload,
    send::{Attempt, Sink},
};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Bodies up to this size go out in one write with their head.
const ONE_WRITE: usize = 64 << 10;
/// No answer of the front door is larger.
const ANSWER_LIMIT: usize = 64 << 10;

/// Where the front door is.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// The host and port as the URL has them.
    pub(crate) authority: String,
    /// The path in front of `/v1`.
    pub(crate) prefix: String,
    /// Where to connect.
    pub(crate) socket: SocketAddr,
    /// The token, where one is asked for.
    pub(crate) token: Option<String>,
}

impl Address {
    /// Reads `http://host:port/prefix` and looks the host up.
    pub(crate) async fn resolve(url: &str, token: Option<&str>) -> Result<Self> {
        let rest =
            url.strip_prefix("http://").with_context(|| format!("{url} does not begin with http://"))?;
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let host = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
        let socket = tokio::net::lookup_host(&host)
            .await
            .with_context(|| format!("looking up {host}"))?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        let prefix =
            if prefix.is_empty() { String::new() } else { format!("/{}", prefix.trim_end_matches('/')) };
        let token = token.map(str::to_owned);
        Ok(Self { authority: authority.to_owned(), prefix, socket, token })
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{}{path}", self.authority, self.prefix)
    }
}

/// A client: at most one connection, made again when it breaks.
pub(crate) struct Http {
    address: Address,
    /// How long one attempt may take.
    timeout: Duration,
    /// Whether each task has an Idempotency-Key.
    idempotent: bool,
    stream: Option<TcpStream>,
    out: Vec<u8>,
    answer: Vec<u8>,
}

/// The front door's receipt.
#[derive(Deserialize)]
struct Receipt {
    partition: u32,
    offset: u64,
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: usize,
    body_at: usize,
    close: bool,
    retry_after: Option<Duration>,
}

impl Http {
    /// A client that has not connected yet.
    pub(crate) fn new(address: Address, timeout: Duration) -> Self {
        Self { address, timeout, idempotent: false, stream: None, out: Vec::new(), answer: Vec::new() }
    }

    /// Whether each task is sent with an Idempotency-Key.
    pub(crate) fn idempotent(self, idempotent: bool) -> Self {
        Self { idempotent, ..self }
    }

    async fn exchange(&mut self, stream: &mut TcpStream, payload: &Payload) -> io::Result<Head> {
        self.answer.clear();
        let (mut read, mut write) = stream.split();
        let mut cut_short = false;
        if payload.len() <= ONE_WRITE {
            self.out.extend_from_slice(&payload.filler);
            write.write_all(&self.out).await?;
        } else {
            let send = async {
                write.write_all(&self.out).await?;
                write.write_all(&payload.filler).await
            };
            // A refusal may come while the body is still being sent: then the rest stays unsent.
            tokio::select! {
                biased;
                head = read_head(&mut read, &mut self.answer) => {
                    head?;
                    cut_short = true;
                }
                sent = send => sent?,
            }
        }
        let mut head = read_head(&mut read, &mut self.answer).await?;
        head.close |= cut_short;
        read_body(&mut read, &mut self.answer, &head).await?;
        Ok(head)
    }

    fn judge(&self, head: &Head) -> Attempt {
        let status = head.status;
        match status {
            202 => match serde_json::from_slice::<Receipt>(&self.answer[head.body_at..]) {
                Ok(Receipt { partition, offset }) => Attempt::Acknowledged { partition, offset },
                Err(_) => Attempt::Unknown { what: "202 without a receipt".into() },
            },
            429 | 503 => Attempt::NotWritten { what: status.to_string(), after: head.retry_after },
            // 409: an earlier attempt is still under way.
            400..=499 if status != 408 && status != 409 => Attempt::Refused { what: status.to_string() },
            _ => Attempt::Unknown { what: status.to_string() },
        }
    }
}

impl Sink for Http {
    async fn send(&mut self, key: &str, payload: &Payload) -> Attempt {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => match TcpStream::connect(self.address.socket).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    stream
                }
                Err(error) => {
                    return Attempt::NotWritten { what: format!("connect: {}", error.kind()), after: None };
                }
            },
        };
        self.out.clear();
        self.out.extend_from_slice(b"POST ");
        self.out.extend_from_slice(self.address.prefix.as_bytes());
        self.out.extend_from_slice(b"/v1/tasks/");
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        self.out.extend_from_slice(self.address.authority.as_bytes());
        if let Some(token) = &self.address.token {
            self.out.extend_from_slice(b"\r\nauthorization: Bearer ");
            self.out.extend_from_slice(token.as_bytes());
        }
        if self.idempotent {
            self.out.extend_from_slice(b"\r\nidempotency-key: ");
            self.out.extend_from_slice(payload.name().as_bytes());
        }
        self.out.extend_from_slice(b"\r\ncontent-type: application/octet-stream\r\ncontent-length: ");
        self.out.extend_from_slice(payload.len().to_string().as_bytes());
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(&payload.header);
        let timeout = self.timeout;
        match tokio::time::timeout(timeout, self.exchange(&mut stream, payload)).await {
            Ok(Ok(head)) => {
                if !head.close {
                    self.stream = Some(stream);
                }
                self.judge(&head)
            }
            Ok(Err(error)) => Attempt::Unknown { what: format!("connection: {}", error.kind()) },
            Err(_) => Attempt::Unknown { what: "no answer in time".into() },
        }
    }
}

async fn read_head(read: &mut (impl AsyncReadExt + Unpin), answer: &mut Vec<u8>) -> io::Result<Head> {
    loop {
        match parse_head(answer) {
            Ok(Some(head)) if head.status >= 200 => return Ok(head),
            // An interim answer (100 Continue) is followed by the real one.
            Ok(Some(head)) => {
                answer.drain(..head.body_at);
                continue;
            }
            Ok(None) => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        }
        if read.read_buf(answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn read_body(
    read: &mut (impl AsyncReadExt + Unpin),
    answer: &mut Vec<u8>,
    head: &Head,
) -> io::Result<()> {
    while answer.len() < head.body_at + head.length {
        if read.read_buf(answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Reads an answer's head, once it is there as a whole.
fn parse_head(answer: &[u8]) -> Result<Option<Head>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        ensure!(answer.len() < ANSWER_LIMIT, "an answer's head is too large");
        return Ok(None);
    };
    let text = std::str::from_utf8(&answer[..end]).context("an answer's head is not text")?;
    let mut lines = text.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .with_context(|| format!("{status_line:?} is not an HTTP/1.1 status line"))?;
    let mut head = Head { status, length: 0, body_at: end + 4, close: false, retry_after: None };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = value.parse().context("an answer's content-length")?;
            ensure!(head.length < ANSWER_LIMIT, "an answer of {} bytes", head.length);
        } else if name.eq_ignore_ascii_case("connection") {
            head.close = value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("retry-after") {
            head.retry_after = value.parse().ok().map(Duration::from_secs);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("the front door's answers are not chunked");
        }
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_only_when_it_is_complete() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\nretry-after: 2\r\nConnection: close\r\n\r\n";
        for end in 0..answer.len() {
            assert_eq!(parse_head(&answer[..end]).unwrap(), None, "{end} bytes");
        }
        let head = parse_head(answer).unwrap().unwrap();
        assert_eq!(
            head,
            Head {
                status: 503,
                length: 12,
                body_at: answer.len(),
                close: true,
                retry_after: Some(Duration::from_secs(2)),
            }
        );
    }

    #[test]
    fn what_is_not_http_is_refused() {
        assert!(parse_head(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }
}
