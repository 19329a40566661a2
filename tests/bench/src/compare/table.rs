//! The lines of the result, for people, for a README and for machines.

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

/// One row's result.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The row.
    pub name: String,
    /// The median of the pairs' ratios, Partita's over bare's: of their rates, in an open loop of their 99th percentiles.
    pub ratio: f64,
    /// The smallest and the largest of them.
    pub ratio_range: (f64, f64),
    /// Medians of the bare program.
    pub bare: Side,
    /// Medians of Partita.
    pub partita: Side,
}

/// One side's medians.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    /// Which program, with its settings.
    pub program: String,
    /// Records or tasks a second.
    pub rate: f64,
    /// Payload megabytes (10^6) a second.
    pub megabytes: f64,
    /// Processor microseconds a record or task, of the measured process alone.
    pub cpu_us: f64,
    /// The largest resident size in MiB.
    pub rss_mib: f64,
    /// Acknowledgement latency in milliseconds, for front doors: median and 99 %.
    pub latency_ms: Option<(f64, f64)>,
}

/// One run of one side.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) rate: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) cpu_us: f64,
    pub(crate) peak_rss: u64,
    pub(crate) latency_ms: Option<(f64, f64)>,
}

impl Line {
    pub(crate) fn new(name: &str, programs: (String, String), pairs: &[(Run, Run)]) -> Self {
        Self::by(|run| run.rate, name, programs, pairs)
    }

    /// Compares by something else than the rate.
    pub(crate) fn by(
        by: fn(&Run) -> f64,
        name: &str,
        programs: (String, String),
        pairs: &[(Run, Run)],
    ) -> Self {
        let mut ratios: Vec<f64> = pairs.iter().map(|(bare, partita)| by(partita) / by(bare)).collect();
        ratios.sort_by(f64::total_cmp);
        let side = |program, pick: fn(&(Run, Run)) -> &Run| {
            let of = |value: fn(&Run) -> f64| median(pairs.iter().map(|pair| value(pick(pair))).collect());
            let latency = |value: fn((f64, f64)) -> f64| {
                median(pairs.iter().filter_map(|pair| pick(pair).latency_ms.map(value)).collect())
            };
            Side {
                program,
                rate: of(|run| run.rate),
                megabytes: of(|run| run.bytes_per_second) / 1e6,
                cpu_us: of(|run| run.cpu_us),
                rss_mib: of(|run| run.peak_rss as f64) / f64::from(1 << 20),
                latency_ms: pick(&pairs[0])
                    .latency_ms
                    .map(|_| (latency(|both| both.0), latency(|both| both.1))),
            }
        };
        Self {
            name: name.to_owned(),
            ratio: median(ratios.clone()),
            ratio_range: (ratios[0], ratios[ratios.len() - 1]),
            bare: side(programs.0, |pair| &pair.0),
            partita: side(programs.1, |pair| &pair.1),
        }
    }

    fn cells(&self) -> Vec<String> {
        let (low, high) = self.ratio_range;
        vec![
            self.name.clone(),
            format!("{:.2} ({low:.2} to {high:.2})", self.ratio),
            rate(&self.bare),
            rate(&self.partita),
            format!("{:.2} / {:.2}", self.bare.cpu_us, self.partita.cpu_us),
            format!("{:.0} / {:.0}", self.bare.rss_mib, self.partita.rss_mib),
            match (self.bare.latency_ms, self.partita.latency_ms) {
                (Some(bare), Some(partita)) => {
                    format!("{:.1} {:.1} / {:.1} {:.1}", bare.0, bare.1, partita.0, partita.1)
                }
                _ => String::new(),
            },
        ]
    }
}

const HEADER: [&str; 7] = [
    "row",
    "Partita / bare (range; -open: of p99)",
    "bare",
    "Partita",
    "CPU µs each (bare / Partita)",
    "peak RSS MiB",
    "ack ms p50 p99",
];

fn rate(side: &Side) -> String {
    format!("{:.0}/s, {:.0} MB/s", side.rate, side.megabytes)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

/// For a terminal.
pub(crate) fn text(lines: &[Line]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(HEADER);
    for line in lines {
        table.add_row(line.cells());
    }
    table.to_string()
}

/// For a README, with the command that made it.
pub(crate) fn markdown(lines: &[Line]) -> String {
    let command: Vec<String> = std::env::args().skip(1).collect();
    let mut text = format!(
        "`cargo run --release -p partita-bench -- {}`\n\n| {} |\n|{}\n",
        command.join(" "),
        HEADER.join(" | "),
        "---|".repeat(HEADER.len())
    );
    for line in lines {
        text.push_str(&format!("| {} |\n", line.cells().join(" | ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(rate: f64) -> Run {
        Run { rate, bytes_per_second: rate, cpu_us: 1.0, peak_rss: 1 << 20, latency_ms: None }
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs_and_not_of_the_sides() {
        let pairs = [(run(1.0), run(2.0)), (run(100.0), run(300.0)), (run(10.0), run(10.0))];
        let line = Line::new("x", ("bare".into(), "partita".into()), &pairs);
        assert_eq!(line.ratio, 2.0);
        assert_eq!(line.ratio_range, (1.0, 3.0));
        assert_eq!((line.bare.rate, line.partita.rate), (10.0, 10.0));
    }

    #[test]
    fn the_median_of_two_is_between_them() {
        assert_eq!(median(vec![3.0, 1.0]), 2.0);
    }
}
