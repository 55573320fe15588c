// SPDX-License-Identifier: MPL-2.0
//! A server's process, and the lines that it prints.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};

use crate::measure::pid;

/// Maximum wait for a line; under valgrind everything takes fifty times as long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Maximum wait for a process to exit.
const FAREWELL: Duration = Duration::from_secs(30);

pub struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    pub fn start(program: PathBuf, arguments: &[String], callgrind: Option<&Path>) -> Result<Self> {
        let mut command = match callgrind {
            None => Command::new(&program),
            Some(file) => {
                let mut valgrind = Command::new("valgrind");
                valgrind
                    .args(["--quiet", "--tool=callgrind", "--fair-sched=yes"])
                    .arg(format!("--callgrind-out-file={}", file.display()))
                    .arg(&program);
                valgrind
            }
        };
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let output = child.stdout.take().context("no standard output")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for a line that starts with `prefix` and returns the rest of it.
    pub fn expect(&mut self, prefix: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self
                .lines
                .recv_timeout(left)
                .with_context(|| format!("no line {prefix:?} from the server"))?;
            if let Some(rest) = line.strip_prefix(prefix) {
                return Ok(rest.to_owned());
            }
            if let Some(error) = line.strip_prefix("error ") {
                bail!("the server reports: {error}");
            }
        }
    }

    pub fn write_line(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("no standard input")?;
        writeln!(input, "{line}")?;
        Ok(())
    }

    /// Ends its input, or sends the signal that it exits on, and waits for it.
    pub fn stop(&mut self, signal: bool) -> Result<()> {
        self.child.stdin.take();
        let deadline = Instant::now() + FAREWELL;
        while self.is_running() {
            if Instant::now() > deadline {
                bail!("the server does not leave");
            }
            // More than once: nginx misses a signal that arrives just before it waits for events.
            if signal {
                kill(pid(self.id()), Signal::SIGTERM)?;
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The program that is running.
pub fn itself() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find the benchmark's own program")
}
