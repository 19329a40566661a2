//! Runs that must come out the same over every log.

use crate::{client::Client, observe, payload, process, random::Random, server::Server};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The default `limits.max_task`.
pub const MAX_TASK: usize = 100_000_000;

/// One task of each size, read back byte for byte in both ways that there are.
pub async fn sizes_come_back(client: &Client, sizes: &[usize], random: &mut Random) -> Result<()> {
    for &size in sizes {
        let (key, sent) = (format!("size-{size}"), Bytes::from(random.bytes(size)));
        client.accept(&key, sent.clone()).await.with_context(|| key.clone())?;
        let chunks = observe::chunks(client, &key, 1, Duration::from_secs(120)).await?;
        ensure!((chunks.len(), chunks[0].size) == (1, size as u64), "{key}: {chunks:?}");
        ensure!(chunks[0].sha256 == payload::digest(&sent), "{key}: another digest");
        ensure!(client.chunk(&key, chunks[0].position()).await? == sent, "{key}: other bytes");
        ensure!(client.content(&key).await? == sent, "{key}: other content");
    }
    Ok(())
}

/// What was seen while many clients posted tasks of the largest size at once.
#[derive(Debug)]
pub struct Crowd {
    /// The most memory that the server ever had, in bytes.
    pub peak_resident: u64,
    /// Large tasks accepted.
    pub accepted: u64,
    /// Large tasks refused, to be tried again.
    pub refused: u64,
    /// The longest that a refusal took.
    pub slowest_refusal: Duration,
    /// Small tasks accepted meanwhile.
    pub small: u64,
    /// The longest that a small task took.
    pub slowest_small: Duration,
}

/// Lets `clients` post a largest task each, all at once, until `wanted` are accepted; small tasks are posted beside them.
pub async fn crowd(server: &Server, clients: usize, wanted: u64) -> Result<Crowd> {
    let body = Bytes::from(Random::new(1).bytes(MAX_TASK));
    let (accepted, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let large = futures_util::future::try_join_all((0..clients).map(|number| {
        let (client, body, accepted, refused) = (server.client(), body.clone(), &accepted, &refused);
        async move {
            let mut slowest = Duration::ZERO;
            while accepted.load(Ordering::Relaxed) < wanted {
                let start = Instant::now();
                let answer = client.post(&format!("large-{number}"), body.clone()).await?;
                if answer.status == 202 {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                ensure!(answer.status == 503, "{}: {}", answer.status, answer.text());
                let seconds: u64 =
                    answer.header("retry-after").context("503 without Retry-After")?.parse()?;
                refused.fetch_add(1, Ordering::Relaxed);
                slowest = slowest.max(start.elapsed());
                tokio::time::sleep(Duration::from_secs(seconds.max(1))).await;
            }
            Ok(slowest)
        }
    }));
    let mut large = std::pin::pin!(large);
    let (client, mut small, mut slowest_small) = (server.client(), 0, Duration::ZERO);
    let slowest = loop {
        let one_small = async {
            let start = Instant::now();
            client.accept("small", payload::make("small", small, 10_000)).await.context("a small task")?;
            anyhow::Ok(start.elapsed())
        };
        tokio::select! {
            slowest = &mut large => break slowest?,
            took = one_small => {
                slowest_small = slowest_small.max(took?);
                small += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    Ok(Crowd {
        peak_resident: process::peak_resident(server.pid())?,
        accepted: accepted.load(Ordering::Relaxed),
        refused: refused.load(Ordering::Relaxed),
        slowest_refusal: slowest.into_iter().max().unwrap_or_default(),
        small,
        slowest_small,
    })
}
