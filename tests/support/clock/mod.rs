//! Time: the machine's own, which all processes share and nobody sets, and a process's time of day, which can be made to jump.

use crate::preload;
use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use std::{
    fs::OpenOptions,
    io::{Seek, Write},
    path::PathBuf,
    time::Duration,
};

/// The machine's monotonic clock: the same in each of its processes.
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The time of day as one process sees it.
#[derive(Debug, Clone)]
pub struct Clock(PathBuf);

impl Clock {
    /// Right at first. What it is off by is kept in this file.
    pub fn at(file: PathBuf) -> Result<Self> {
        let clock = Self(file);
        clock.jump_to(0)?;
        Ok(clock)
    }

    /// The environment of the process that is to go by it.
    pub fn environment(&self) -> Result<[(&'static str, PathBuf); 2]> {
        Ok([("LD_PRELOAD", preload::library("clock/shim.c")?), ("CLOCK_FILE", self.0.clone())])
    }

    /// From now on it is off by so many seconds.
    pub fn jump_to(&self, seconds: i64) -> Result<()> {
        // In place: the process has the file mapped.
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.0)?;
        file.rewind()?;
        file.write_all(&(seconds * 1_000_000_000).to_ne_bytes())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn date(clock: &Clock) -> i64 {
        let output =
            Command::new("date").arg("+%s").envs(clock.environment().unwrap()).output().unwrap().stdout;
        String::from_utf8(output).unwrap().trim().parse().unwrap()
    }

    #[test]
    fn a_process_sees_its_clock_jump_forward_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::at(dir.path().join("clock")).unwrap();
        let start = date(&clock);
        for off in [3600, -86_400, 0] {
            clock.jump_to(off).unwrap();
            assert!((start + off..start + off + 60).contains(&date(&clock)), "off by {off}");
        }
    }
}
