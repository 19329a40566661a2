//! Waiting for a condition, never for a time.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Asks again and again until there is an answer. The error says what was awaited, for how long, and what was seen last.
pub async fn until<T, F>(what: &str, patience: Duration, mut ask: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Option<T>>,
{
    let start = Instant::now();
    loop {
        let answer = ask().await;
        if let Ok(Some(value)) = answer {
            return Ok(value);
        }
        if start.elapsed() > patience {
            let seen = answer.err().map(|error| format!("; last: {error:#}")).unwrap_or_default();
            bail!("not within {patience:?}: {what}{seen}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
