//! What a run showed, for people and for machines.

use super::{ledger::Verdict, send::Sent, verify::Verified};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

/// A run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The number that all its keys carry.
    pub(crate) run: String,
    /// Tasks acknowledged as durable.
    pub(crate) acknowledged: u64,
    /// Tasks that are definitely not stored.
    pub(crate) not_written: u64,
    /// Tasks given up after an attempt of unknown outcome.
    pub(crate) unknown: u64,
    /// Attempts that were repeated.
    pub(crate) retries: u64,
    /// Bytes of the acknowledged payloads.
    pub(crate) bytes: u64,
    /// From the first attempt to the last end.
    pub(crate) seconds: f64,
    /// Acknowledged tasks a second.
    pub(crate) tasks_per_second: f64,
    /// Megabytes (10^6) of acknowledged payloads a second.
    pub(crate) megabytes_per_second: f64,
    /// From the time a task was due to its acknowledgement.
    pub(crate) acknowledgement: Option<Percentiles>,
    /// From sending a task to the end of its handling.
    pub(crate) end_to_end: Option<Percentiles>,
    /// Every answer and error.
    pub(crate) statuses: BTreeMap<String, u64>,
    /// What reading back showed, where that was asked for.
    pub(crate) verdict: Option<Verdict>,
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Percentiles {
    /// The median.
    pub(crate) p50: f64,
    /// 90 %.
    pub(crate) p90: f64,
    /// 99 %.
    pub(crate) p99: f64,
    /// 99.9 %.
    pub(crate) p999: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        (!histogram.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
        })
    }
}

impl Report {
    /// Puts the two halves of a run together.
    pub(crate) fn new(run: u64, sent: &Sent, verified: Option<Verified>) -> Self {
        let seconds = sent.elapsed.as_secs_f64();
        Self {
            run: format!("{run:016x}"),
            acknowledged: sent.acknowledged,
            not_written: sent.not_written,
            unknown: sent.unknown,
            retries: sent.retries,
            bytes: sent.bytes,
            seconds,
            tasks_per_second: sent.acknowledged as f64 / seconds,
            megabytes_per_second: sent.bytes as f64 / 1e6 / seconds,
            acknowledgement: Percentiles::of(&sent.acknowledgement),
            end_to_end: verified.as_ref().and_then(|verified| Percentiles::of(&verified.end_to_end)),
            statuses: sent.statuses.clone(),
            verdict: verified.map(|verified| verified.verdict),
        }
    }

    /// Whether something was sent and nothing that was promised is broken.
    pub(crate) fn holds(&self) -> bool {
        self.acknowledged > 0 && self.verdict.as_ref().is_none_or(Verdict::holds)
    }

    /// The report as tables.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut add = |table: Table| {
            text.push_str(&table.to_string());
            text.push('\n');
        };
        add(self.throughput());
        add(self.latencies());
        let mut statuses = table(["answer", "times"]);
        for (what, times) in &self.statuses {
            statuses.add_row([what.clone(), times.to_string()]);
        }
        add(statuses);
        if let Some(verdict) = &self.verdict {
            add(verdict_table(verdict));
            for finding in &verdict.findings {
                text.push_str(&format!("  {finding}\n"));
            }
            text.push_str(if verdict.holds() {
                "verified: nothing lost, every key in order, every byte as it was sent\n"
            } else {
                "BROKEN: what came back is not what was acknowledged\n"
            });
        }
        text
    }

    fn throughput(&self) -> Table {
        let mut table = table(["tasks", "seconds", "tasks/s", "MB/s", "retries", "not written", "unknown"]);
        table.add_row([
            self.acknowledged.to_string(),
            format!("{:.2}", self.seconds),
            format!("{:.0}", self.tasks_per_second),
            format!("{:.1}", self.megabytes_per_second),
            self.retries.to_string(),
            self.not_written.to_string(),
            self.unknown.to_string(),
        ]);
        table
    }

    fn latencies(&self) -> Table {
        let mut table = table(["milliseconds", "p50", "p90", "p99", "p99.9", "max"]);
        for (name, percentiles) in [("acknowledged", self.acknowledgement), ("end to end", self.end_to_end)] {
            if let Some(Percentiles { p50, p90, p99, p999, max }) = percentiles {
                let mut row = vec![name.to_owned()];
                row.extend([p50, p90, p99, p999, max].map(|value| format!("{value:.2}")));
                table.add_row(row);
            }
        }
        table
    }
}

fn verdict_table(verdict: &Verdict) -> Table {
    let mut table = table(["verified against what was acknowledged", "tasks"]);
    let rows = [
        ("confirmed", verdict.confirmed),
        ("outcome was unknown, found", verdict.unknown_found),
        ("copies explained by an unknown outcome", verdict.allowed_duplicates),
        ("lost", verdict.lost),
        ("out of order", verdict.reordered),
        ("not where the receipt says", verdict.misplaced),
        ("copies not explained", verdict.duplicates),
        ("reported as not stored, found", verdict.resurrected),
        ("damaged", verdict.damaged),
    ];
    for (what, tasks) in rows {
        table.add_row([what.to_owned(), tasks.to_string()]);
    }
    table
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    table
}
