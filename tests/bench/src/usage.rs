//! What a process has used: processor time and memory, its own or another's.

use anyhow::{Context, Result};
use std::time::Duration;

/// Processor time and the largest resident size so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time of all threads, ended ones included.
    pub cpu: Duration,
    /// The largest resident size, in bytes.
    pub peak_rss: u64,
}

/// What this process has used.
pub fn own() -> Usage {
    of("self").unwrap_or_default()
}

/// What the process `pid` has used.
pub fn of_process(pid: u32) -> Result<Usage> {
    of(&pid.to_string())
}

fn of(pid: &str) -> Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("reading /proc/PID/stat")?;
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).context("reading /proc/PID/status")?;
    parse(&stat, &status).context("unexpected text in /proc/PID/stat or status")
}

/// The command's name may hold spaces and brackets: fields are counted from its last bracket.
fn parse(stat: &str, status: &str) -> Option<Usage> {
    const TICKS_PER_SECOND: u64 = 100;
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let kib: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?
        .trim()
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    Some(Usage { cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND), peak_rss: kib * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_brackets_does_not_shift_the_fields() {
        let stat = "12 (a) b (c)) S 1 12 12 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 1 2 3";
        let usage = parse(stat, "Name:\tx\nVmHWM:\t  2048 kB\n").unwrap();
        assert_eq!(usage.cpu, Duration::from_secs(3));
        assert_eq!(usage.peak_rss, 2 << 20);
    }

    #[test]
    fn this_process_has_used_some_memory() {
        assert!(own().peak_rss > 0);
    }
}
