//! A history from the outside: what the clients know, what the recorder shows, what is committed.

use crate::{
    client::Client,
    history::{End, History, Position, Step},
    ledger::Ledger,
    payload, wait,
};
use anyhow::{Context, Result, ensure};
use std::{collections::BTreeSet, time::Duration};

/// Gathers a history, look by look, while the run goes on.
#[derive(Debug, Default)]
pub struct Observer {
    seen: BTreeSet<Position>,
    steps: Vec<Step>,
    ends: Vec<End>,
}

impl Observer {
    /// Looks once. `committed` must have been read before this call: what is committed then must show in the recordings now.
    pub async fn look(&mut self, client: &Client, committed: &[Position]) -> Result<()> {
        self.ends = ends(client).await?;
        for end in &self.ends {
            if self.seen.insert(end.position) {
                self.steps.push(Step::Ended(end.position));
            }
        }
        self.steps.extend(committed.iter().map(|&position| Step::Committed(position)));
        Ok(())
    }

    /// The history up to the last look.
    pub fn history(self, ledger: &Ledger) -> History {
        History { attempts: ledger.attempts(), ends: self.ends, steps: self.steps }
    }
}

/// Everything that the recorder shows, each key's chunks in the order it shows them.
pub async fn ends(client: &Client) -> Result<Vec<End>> {
    let mut ends = Vec::new();
    for key in client.keys().await? {
        let recording = client.recording(&key).await?.context("a listed key has no recording")?;
        ends.extend(recording.chunks.iter().map(|chunk| End {
            key: key.clone(),
            digest: chunk.sha256.clone(),
            position: chunk.position(),
        }));
    }
    Ok(ends)
}

/// Waits until a key's recording has so many chunks.
pub async fn chunks(
    client: &Client,
    key: &str,
    count: usize,
    patience: Duration,
) -> Result<Vec<crate::client::Chunk>> {
    wait::until(&format!("{count} chunks of {key}"), patience, async || {
        let chunks = client.recording(key).await?.map(|recording| recording.chunks).unwrap_or_default();
        ensure!(chunks.len() >= count, "{} chunks", chunks.len());
        Ok(Some(chunks))
    })
    .await
}

/// Reads every `stride`-th chunk's bytes and fails on one that is not whole or belongs elsewhere.
pub async fn spot_check(client: &Client, ends: &[End], stride: usize) -> Result<usize> {
    let mut read = 0;
    for end in ends.iter().step_by(stride.max(1)) {
        let bytes = client.chunk(&end.key, end.position).await?;
        ensure!(payload::digest(&bytes) == end.digest, "{end:?}: other bytes than the listing says");
        let (key, _) = payload::parse(&bytes).map_err(|e| anyhow::anyhow!("{end:?}: {e}"))?;
        ensure!(key == end.key, "{end:?}: a task of {key}");
        read += 1;
    }
    Ok(read)
}
