// SPDX-License-Identifier: MPL-2.0
//! nginx with its RTMP module, as packaged by Debian and Ubuntu.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Setup;
use super::process::Process;

const MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
const PROGRAMS: [&str; 2] = ["/usr/sbin/nginx", "/usr/bin/nginx"];

/// Maximum wait until it listens.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn missing() -> Option<String> {
    if program().is_none() {
        Some("nginx is not installed".into())
    } else if !Path::new(MODULE).exists() {
        Some(format!("no {MODULE} (libnginx-mod-rtmp)"))
    } else {
        None
    }
}

pub fn start(setup: Setup<'_>, folder: &Path) -> Result<(Process, Vec<u16>)> {
    // nginx cannot report a port that the kernel chose, so one is bound and freed for it.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration(port, setup, folder))?;
    let arguments = ["-p", &text(folder), "-c", &text(&file), "-e", "stderr"].map(Into::into);
    let program = program().unwrap_or_default();
    let mut process = Process::start(program, &arguments, setup.callgrind)?;
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(process.is_running(), "nginx does not start");
        ensure!(Instant::now() < deadline, "nginx does not listen");
        thread::sleep(Duration::from_millis(5));
    }
    Ok((process, vec![port]))
}

/// One process, a worker; a master beside it would only wait. A keyframe of the 4K profile needs
/// more than the default message size.
fn configuration(port: u16, setup: Setup<'_>, folder: &Path) -> String {
    let folder = text(folder);
    let record = if setup.record {
        format!("record all; record_path {folder};")
    } else {
        String::new()
    };
    format!(
        "load_module {MODULE};
        daemon off;
        master_process off;
        worker_processes 1;
        pid {folder}/nginx.pid;
        events {{ worker_connections 4096; }}
        rtmp {{
            access_log off;
            max_message 16M;
            server {{
                listen 127.0.0.1:{port};
                application live {{ live on; {record} }}
            }}
        }}
        "
    )
}

fn program() -> Option<PathBuf> {
    PROGRAMS
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
