// SPDX-License-Identifier: MPL-2.0
//! A process that feeds sinks.

use std::time::Duration;

use anyhow::{Context, Result};

use super::process::{self, Process};
use crate::measure;

pub struct Sender(Process);

impl Sender {
    /// Feeds this many of a sink; `{n}` in its description is its number.
    pub fn start(count: usize, sink: &str) -> Result<Self> {
        let arguments = ["push", "--count", &count.to_string(), sink].map(Into::into);
        let mut process = Process::start(process::itself()?, &arguments, None)?;
        process.expect("ready")?;
        Ok(Self(process))
    }

    pub fn cpu_time(&self) -> Result<Duration> {
        measure::cpu_time(self.0.id())
    }

    /// Returns the worst delay of the sender, and whether all data was accepted.
    pub fn state(&mut self) -> Result<(Duration, bool)> {
        self.0.write_line("state")?;
        let line = self.0.expect("state ")?;
        let (millis, complete) = line.split_once(' ').context("two words")?;
        Ok((Duration::from_millis(millis.parse()?), complete.parse()?))
    }

    pub fn stop(mut self) -> Result<()> {
        self.0.stop(false)
    }
}
