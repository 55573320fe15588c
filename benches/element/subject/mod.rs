// SPDX-License-Identifier: MPL-2.0
//! The compared servers, each in a process of its own.

mod nginx;
mod process;
mod sender;
mod srs;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::measure;
use crate::publisher::{Dialogue, Publisher};
use process::Process;
pub use sender::Sender;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    ReadLoop,
    ReadThreads,
    PushThreads,
    OneCopy,
    Nginx,
    Srs,
    TcpServerSrc,
    Rtmp2ServerSrc,
    /// rtmp2serversrc with `delivery-interval=100`.
    Collecting,
    Rtmp2MultiServerSrc,
    Rtmp2Sink,
    Rtmp2FallbackSink,
}

impl Subject {
    pub const ALL: [Self; 12] = [
        Self::ReadLoop,
        Self::ReadThreads,
        Self::PushThreads,
        Self::OneCopy,
        Self::Nginx,
        Self::Srs,
        Self::TcpServerSrc,
        Self::Rtmp2ServerSrc,
        Self::Collecting,
        Self::Rtmp2MultiServerSrc,
        Self::Rtmp2Sink,
        Self::Rtmp2FallbackSink,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::ReadLoop => "read loop",
            Self::ReadThreads => "read threads",
            Self::PushThreads => "push threads",
            Self::OneCopy => "one copy",
            Self::Nginx => "nginx-rtmp",
            Self::Srs => "SRS",
            Self::TcpServerSrc => "tcpserversrc",
            Self::Rtmp2ServerSrc => "rtmp2serversrc",
            Self::Collecting => "delivery-interval=100",
            Self::Rtmp2MultiServerSrc => "rtmp2multiserversrc",
            Self::Rtmp2Sink => "rtmp2sink",
            Self::Rtmp2FallbackSink => "rtmp2fallbacksink",
        }
    }

    /// Returns true for the elements of this project.
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Rtmp2ServerSrc
                | Self::Collecting
                | Self::Rtmp2MultiServerSrc
                | Self::Rtmp2FallbackSink
        )
    }

    /// Returns true for the least cost of receiving, which is no server.
    pub fn is_floor(self) -> bool {
        matches!(
            self,
            Self::ReadLoop | Self::ReadThreads | Self::PushThreads | Self::OneCopy
        )
    }

    /// Returns true for a server that is a program of its own, and no pipeline.
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::Nginx | Self::Srs)
    }

    pub fn dialogue(self) -> Dialogue {
        match self {
            Self::Nginx
            | Self::Srs
            | Self::Rtmp2ServerSrc
            | Self::Collecting
            | Self::Rtmp2MultiServerSrc => Dialogue::Rtmp,
            // Nothing publishes to the two senders.
            Self::ReadLoop
            | Self::ReadThreads
            | Self::PushThreads
            | Self::OneCopy
            | Self::TcpServerSrc
            | Self::Rtmp2Sink
            | Self::Rtmp2FallbackSink => Dialogue::None,
        }
    }

    /// The reason why this machine cannot run the subject, if any.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::ReadLoop | Self::ReadThreads | Self::PushThreads | Self::OneCopy => None,
            Self::Nginx => nginx::missing(),
            Self::Srs => srs::missing(),
            Self::TcpServerSrc | Self::Rtmp2ServerSrc | Self::Rtmp2MultiServerSrc => {
                missing_element(self.name())
            }
            Self::Collecting => missing_element(Self::Rtmp2ServerSrc.name()),
            // rtmp2fallbacksink is built on rtmp2sink.
            Self::Rtmp2Sink | Self::Rtmp2FallbackSink => missing_element("rtmp2sink"),
        }
    }

    fn file_name(self) -> String {
        self.name().replace(' ', "-")
    }
}

fn missing_element(name: &str) -> Option<String> {
    let found = gst::ElementFactory::find(name).is_some();
    (!found).then(|| format!("no element {name}"))
}

/// Options of a server.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    pub publishers: usize,
    /// Record to a file in memory instead of discarding.
    pub record: bool,
    /// Wait for the next publisher after one has left.
    pub keep_listening: bool,
    /// Measure the age of stamped tags.
    pub latency: bool,
    /// Further routes on the port, without publishers.
    pub further_routes: usize,
    /// Count instructions, into this file.
    pub callgrind: Option<&'a Path>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            publishers: 1,
            record: false,
            keep_listening: false,
            latency: false,
            further_routes: 0,
            callgrind: None,
        }
    }
}

/// A server that listens.
pub struct Server {
    subject: Subject,
    process: Process,
    ports: Vec<u16>,
    /// Configuration and recordings, removed with it.
    folder: TempDir,
}

impl Server {
    pub fn start(subject: Subject, setup: Setup<'_>) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("rtmp2server-bench-")
            .tempdir_in(memory_folder())?;
        let recording = setup.record.then(|| folder.path().join("recording.flv"));
        let (process, ports) = match subject {
            Subject::Nginx => nginx::start(setup, folder.path())?,
            Subject::Srs => srs::start(setup, folder.path())?,
            _ => {
                let arguments = arguments(subject, setup, recording);
                let mut process = Process::start(process::itself()?, &arguments, setup.callgrind)?;
                let line = process.expect("ports ")?;
                let ports = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
                (process, ports)
            }
        };
        Ok(Self {
            subject,
            process,
            ports,
            folder,
        })
    }

    /// Address of publisher `number`.
    pub fn address(&self, number: usize) -> SocketAddr {
        let port = self.ports[number % self.ports.len()];
        ([127, 0, 0, 1], port).into()
    }

    pub fn cpu_time(&self) -> Result<Duration> {
        measure::cpu_time(self.process.id())
    }

    pub fn proportional_set_size(&self) -> Result<u64> {
        measure::proportional_set_size(self.process.id())
    }

    /// Waits until all data of the one publisher, which has left, has passed the server.
    ///
    /// nginx and SRS have finished with a publisher when they close the connection; tcpserversrc keeps
    /// it open.
    pub fn wait_until_done(&mut self, publisher: Publisher) -> Result<()> {
        if self.subject.is_foreign() {
            return publisher.wait_for_close();
        }
        self.process.expect("done").map(drop)
    }

    /// Size of all written files, the configuration's few bytes included.
    pub fn recorded(&self) -> Result<u64> {
        let files = std::fs::read_dir(self.folder.path())?;
        files.map(|file| Ok(file?.metadata()?.len())).sum()
    }

    /// Ages of stamped tags in nanoseconds: first keyframes, all others.
    pub fn ages(&mut self) -> Result<(Vec<u64>, Vec<u64>)> {
        self.process.write_line("ages")?;
        let line = self.process.expect("ages ")?;
        let (first, steady) = line.split_once("] ").unwrap_or_default();
        Ok((parse_list(first)?, parse_list(steady)?))
    }

    /// Stops all pipelines, and returns the time that it took. Publishers may be present.
    pub fn stop_pipelines(&mut self) -> Result<Duration> {
        self.process.write_line("stop")?;
        let nanoseconds = self.process.expect("stopped ")?;
        Ok(Duration::from_nanos(nanoseconds.parse()?))
    }

    /// Asks the process to exit, and waits for it.
    pub fn stop(mut self) -> Result<()> {
        self.process.stop(self.subject.is_foreign())
    }
}

fn arguments(subject: Subject, setup: Setup<'_>, recording: Option<PathBuf>) -> Vec<String> {
    let count = setup.publishers.to_string();
    let mut arguments: Vec<String> = Vec::new();
    let sink = recording.as_ref().map_or_else(
        || "fakesink sync=false".to_owned(),
        |path| format!("filesink location={}", path.display()),
    );
    match subject {
        Subject::ReadLoop => arguments.extend(["read-loop", "--count", &count].map(Into::into)),
        Subject::ReadThreads => {
            arguments.extend(["read-threads", "--count", &count].map(Into::into));
        }
        Subject::PushThreads => {
            arguments.extend(["push-threads", "--count", &count].map(Into::into));
        }
        Subject::OneCopy => {
            arguments.push("one-copy".into());
            if let Some(path) = recording {
                arguments.extend(["--record".into(), path.display().to_string()]);
            }
        }
        _ => {
            let is_one = subject == Subject::Rtmp2MultiServerSrc;
            let count = if is_one { "1" } else { &count };
            arguments.extend(["pipeline", "--count", count].map(Into::into));
            let further = setup.further_routes.to_string();
            arguments.extend(["--further-routes".into(), further]);
            if setup.latency {
                arguments.push("--latency".into());
            }
            let source = source(subject, setup);
            // Each pad gets its sink when it is added.
            arguments.push(if is_one {
                source
            } else {
                format!("{source} ! {sink}")
            });
        }
    }
    arguments
}

fn source(subject: Subject, setup: Setup<'_>) -> String {
    if subject == Subject::TcpServerSrc {
        return "tcpserversrc name=source host=127.0.0.1 port=0".into();
    }
    let limits = "max-clients=2000 max-clients-per-address=2000";
    if subject == Subject::Rtmp2MultiServerSrc {
        return format!(
            "rtmp2multiserversrc name=source host=127.0.0.1 port=0 max-streams=2000 {limits}"
        );
    }
    let mut source = format!("rtmp2serversrc name=source host=127.0.0.1 port={{port}} {limits}");
    if subject == Subject::Collecting {
        source += " delivery-interval=100";
    }
    source += " stream-key=";
    source += &stream_key_of("{n}");
    if setup.keep_listening {
        source += " keep-listening=true";
    }
    source
}

/// Stream key of publisher `number`.
pub fn stream_key(number: usize) -> String {
    stream_key_of(&number.to_string())
}

fn stream_key_of(number: &str) -> String {
    format!("key{number}")
}

/// Folder where recordings cost no disk.
fn memory_folder() -> PathBuf {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() {
        shared.into()
    } else {
        std::env::temp_dir()
    }
}

/// Initialises GStreamer with the element, as GST_PLUGIN_PATH would.
pub fn init_gstreamer() -> Result<()> {
    gst::init()?;
    gstrtmp2server::plugin_register_static()?;
    Ok(())
}

/// Raises the limit of open files: a thousand publishers need more than a shell allows by default.
pub fn allow_many_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(())
}

/// Parses numbers as Rust prints a list of them.
fn parse_list(text: &str) -> Result<Vec<u64>> {
    text.trim_matches(['[', ']'])
        .split(", ")
        .filter(|number| !number.is_empty())
        .map(|number| Ok(number.parse()?))
        .collect()
}

/// File of callgrind's counts for a subject.
pub fn callgrind_file(folder: &Path, scenario: &str, subject: Subject, run: &str) -> PathBuf {
    folder.join(format!(
        "callgrind.{scenario}.{}.{run}",
        subject.file_name()
    ))
}
