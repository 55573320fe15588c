// SPDX-License-Identifier: MPL-2.0

//! nginx with its RTMP module.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::clients::Running;
use super::lab::Machine;

const PROGRAM: &str = "/usr/sbin/nginx";

pub struct Nginx {
    pub port: u16,
    address: String,
    application: &'static str,
    folder: tempfile::TempDir,
    process: Option<Running>,
}

/// A port that is free now. nginx can't be told to take any.
fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

impl Nginx {
    /// Takes publishers to the application `relay`, and sends on what they publish.
    pub fn relay_to(url: &str) -> Self {
        Self::started(
            "relay",
            &format!("application relay {{ live on; push {url}; }}"),
        )
    }

    /// Takes publishers to the application `live`, and records what they publish.
    pub fn recorder() -> Self {
        Self::started("live", &Self::recording(""))
    }

    /// The same on a machine of its own.
    pub fn recorder_on(machine: &Machine) -> Self {
        let mut nginx = Self::stopped("live", machine.address());
        nginx.configure(&Self::recording(""));
        nginx.spawn(&mut machine.command(PROGRAM));
        nginx
    }

    /// What a recorder does, and more.
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
        Nginx {
            port: free_port(),
            address: address.to_owned(),
            application,
            folder: tempfile::tempdir().unwrap(),
            process: None,
        }
    }

    /// What it does from its next start on. `{here}` is its folder.
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
        self.process = Some(Running::spawn(command));
        // It listens as soon as a connection is taken.
        while TcpStream::connect((&self.address[..], self.port)).is_err() {
            std::thread::yield_now();
        }
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    /// It stays, with its connections, and does nothing.
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

    /// A file for each publisher. Two within a second would share one: see [`Nginx::put_aside`].
    pub fn recordings(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|e| e == "flv"))
            .collect();
        paths.sort();
        paths
    }

    /// In bytes.
    pub fn recorded(&self) -> u64 {
        let lengths = self.recordings().into_iter();
        lengths.map(|path| path.metadata().unwrap().len()).sum()
    }

    /// Gives what there is a name that no later recording has.
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
