// SPDX-License-Identifier: MPL-2.0
//! SRS, which no distribution packages: an environment variable names its program.

use std::env;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Setup;
use super::process::Process;

/// The variable that names the program.
const VARIABLE: &str = "RTMP2_BENCH_SRS";

/// Maximum wait until it listens.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn missing() -> Option<String> {
    match program() {
        None => Some(format!("{VARIABLE} names no program")),
        Some(path) if !path.is_file() => Some(format!("no {}", path.display())),
        Some(_) => None,
    }
}

pub fn start(setup: Setup<'_>, folder: &Path) -> Result<(Process, Vec<u16>)> {
    // It cannot report a port that the kernel chose, so one is bound and freed for it.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let file = folder.join("srs.conf");
    fs::write(&file, configuration(port, setup, folder))?;
    let arguments = ["-c".to_owned(), file.display().to_string()];
    let program = program().unwrap_or_default();
    let mut process = Process::start(program, &arguments, setup.callgrind)?;
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        ensure!(process.is_running(), "SRS does not start");
        ensure!(Instant::now() < deadline, "SRS does not listen");
        thread::sleep(Duration::from_millis(5));
    }
    Ok((process, vec![port]))
}

/// One process that logs errors only, as the others do.
fn configuration(port: u16, setup: Setup<'_>, folder: &Path) -> String {
    let folder = folder.display();
    let record = if setup.record {
        format!(
            "dvr {{ enabled on; dvr_plan session; dvr_path {folder}/[stream].[timestamp].flv; }}"
        )
    } else {
        String::new()
    };
    format!(
        "listen 127.0.0.1:{port};
        daemon off;
        pid {folder}/srs.pid;
        max_connections 4096;
        srs_log_tank console;
        srs_log_level error;
        heartbeat {{ enabled off; }}
        stats {{ network 0; }}
        vhost __defaultVhost__ {{ {record} }}
        "
    )
}

fn program() -> Option<PathBuf> {
    env::var_os(VARIABLE).map(PathBuf::from)
}
