// SPDX-License-Identifier: MPL-2.0

//! nginx with its RTMP module.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use super::clients::Running;

pub struct Nginx {
    pub port: u16,
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
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let here = folder.path().display();
        let configuration = std::fs::File::create(folder.path().join("nginx.conf"));
        write!(
            configuration.unwrap(),
            "load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
             daemon off; master_process off; worker_processes 1; pid {here}/pid; error_log {here}/error.log;
             events {{ worker_connections 64; }}
             rtmp {{ access_log off; server {{ listen 127.0.0.1:{port}; application relay {{ live on; push {url}; }} }} }}",
        )
        .unwrap();
        let mut nginx = Nginx {
            port,
            folder,
            process: None,
        };
        nginx.start();
        nginx
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

    pub fn url(&self, key: &str) -> String {
        format!("rtmp://127.0.0.1:{}/relay/{key}", self.port)
    }
}
