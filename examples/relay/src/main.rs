// SPDX-License-Identifier: MPL-2.0

//! Accepts RTMP publishers, cleans their media, and serves it as HLS.

mod access;
mod catalog;
mod cleaner;
mod encoder;
mod frame_rate;
mod health;
mod ingest;
mod lag;
mod mailbox;
mod metrics;
mod notify;
mod options;
mod packager;
mod passthrough;
mod reconnect;
mod rendezvous;
mod segment_store;
mod segmenter;
mod stream;
mod streams;
mod ts;
mod web;

use std::error::Error;
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use catalog::Catalog;
use common::{journal, supervisor};
use dashboard::{Board, RejectedClients};
use health::Health;
use ingest::Ingest;
use notify::{DeliveryCounters, Receiver};
use options::{HostPort, Options};
use reconnect::Reconnect;
use rendezvous::Placement;
use streams::{Settings, Streams};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use web::{Served, Site};

/// The lock file of the process that uses the directory of all streams.
const LOCK_FILE: &str = ".relay.lock";

/// Time to stop within. Supervisors kill after 10 s.
const MAX_STOP_TIME: Duration = Duration::from_secs(9);

/// The same signal within this time counts as one signal.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Signals that end the program.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }

    /// Returns at a second signal: the user does not want to wait.
    async fn another(&mut self, first: SignalKind) {
        let start = Instant::now();
        // Supervisors signal a process and its group: that is one signal.
        while self.next().await == first && start.elapsed() < SAME_SIGNAL {}
    }
}

fn main() -> ExitCode {
    let options = Options::read();
    options.dashboard.start_log();
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return journal::exit_code(Err(error)),
    };
    let result = runtime.block_on(run(options));
    // Does not wait for threads that wait for others: an unanswered notification, or a disk that
    // hangs.
    runtime.shutdown_background();
    journal::exit_code(result)
}

async fn run(options: Options) -> Result<(), Box<dyn Error>> {
    gst::init()?;
    gstrtmp2server::plugin_register_static()?;
    let mut signals = Signals::new()?;
    std::fs::create_dir_all(&options.directory)
        .map_err(|error| format!("--directory {}: {error}", options.directory.display()))?;
    // Kept until the end, which releases it.
    let _lock = lock_directory(&options.directory)?;
    health::write(&options.directory).map_err(|error| {
        let directory = options.directory.display();
        format!("--directory {directory}: it is not writable: {error}")
    })?;
    let socket = TcpListener::bind(options.http)
        .await
        .map_err(|error| format!("--http {}: {error}", options.http))?;
    let local = socket.local_addr()?;
    let base = options.public_base(local);

    let (catalog, changes) = Catalog::new();
    let catalog = Arc::new(catalog);
    let ring = Placement::new(options.relays.clone(), options.this_relay.clone());
    let site = Arc::new(Site {
        catalog: catalog.clone(),
        directory: options.directory.clone(),
        base: base.clone(),
        hls_js: web::read_hls_js(&options.hls_js),
        health: Arc::new(Health::new(options.directory.clone(), catalog.clone())),
        deliveries: Arc::new(DeliveryCounters::default()),
        reconnect: Arc::new(Reconnect::new(ring)),
    });
    let receiver = options.notify.clone().map(|url| Receiver {
        url,
        secret: options.notify_secret.clone(),
        base,
    });
    let (end, has_ended) = oneshot::channel::<()>();
    let has_ended = async {
        let _ = has_ended.await;
    };
    let telling = notify::run(changes, receiver, site.deliveries.clone(), has_ended);
    let telling = tokio::spawn(telling);
    journal::info("serving").say(format!("page on http://{local}/"));

    let streams = Streams::new(Settings {
        catalog,
        directory: options.directory.clone(),
        base: site.base.clone(),
        passthrough: options.passthrough,
    });
    let streams =
        streams.map_err(|error| format!("--directory {}: {error}", options.directory.display()))?;
    let refusals = Arc::new(RejectedClients::default());
    let (ingest, port) = Ingest::start(&options, &streams, &site, &refusals)?;
    let publishers = ingest.publishers(&site);
    let board = Board::new("rtmp2-relay", publishers, refusals, &options.dashboard)?;
    tokio::spawn(board.clone().run());
    let served = Served {
        site,
        board: Some(board),
    };
    let bound = HostPort {
        port,
        ..options.rtmp.clone()
    };
    let scheme = options.access.scheme();
    journal::info("listening").say(format!("listening on {scheme}://{bound}/"));
    supervisor::report_ready();

    let (close, closed) = oneshot::channel::<()>();
    let closed = async {
        let _ = closed.await;
    };
    let mut serving = pin!(web::serve(socket, served, closed));
    let first = tokio::select! {
        result = &mut serving => return Ok(result?),
        signal = signals.next() => signal,
    };
    supervisor::report_stopping();
    drop(close);
    let farewell = async {
        let stopping = tokio::task::spawn_blocking(move || {
            // Before their publishers are cut off, which would end the streams: the next process
            // continues them.
            streams.stop();
            drop(ingest);
        });
        let (served, stopped) = tokio::join!(serving, stopping);
        served?;
        stopped?;
        // All notifications are on their way.
        drop(end);
        Ok(telling.await?)
    };
    tokio::select! {
        result = farewell => result,
        () = tokio::time::sleep(MAX_STOP_TIME) => Err(too_long().into()),
        () = signals.another(first) => Err("ended at once, by a second signal".into()),
    }
}

/// Locks the directory: two relays would remove each other's files.
fn lock_directory(directory: &Path) -> Result<File, String> {
    let failure = |error: &dyn Error| {
        let directory = directory.display();
        format!("--directory {directory}: it is not writable: {error}")
    };
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    let file = options.open(directory.join(LOCK_FILE));
    let file = file.map_err(|error| failure(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let directory = directory.display();
            Err(format!(
                "--directory {directory}: another relay uses it. Give each relay a directory of its own"
            ))
        }
        Err(TryLockError::Error(error)) => Err(failure(&error)),
    }
}

fn too_long() -> String {
    let seconds = MAX_STOP_TIME.as_secs();
    format!(
        "ended after {seconds} s, before all streams were written: their last segments may be missing"
    )
}
