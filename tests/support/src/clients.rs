// SPDX-License-Identifier: MPL-2.0

//! Real publishers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::thread;

use super::program::end_of;
use super::repository;

/// The ffmpeg of the distribution.
pub const FFMPEG: &str = "ffmpeg";

/// The newer ffmpeg of the virtual environment.
pub static NEW_FFMPEG: LazyLock<PathBuf> = LazyLock::new(|| {
    let program = repository().join(".venv/bin/ffmpeg");
    assert!(program.exists(), "no {}: run make setup", program.display());
    program
});

/// A process that is ended with its owner.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    pub fn spawn(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Running(child.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }

    /// Waits for its end, and returns its output.
    #[track_caller]
    pub fn wait(mut self) -> Output {
        let stderr = self.0.stderr.take();
        let stdout = self.0.stdout.take();
        let stderr = thread::spawn(move || read(stderr));
        let stdout = thread::spawn(move || read(stdout));
        let status = end_of(&mut self.0);
        let [stdout, stderr] = [stdout, stderr].map(|reader| reader.join().unwrap());
        let Some(status) = status else {
            panic!("it did not end: {}", String::from_utf8_lossy(&stderr));
        };
        Output {
            status,
            stdout,
            stderr,
        }
    }

    /// Waits for its end, and asserts success.
    #[track_caller]
    pub fn succeed(self) {
        let output = self.wait();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", output.status);
    }
}

fn read(from: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut from) = from {
        let _ = from.read_to_end(&mut bytes);
    }
    bytes
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts ffmpeg with arguments separated by spaces. It prints errors only.
pub fn ffmpeg(program: impl AsRef<std::ffi::OsStr>, arguments: &str) -> Running {
    let mut command = Command::new(program);
    command.args(["-nostdin", "-hide_banner", "-v", "error", "-y"]);
    command.args(arguments.split_whitespace());
    Running::spawn(&mut command)
}

/// Publishes a file without encoding.
pub fn publish(
    program: impl AsRef<std::ffi::OsStr>,
    file: &Path,
    paced: bool,
    url: &str,
) -> Running {
    let pace = if paced { "-re" } else { "" };
    let file = file.display();
    ffmpeg(
        program,
        &format!("{pace} -i {file} -map 0 -c copy -f flv {url}"),
    )
}

/// Starts a pipeline of another process, without the plugin, which runs to its end.
pub fn gst_launch(pipeline: &str) -> Running {
    let mut command = Command::new("gst-launch-1.0");
    command.arg("--quiet").args(pipeline.split_whitespace());
    Running::spawn(&mut command)
}
