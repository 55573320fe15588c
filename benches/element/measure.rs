// SPDX-License-Identifier: MPL-2.0
//! Clocks and memory, of this process and of others.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Returns the time of the clock that all processes of the machine share.
pub fn monotonic() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

/// User and system time of all threads of a living process, including ended threads.
///
/// From the process's CPU clock, which the scheduler keeps in nanoseconds; the figures in
/// /proc/PID/stat are ticks of 10 ms.
pub fn cpu_time(process: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(pid(process)).context("CPU clock of the server")?;
    Ok(clock_gettime(clock)
        .context("CPU time of the server")?
        .into())
}

/// Memory of a process in bytes, with shared pages counted proportionally.
pub fn proportional_set_size(process: u32) -> Result<u64> {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = fs::read_to_string(&path).context(path)?;
    let kilobytes = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"))
        .context("no Pss in smaps_rollup")?;
    Ok(kilobytes.trim().parse::<u64>()? * 1024)
}

pub fn pid(process: u32) -> Pid {
    Pid::from_raw(process as i32)
}
