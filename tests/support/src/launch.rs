// SPDX-License-Identifier: MPL-2.0

//! `gst-launch-1.0` with the plugin as it was built, in a process of its own.

use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::program::Program;

#[derive(Debug)]
pub struct Launch {
    program: Program,
    /// The folder of the registry, and of the log where there is one.
    folder: tempfile::TempDir,
}

/// The folder that this test was built into.
pub(crate) fn build_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(|deps| deps.parent());
    folder.unwrap().to_owned()
}

/// The folder that the plugin was built into.
pub fn plugin_folder() -> PathBuf {
    let folder = build_folder();
    let plugin = folder.join("libgstrtmp2server.so");
    assert!(plugin.exists(), "{} is not built", plugin.display());
    folder
}

/// A command that finds the plugin, with a registry of its own that is never stale.
pub fn command(program: &str) -> (Command, tempfile::TempDir) {
    let registry = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command
        .env("GST_PLUGIN_PATH", plugin_folder())
        .env("GST_REGISTRY", registry.path().join("registry.bin"));
    (command, registry)
}

impl Launch {
    /// Starts `gst-launch-1.0` with `-v`, so that properties like current-port are printed.
    pub fn start(options: &str, pipeline: &str) -> Self {
        Self::spawn(command("gst-launch-1.0"), options, pipeline)
    }

    /// Starts another program that prints the properties of its pipeline with `-v`.
    pub fn start_program(program: &str, arguments: &str) -> Self {
        Self::spawn(command(program), "", arguments)
    }

    /// Starts `gst-launch-1.0` with a log at these levels.
    pub fn start_logged(pipeline: &str, levels: &str) -> Self {
        let (mut command, folder) = command("gst-launch-1.0");
        command
            .env("GST_DEBUG", levels)
            .env("GST_DEBUG_NO_COLOR", "1")
            .env("GST_DEBUG_FILE", folder.path().join("log"));
        Self::spawn((command, folder), "", pipeline)
    }

    /// Returns the log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn spawn(
        (mut command, folder): (Command, tempfile::TempDir),
        options: &str,
        pipeline: &str,
    ) -> Self {
        command
            .arg("-v")
            .args(options.split_whitespace())
            .args(pipeline.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let program = Program::start(&mut command);
        Launch { program, folder }
    }

    /// Waits for a line with this text, and returns all lines since the last one.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        self.program.wait_for(text)
    }

    /// Returns the port that the element listens on.
    #[track_caller]
    pub fn port(&mut self) -> u16 {
        self.program.rest_after("current-port = ").parse().unwrap()
    }

    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// Returns the output so far.
    pub fn output(&self) -> String {
        self.program.output()
    }

    pub fn interrupt(&self) {
        self.program.signal(Signal::INT);
    }

    /// Waits for its end, and returns how long that took.
    #[track_caller]
    pub fn wait(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        (self.program.wait(), start.elapsed())
    }
}
