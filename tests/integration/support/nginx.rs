// SPDX-License-Identifier: MPL-2.0

//! nginx with its RTMP module.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::clients::Running;

pub struct Nginx {
    pub port: u16,
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

    /// What a recorder does, and more.
    pub fn recording(more: &str) -> String {
        format!(
            "application live {{ live on; record all; record_path {{here}}; record_unique on; {more} }}"
        )
    }

    fn started(application: &'static str, configuration: &str) -> Self {
        let mut nginx = Nginx {
            port: free_port(),
            application,
            folder: tempfile::tempdir().unwrap(),
            process: None,
        };
        nginx.configure(configuration);
        nginx.start();
        nginx
    }

    /// What it does from its next start on. `{here}` is its folder.
    pub fn configure(&self, application: &str) {
        let (here, port) = (self.folder.path().display(), self.port);
        let application = application.replace("{here}", &here.to_string());
        let text = format!(
            "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
             daemon off; master_process off; worker_processes 1; pid {here}/pid; error_log {here}/error.log;
             events {{ worker_connections 64; }}
             rtmp {{ access_log off; max_message 16M; server {{ listen 127.0.0.1:{port}; {application} }} }}",
        );
        std::fs::write(self.folder.path().join("nginx.conf"), text).unwrap();
    }

    /// Starts it again after it was killed.
    pub fn start(&mut self) {
        let folder = self.folder.path();
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-e").arg(folder.join("early.log"));
        command.arg("-c").arg(folder.join("nginx.conf"));
        command.arg("-p").arg(folder);
        self.process = Some(Running::spawn(&mut command));
        // It listens as soon as a connection is taken.
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
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
        format!("rtmp://127.0.0.1:{}/{}/{key}", self.port, self.application)
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
