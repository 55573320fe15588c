// SPDX-License-Identifier: MPL-2.0

//! Programs that run beside a test, their output, and their end. Every wait has a limit.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::PATIENCE;

/// Longer than any program of any test runs, also on a busy machine.
const LONGEST: Duration = Duration::from_secs(300);

/// Waits for the end of a process, and kills it after the timeout, which returns `None`.
pub fn end_of(child: &mut Child) -> Option<ExitStatus> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
    let limit = Timespec::try_from(LONGEST).unwrap();
    let ended = poll(
        &mut [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)],
        Some(&limit),
    );
    if ended == Ok(0) {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    (ended != Ok(0)).then_some(status)
}

#[derive(Debug, Default)]
struct Printed {
    lines: Vec<String>,
    /// The number of its output streams that have not ended.
    open: usize,
}

type SharedOutput = Arc<(Mutex<Printed>, Condvar)>;

/// A program that prints its progress in lines. It is ended with its owner.
#[derive(Debug)]
pub struct Program {
    child: Child,
    printed: SharedOutput,
    /// Lines that [`Self::wait_for`] has passed.
    passed: usize,
}

impl Program {
    /// Reads the piped ones of its output streams.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let child = command.spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let printed = SharedOutput::default();
        if let Some(stream) = child.stdout.take() {
            read(stream, &printed);
        }
        if let Some(stream) = child.stderr.take() {
            read(stream, &printed);
        }
        Program {
            child,
            printed,
            passed: 0,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Returns the number of lines.
    pub fn mark(&self) -> usize {
        self.printed.0.lock().unwrap().lines.len()
    }

    /// Returns its whole output.
    pub fn output(&self) -> String {
        let printed = self.printed.0.lock();
        let printed = printed.unwrap_or_else(PoisonError::into_inner);
        printed.lines.join("\n")
    }

    /// Returns the first line after a mark that satisfies a condition, even if it is there already.
    #[track_caller]
    pub fn wait_from(&self, mark: usize, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        let (_, line) = self.find(mark, what, is_it);
        line
    }

    /// Waits for a line with this text, and returns all lines since the last one.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        let (index, _) = self.find(self.passed, text, |line| line.contains(text));
        let start = std::mem::replace(&mut self.passed, index + 1);
        self.printed.0.lock().unwrap().lines[start..=index].join("\n")
    }

    /// Waits for this text, and returns the rest of its line.
    #[track_caller]
    pub fn rest_after(&mut self, text: &str) -> String {
        let lines = self.wait_for(text);
        lines.rsplit_once(text).unwrap().1.trim().to_owned()
    }

    #[track_caller]
    fn find(&self, mark: usize, what: &str, is_it: impl Fn(&str) -> bool) -> (usize, String) {
        let (printed, more) = &*self.printed;
        let mut printed = printed.lock().unwrap();
        let mut next = mark;
        loop {
            if let Some(found) = printed.lines[next..].iter().position(|line| is_it(line)) {
                return (next + found, printed.lines[next + found].clone());
            }
            next = printed.lines.len();
            let waits = |printed: &mut Printed| printed.lines.len() == next && printed.open > 0;
            let waited = more.wait_timeout_while(printed, PATIENCE, waits);
            printed = waited.unwrap().0;
            if printed.lines.len() == next {
                let text = printed.lines.join("\n");
                drop(printed);
                panic!("no \"{what}\" in:\n{text}");
            }
        }
    }

    /// Waits for its end, and for all of its output.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = end_of(&mut self.child);
        let (printed, more) = &*self.printed;
        let printed = printed.lock().unwrap();
        let waited = more.wait_timeout_while(printed, PATIENCE, |printed| printed.open > 0);
        drop(waited.unwrap());
        status.unwrap_or_else(|| panic!("it did not end:\n{}", self.output()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.output());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps the lines of a stream.
fn read(stream: impl Read + Send + 'static, printed: &SharedOutput) {
    printed.0.lock().unwrap().open += 1;
    let printed = printed.clone();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            printed.0.lock().unwrap().lines.push(line);
            printed.1.notify_all();
        }
        printed.0.lock().unwrap().open -= 1;
        printed.1.notify_all();
    });
}
