// SPDX-License-Identifier: MPL-2.0

//! nginx with its RTMP module.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::PATIENCE;
use super::clients::Running;
use super::netns::Machine;
use super::ports::reserved_port;

const PROGRAM: &str = "/usr/sbin/nginx";

#[derive(Debug)]
pub struct Nginx {
    pub port: u16,
    /// Reserved even while it does not run.
    _reserved: OwnedFd,
    address: String,
    application: &'static str,
    folder: tempfile::TempDir,
    process: Option<Running>,
}

impl Nginx {
    /// Accepts publishers of the application `relay`, and pushes their streams on.
    pub fn relay_to(url: &str) -> Self {
        Self::started(
            "relay",
            &format!("application relay {{ live on; push {url}; }}"),
        )
    }

    /// Accepts publishers of the application `live`, and records their streams.
    pub fn recorder() -> Self {
        Self::started("live", &Self::recording(""))
    }

    /// Records on a machine of its own.
    pub fn recorder_on(machine: &Machine) -> Self {
        let mut nginx = Self::stopped("live", machine.address());
        nginx.configure(&Self::recording(""));
        nginx.spawn(&mut machine.command(PROGRAM));
        nginx
    }

    /// The configuration of a recorder, and more.
    pub fn recording(more: &str) -> String {
        format!(
            "application live {{ live on; record all; record_path {{here}}; record_unique on; {more} }}"
        )
    }

    fn started(application: &'static str, configuration: &str) -> Self {
        let mut nginx = Self::stopped(application, "127.0.0.1");
        nginx.configure(configuration);
        nginx.start();
        nginx
    }

    fn stopped(application: &'static str, address: &str) -> Self {
        // nginx cannot bind any free port.
        let (reserved, port) = reserved_port();
        Nginx {
            port,
            _reserved: reserved,
            address: address.to_owned(),
            application,
            folder: tempfile::tempdir().unwrap(),
            process: None,
        }
    }

    /// Sets the configuration of its next start. `{here}` is its folder.
    pub fn configure(&self, application: &str) {
        let (here, port) = (self.folder.path().display(), self.port);
        let address = &self.address;
        let application = application.replace("{here}", &here.to_string());
        let text = format!(
            "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
             daemon off; master_process off; worker_processes 1; pid {here}/pid; error_log {here}/error.log;
             events {{ worker_connections 64; }}
             rtmp {{ access_log off; max_message 16M; server {{ listen {address}:{port}; {application} }} }}",
        );
        std::fs::write(self.folder.path().join("nginx.conf"), text).unwrap();
    }

    /// Starts it again after it was killed.
    pub fn start(&mut self) {
        self.spawn(&mut Command::new(PROGRAM));
    }

    fn spawn(&mut self, command: &mut Command) {
        let folder = self.folder.path();
        command.arg("-e").arg(folder.join("early.log"));
        command.arg("-c").arg(folder.join("nginx.conf"));
        command.arg("-p").arg(folder);
        let mut process = Running::spawn(command);
        let deadline = Instant::now() + PATIENCE;
        // It listens as soon as a connection is accepted.
        while TcpStream::connect((&self.address[..], self.port)).is_err() {
            let ended = process.0.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(folder.join("error.log"));
                panic!("nginx does not listen: {ended:?} {log:?}");
            }
            std::thread::yield_now();
        }
        self.process = Some(process);
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Freezes it: its connections stay, and it does nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().unwrap();
        let id = Pid::from_raw(process.0.id() as i32).unwrap();
        kill_process(id, signal).unwrap();
    }

    pub fn url(&self, key: &str) -> String {
        let (address, port) = (&self.address, self.port);
        format!("rtmp://{address}:{port}/{}/{key}", self.application)
    }

    /// Returns one file for each publisher. Two within a second would share one: see
    /// [`Nginx::put_aside`].
    pub fn recordings(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|e| e == "flv"))
            .collect();
        paths.sort();
        paths
    }

    /// Returns the size of all recordings in bytes.
    pub fn recorded(&self) -> u64 {
        let lengths = self.recordings().into_iter();
        lengths.map(|path| path.metadata().unwrap().len()).sum()
    }

    /// Renames the recordings to a name that no later one has.
    pub fn put_aside(&self, name: &str) {
        for path in self.recordings() {
            let old = path.file_name().unwrap().to_str().unwrap();
            if !old.starts_with("aside") {
                let new = path.with_file_name(format!("aside-{name}-{old}"));
                std::fs::rename(&path, new).unwrap();
            }
        }
    }
}
