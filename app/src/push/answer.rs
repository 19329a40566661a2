//! What an answer means for its task.

use super::{REASON, RETRY_AFTER, StatusCode, Target};
use partita::TaskError;
use reqwest::Response;
use std::time::{Duration, SystemTime};

/// What becomes of the task.
pub(super) async fn judge(response: Response, target: &Target) -> Result<(), TaskError> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let after = retry_after(&response);
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            let dependency = format!("{}, which answers {status}", target.name());
            Err(TaskError::Unavailable { dependency, retry_after: after })
        }
        StatusCode::CONFLICT | StatusCode::GONE | StatusCode::UNPROCESSABLE_ENTITY => {
            Err(TaskError::reject(said(status, reason(response).await)))
        }
        _ => Err(TaskError::retry(said(status, reason(response).await))),
    }
}

fn said(status: StatusCode, reason: String) -> String {
    if reason.is_empty() { status.to_string() } else { format!("{status}: {reason}") }
}

/// The beginning of an answer's body, on one line.
async fn reason(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < REASON
        && let Ok(Some(piece)) = response.chunk().await
    {
        bytes.extend_from_slice(&piece[..piece.len().min(REASON - bytes.len())]);
    }
    let text = String::from_utf8_lossy(&bytes);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// When to come again: seconds, or a date.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What lies behind an error of the client.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    let mut text = error.to_string();
    while let Some(source) = error.source() {
        text = source.to_string();
        error = source;
    }
    text
}
