// SPDX-License-Identifier: MPL-2.0

//! The program in a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use m3u8_rs::MediaPlaylist;
use rustix::process::Signal;

use super::segments::{Segment, playlist, segments};
use support::PATIENCE;
use support::flv::Tag;
use support::program::Program;
use support::raw::{RawClient, send, unpublish};

pub(super) struct Relay {
    pub(super) program: Program,
    /// The URL of its HTTP server, with a slash at its end.
    pub(super) page: String,
    pub(super) port: u16,
    pub(super) directory: PathBuf,
}

impl Relay {
    pub(super) fn start(directory: &Path, options: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", directory, options)
    }

    /// Publishers connect to `address`.
    pub(super) fn start_at(address: &str, directory: &Path, options: &[&str]) -> Self {
        let mut command = command(address, directory);
        command.args(options).stdout(Stdio::piped());
        // Its warnings appear with the output of the test.
        let mut program = Program::start(command.stderr(Stdio::inherit()));
        let page = program.rest_after("page on ");
        let address = program.rest_after("listening on ");
        let port = address.trim_end_matches('/').rsplit(':').next();
        Relay {
            program,
            page,
            port: port.unwrap().parse().unwrap(),
            directory: directory.to_owned(),
        }
    }

    /// Waits for a line with this text, and returns all lines up to it.
    #[track_caller]
    pub(super) fn wait_for(&mut self, text: &str) -> String {
        self.program.wait_for(text)
    }

    pub(super) fn publish(&self, user: &str) -> RawClient {
        RawClient::publish(self.port, &format!("live/{user}"), "cam")
    }

    /// Publishes a whole stream, as fast as possible.
    #[track_caller]
    pub(super) fn take(&mut self, user: &str, tags: &[Tag]) -> String {
        let mut client = self.publish(user);
        send(&mut client, tags);
        unpublish(client);
        self.wait_for(&format!("gone live/{user}/cam"))
    }

    pub(super) fn stream(&self, user: &str) -> PathBuf {
        self.directory.join("live").join(user).join("cam")
    }

    pub(super) fn playlist(&self, user: &str) -> MediaPlaylist {
        playlist(&self.stream(user))
    }

    pub(super) fn segments(&self, user: &str) -> Vec<Segment> {
        segments(&self.stream(user))
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.program.signal(signal);
    }

    pub(super) fn terminate(mut self) {
        self.signal(Signal::TERM);
        assert!(self.program.wait().success());
    }

    /// Returns the answer for a path.
    pub(super) fn get(&self, path: &str) -> String {
        let mut response = ureq::get(format!("{}{path}", self.page)).call().unwrap();
        response.body_mut().read_to_string().unwrap()
    }

    /// Requests a path again and again, until the condition holds.
    #[track_caller]
    pub(super) fn wait_until(&self, path: &str, holds: impl Fn(&str) -> bool) {
        let start = Instant::now();
        loop {
            let text = self.get(path);
            if holds(&text) {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "{text}");
        }
    }

    /// Returns status and text of /health.
    pub(super) fn health(&self) -> (u16, String) {
        let agent = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = ureq::Agent::new_with_config(agent.build());
        let mut response = agent.get(format!("{}health", self.page)).call().unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), text)
    }

    /// Requests /health until the condition holds.
    #[track_caller]
    pub(super) fn wait_for_health(&self, is_right: impl Fn(u16, &str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, text) = self.health();
            if is_right(status, &text) {
                return;
            }
            assert!(Instant::now() < deadline, "{status} {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The program, whose page is on any free port.
pub(super) fn command(address: &str, directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtmp2-relay"));
    command
        .args(["--rtmp", address, "--http", "127.0.0.1:0"])
        .arg("--directory")
        .arg(directory)
        .stdin(Stdio::null());
    command
}
