// SPDX-License-Identifier: MPL-2.0

//! The program in a process of its own.

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::Signal;

use support::{program, repository};

pub struct Program {
    running: program::Program,
    /// The folder with the configuration, `cameras.json`.
    pub folder: tempfile::TempDir,
}

/// A command that runs it.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtmp2-multicam"));
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Program {
    pub fn start(configuration: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), configuration)
    }

    /// Starts it in a folder that already has files.
    pub fn start_in(folder: tempfile::TempDir, configuration: &str) -> Self {
        std::fs::write(folder.path().join("cameras.json"), configuration).unwrap();
        let mut command = command();
        command.args(["--metrics", "127.0.0.1:0"]);
        command.arg(folder.path().join("cameras.json"));
        let running = program::Program::start(&mut command);
        Program { running, folder }
    }

    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("cameras.json")
    }

    /// Returns the number of lines.
    pub fn mark(&self) -> usize {
        self.running.mark()
    }

    /// Returns the first line after a mark that satisfies a condition, even if it is there already.
    #[track_caller]
    pub fn wait_from(&self, mark: usize, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        self.running.wait_from(mark, what, is_it)
    }

    /// Returns a line that has this text.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_from(0, text, |line| line.contains(text))
    }

    /// Returns a status line of a stream that has this text.
    #[track_caller]
    pub fn wait_for_status(&self, mark: usize, stream: &str, text: &str) -> String {
        let start = format!("{stream}: ");
        let what = format!("{start}{text}");
        self.wait_from(mark, &what, |line| {
            line.strip_prefix(&start)
                .is_some_and(|line| line.contains(text))
        })
    }

    /// Returns the port for publishers.
    #[track_caller]
    pub fn port(&self) -> u16 {
        let line = self.wait_for("listening on rtmp://");
        let port = line.trim_end_matches('/').rsplit(':').next().unwrap();
        port.parse().unwrap()
    }

    /// Reloads another configuration.
    pub fn reload(&self, configuration: &str) {
        std::fs::write(self.configuration(), configuration).unwrap();
        self.signal(Signal::HUP);
    }

    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Returns its metrics by name and stream, parsed strictly by the format.
    pub fn metrics(&self) -> Metrics {
        let line = self.wait_for("metrics on http://");
        let url = line.rsplit(' ').next().unwrap();
        let mut answer = ureq::get(url).call().unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert!(!text.contains("secret"), "{text}");
        parse(&text)
    }

    /// Waits for its end. Also returns its output.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = self.running.wait();
        (status, self.running.output())
    }
}

#[derive(Debug)]
pub struct Metrics(HashMap<(String, String), f64>);

impl Metrics {
    /// Returns a value of a stream, as `7/main`, or of none.
    #[track_caller]
    pub fn get(&self, name: &str, stream: &str) -> f64 {
        let key = (format!("multicam_{name}"), stream.to_owned());
        let value = self.0.get(&key);
        *value.unwrap_or_else(|| panic!("no {key:?} in {self:?}"))
    }
}

const PARSE: &str = "
import sys
sys.path.insert(0, sys.argv[1])
import prometheus_text
for (name, labels), value in prometheus_text.parse(sys.stdin.read()).items():
    labels = dict(labels)
    assert set(labels) in ({'camera', 'stream'}, set()), labels
    print(name, '/'.join(labels[key] for key in sorted(labels)) or '-', value)
";

fn parse(text: &str) -> Metrics {
    let mut command = Command::new("python3");
    command.args(["-c", PARSE]);
    command.arg(repository().join("scripts"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}");
    let output = String::from_utf8(output.stdout).unwrap();
    let sample = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap();
        let key = (word(), word().replace('-', ""));
        (key, word().parse().unwrap())
    };
    Metrics(output.lines().map(sample).collect())
}
