//! Reads everything back through `/v1/recordings` and holds it against the ledger, byte for byte.

use super::{
    http::Address,
    ledger::{Found, Ledger, Verdict},
    payload::{HEADER, Identity, Maker},
    send::{histogram, unix_micros},
};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde::Deserialize;
use std::time::{Duration, Instant, SystemTime};

/// What reading back showed.
pub(crate) struct Verified {
    /// The judgement.
    pub(crate) verdict: Verdict,
    /// Microseconds from a task's sending to the time its chunk was stored.
    pub(crate) end_to_end: Histogram<u64>,
}

#[derive(Deserialize)]
struct Recording {
    chunks: Vec<Chunk>,
}

#[derive(Deserialize)]
struct Chunk {
    partition: u32,
    offset: u64,
    size: u64,
    stored_at: String,
}

struct Reader<'a> {
    client: reqwest::Client,
    address: &'a Address,
    maker: &'a Maker,
    deadline: Instant,
}

/// Reads all keys back, waiting up to `settle` for what was acknowledged to be there.
pub(crate) async fn verify(
    address: &Address,
    maker: &Maker,
    ledger: &Ledger,
    settle: Duration,
    progress: &ProgressBar,
) -> Result<Verified> {
    let mut headers = reqwest::header::HeaderMap::new();
    if let Some(token) = &address.token {
        let value = format!("Bearer {token}").try_into().context("the token is not one")?;
        headers.insert(reqwest::header::AUTHORIZATION, value);
    }
    let client = reqwest::Client::builder().no_proxy().default_headers(headers).build();
    let client = client.context("making an HTTP client")?;
    let reader = Reader { client, address, maker, deadline: Instant::now() + settle };
    let mut verified = Verified { verdict: Verdict::default(), end_to_end: histogram() };
    for key in ledger.keys() {
        let name = maker.key_name(key);
        let wanted = ledger.acknowledged(key);
        let found = match reader.recording(&name, wanted).await? {
            Some(recording) => reader.content(&name, key, &recording, &mut verified).await?,
            None => Vec::new(),
        };
        verified.verdict.judge(&name, ledger.tasks(key), &found);
        progress.inc(1);
    }
    Ok(verified)
}

impl Reader<'_> {
    /// The listing of a key, as soon as it has `wanted` chunks, else as it is at the deadline.
    async fn recording(&self, name: &str, wanted: usize) -> Result<Option<Recording>> {
        let url = self.address.url(&format!("/v1/recordings/{name}"));
        loop {
            let listing = self.listing(&url).await;
            let late = Instant::now() >= self.deadline;
            match listing {
                Ok(Some(recording)) if recording.chunks.len() >= wanted || late => {
                    return Ok(Some(recording));
                }
                Ok(None) if wanted == 0 || late => return Ok(None),
                Err(error) if late => return Err(error).context(format!("reading {url}")),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn listing(&self, url: &str) -> Result<Option<Recording>> {
        let answer = self.client.get(url).send().await?;
        match answer.status().as_u16() {
            404 => Ok(None),
            200 => Ok(Some(answer.json().await?)),
            status => bail!("status {status}"),
        }
    }

    /// Compares a key's content with what was sent.
    async fn content(
        &self,
        name: &str,
        key: u32,
        recording: &Recording,
        verified: &mut Verified,
    ) -> Result<Vec<Found>> {
        let url = self.address.url(&format!("/v1/recordings/{name}/content"));
        let answer = self.client.get(&url).send().await?.error_for_status()?;
        let mut stream = Stream { answer, piece: Bytes::new() };
        let mut found = Vec::with_capacity(recording.chunks.len());
        for chunk in &recording.chunks {
            let place = (chunk.partition, chunk.offset);
            match self.chunk(&mut stream, key, chunk).await.with_context(|| format!("reading {url}"))? {
                Some(identity) => {
                    found.push(Found { sequence: identity.sequence, partition: place.0, offset: place.1 });
                    if let Some(latency) = stored_us(&chunk.stored_at)?.checked_sub(identity.sent_us) {
                        verified.end_to_end.saturating_record(latency.max(1));
                    }
                }
                None => {
                    verified.verdict.damaged += 1;
                    verified.verdict.find(format!("{name}: the chunk {}-{} is damaged", place.0, place.1));
                }
            }
        }
        Ok(found)
    }

    /// Reads one chunk; None if it is not a payload of this key, whole and unchanged.
    async fn chunk(&self, stream: &mut Stream, key: u32, chunk: &Chunk) -> Result<Option<Identity>> {
        let mut left = chunk.size as usize;
        let mut header = [0; HEADER];
        let taken = left.min(HEADER);
        stream.fill(&mut header[..taken]).await?;
        left -= taken;
        let identity = self.maker.check(&header).ok().filter(|identity| identity.key == key);
        let expected = identity.map(|identity| self.maker.filler(key, identity.sequence)).unwrap_or_default();
        let mut same = expected.len() == left;
        let mut at = 0;
        while left > 0 {
            let piece = stream.next(left).await?;
            same = same && expected[at..at + piece.len()] == piece[..];
            at += piece.len();
            left -= piece.len();
        }
        Ok(identity.filter(|_| same))
    }
}

/// A body as it arrives.
struct Stream {
    answer: reqwest::Response,
    piece: Bytes,
}

impl Stream {
    /// The next bytes, at most `limit` and at least one.
    async fn next(&mut self, limit: usize) -> Result<Bytes> {
        while self.piece.is_empty() {
            self.piece = self.answer.chunk().await?.context("the content ends before its last chunk")?;
        }
        Ok(self.piece.split_to(limit.min(self.piece.len())))
    }

    async fn fill(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            let piece = self.next(buffer.len()).await?;
            let (filled, rest) = buffer.split_at_mut(piece.len());
            filled.copy_from_slice(&piece);
            buffer = rest;
        }
        Ok(())
    }
}

fn stored_us(stored_at: &str) -> Result<u64> {
    let time = humantime::parse_rfc3339(stored_at).with_context(|| format!("stored_at {stored_at:?}"))?;
    Ok(time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or_else(|_| unix_micros(), |since| since.as_micros() as u64))
}
