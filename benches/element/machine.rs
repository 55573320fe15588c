// SPDX-License-Identifier: MPL-2.0
//! The machine that the figures are from.

use std::fs;
use std::process::Command;
use std::thread;

pub fn describe() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{} x {}, Linux {}, {}, {}",
        cores,
        processor(),
        kernel.trim(),
        gst::version_string(),
        nginx()
    )
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let name = name.and_then(|rest| rest.split_once(": "));
    name.map_or("unknown processor", |(_, name)| name)
        .to_owned()
}

/// It prints its version on standard error.
fn nginx() -> String {
    let output = Command::new("nginx").arg("-v").output();
    let text = output.map(|output| output.stderr).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let version = text.trim().rsplit(": ").next().unwrap_or_default();
    if version.is_empty() {
        "no nginx"
    } else {
        version
    }
    .to_owned()
}
