//! Signals to a process, and what the kernel knows of it.

use anyhow::{Context, Result, ensure};
use std::{fs, process::Command, time::Duration};

/// Sends a signal by its name (`TERM`, `STOP`, `CONT`, …).
pub fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status()?;
    ensure!(status.success(), "kill -{name} {pid}: {status}");
    Ok(())
}

/// The most memory that was ever resident, in bytes.
pub fn peak_resident(pid: u32) -> Result<u64> {
    status_kib(pid, "VmHWM")
}

/// The memory that is resident now, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    status_kib(pid, "VmRSS")
}

/// The processor time used so far.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in brackets and may contain anything.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).context("stat");
    const TICKS_PER_SECOND: u64 = 100;
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / TICKS_PER_SECOND))
}

fn status_kib(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field)).with_context(|| field.to_owned())?;
    let kib: u64 = line.split_whitespace().nth(1).context("no value")?.parse()?;
    Ok(kib * 1024)
}
