//! The front door's table of statuses: which answers there may be, and which a run has seen.

mod ways;

pub use ways::{
    accepts, guarded, of_a_partition_behind, of_a_stop, of_a_stuck_partition, of_clients, refused_with,
};

use crate::client::Answer;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What there is to answer: each status with the codes that it comes with.
const TABLE: [(u16, &[&str]); 14] = [
    (202, &[]),
    (
        400,
        &[
            "invalid_key",
            "invalid_query",
            "invalid_header",
            "incomplete_body",
            "invalid_encoding",
            "truncated_encoding",
            "trailing_bytes",
            "window_too_large",
            "invalid_document",
            "invalid_event",
            "no_key",
        ],
    ),
    (401, &["unauthorized"]),
    (403, &["forbidden"]),
    (404, &["not_found"]),
    (405, &["method_not_allowed"]),
    (408, &["head_timeout", "body_timeout"]),
    (409, &["idempotency_key_in_flight"]),
    (413, &["too_large", "batch_too_large"]),
    (415, &["unsupported_media_type", "unsupported_encoding"]),
    (422, &["idempotency_key_reused"]),
    (429, &["rate_limited"]),
    (
        503,
        &[
            "out_of_memory_budget",
            "partition_stuck",
            "partition_behind",
            "log_away",
            "log_full",
            "log_mismatch",
            "log_busy",
            "not_ready",
            "earlier_failed",
            "internal",
            "draining",
        ],
    ),
    (504, &["unknown_outcome"]),
];

/// Codes that no client can bring about on a sound server, or only for moments: the other tests have them.
const RARE: [&str; 6] = ["internal", "log_full", "log_mismatch", "log_busy", "not_ready", "earlier_failed"];

/// What was answered so far.
#[derive(Debug, Default)]
pub struct Statuses(BTreeMap<u16, BTreeSet<String>>);

impl Statuses {
    /// Takes an answer in, which must have one of the statuses and codes, and the form that goes with it.
    pub fn note(&mut self, answer: &Answer) -> Result<String> {
        let code = well_formed(answer).with_context(|| format!("{}: {}", answer.status, answer.text()))?;
        self.0.entry(answer.status).or_default().extend((!code.is_empty()).then(|| code.clone()));
        Ok(code)
    }

    /// Takes an answer in that must have this status and code.
    fn must(&mut self, answer: &Answer, status: u16, code: &str) -> Result<()> {
        let got = self.note(answer)?;
        ensure!(
            (answer.status, &got[..]) == (status, code),
            "{status} {code}, not {}: {}",
            answer.status,
            answer.text()
        );
        Ok(())
    }

    /// Fails unless every row was reached, by each of its codes but the rare ones.
    pub fn are_complete(&self, also: &[&str]) -> Result<()> {
        for (status, codes) in TABLE {
            let rare = |code: &str| RARE.contains(&code) && !also.contains(&code);
            let wanted: Vec<&str> = codes.iter().copied().filter(|code| !rare(code)).collect();
            if wanted.is_empty() && !codes.is_empty() {
                continue;
            }
            let seen = self.0.get(&status).with_context(|| format!("no answer was {status}"))?;
            for code in wanted {
                ensure!(seen.contains(code), "no {status} was {code}");
            }
        }
        Ok(())
    }
}

/// Fails on an answer of the front door that has no row, or another form than its row. What is read is in no row, and has the id of its
/// request as well.
pub(crate) fn is_in_its_form(answer: &Answer) -> Result<()> {
    match answer.status {
        200 | 202 => request_id(answer).map(drop),
        _ => refusal(answer).map(drop),
    }
}

/// The code of an answer; none for 202.
fn well_formed(answer: &Answer) -> Result<String> {
    if answer.status != 202 {
        return refusal(answer);
    }
    request_id(answer)?;
    let body: Value = answer.json()?;
    ensure!(answer.header("content-type") == Some("application/json"));
    ensure!(body["results"].is_array() || body["offset"].is_u64(), "neither a receipt nor results");
    Ok(String::new())
}

fn request_id(answer: &Answer) -> Result<&str> {
    answer.header("x-request-id").filter(|id| !id.is_empty()).context("without X-Request-Id")
}

/// The code of a refusal.
fn refusal(answer: &Answer) -> Result<String> {
    let row = TABLE.iter().find(|(status, codes)| *status == answer.status && !codes.is_empty());
    let (_, codes) = row.context("no row of the table")?;
    let (id, body) = (request_id(answer)?, answer.json::<Value>()?);
    ensure!(answer.header("content-type") == Some("application/problem+json"), "no problem+json");
    let code = body["code"].as_str().context("no code")?;
    ensure!(codes.contains(&code), "a code of another status");
    ensure!(body["type"] == format!("urn:partita:problem:{code}"));
    ensure!(body["status"] == answer.status && body["request_id"] == id);
    ensure!(["title", "detail"].iter().all(|name| body[name].as_str().is_some_and(|text| !text.is_empty())));
    let header = match answer.status {
        401 => Some("www-authenticate"),
        405 => Some("allow"),
        409 | 429 | 503 => Some("retry-after"),
        415 if code == "unsupported_encoding" => Some("accept-encoding"),
        415 => Some("accept"),
        _ => None,
    };
    let missing = header.filter(|name| answer.header(name).is_none());
    ensure!(missing.is_none(), "without {}", missing.unwrap_or_default());
    Ok(code.to_owned())
}
