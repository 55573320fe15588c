// SPDX-License-Identifier: MPL-2.0

//! Starts and stops streams as the configuration demands, and shows their status.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::cameras::Cameras;
use super::changes::Changes;
use super::metrics::MetricsSource;
use super::options::Options;
use super::plan::{self, Plan};
use super::screen::Screen;
use super::stream::{Context, Ports, ProgramEvent, StreamHandle};
use common::connection::LimitedListener;
use common::journal::{self, Level};
use common::{statistics, supervisor};
use dashboard::Board;

/// Time for all streams together to end.
const MAX_END: Duration = Duration::from_secs(15);

/// Signals within this time are one: a supervisor may signal a process and its group, which
/// includes it.
const SAME: Duration = Duration::from_secs(1);

/// Interval on a terminal.
const REPAINT: Duration = Duration::from_secs(1);

/// Concurrent requests for metrics; more have to wait.
const MAX_CONNECTIONS: usize = 16;

/// Time for each request.
const PATIENCE: Duration = Duration::from_secs(10);

pub struct Program {
    options: Options,
    context: Context,
    events: UnboundedReceiver<ProgramEvent>,
    /// Streams in the order of the configuration.
    streams: Vec<StreamHandle>,
    /// Streams that stop, and have not ended yet.
    stopping: Vec<StreamHandle>,
    board: Arc<MetricsSource>,
    screen: Screen,
}

/// Signals that end or change the program.
struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for a signal that ends the program.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {},
            _ = self.terminate.recv() => {},
        }
    }

    /// Waits for another signal after the one that came at `began`: the user is impatient.
    async fn second_end(&mut self, began: Instant) {
        self.end().await;
        while began.elapsed() < SAME {
            self.end().await;
        }
    }
}

impl Program {
    pub fn new(options: Options) -> Self {
        let (sender, events) = unbounded_channel();
        let lines = sender.clone();
        // A terminal shows them above the table, until the program has ended.
        journal::set_output(move |level, line| {
            match lines.send(ProgramEvent::Line(level, line)).err()?.0 {
                ProgramEvent::Line(_, line) => Some(line),
                _ => None,
            }
        });
        Program {
            options,
            context: Context {
                ports: Arc::new(Ports::default()),
                refusals: Arc::default(),
                is_draining: Arc::default(),
                events: sender,
            },
            events,
            streams: Vec::new(),
            stopping: Vec::new(),
            board: Arc::new(MetricsSource::new()),
            screen: Screen::new(),
        }
    }

    /// Runs until a signal ends it.
    pub async fn run(mut self, plans: Vec<Plan>) -> io::Result<()> {
        let mut signals = Signals::new()?;
        self.serve_page().await?;
        self.serve_metrics().await?;
        self.apply(plans)?;
        supervisor::report_ready();
        let period = match (self.screen.is_terminal(), self.options.interval) {
            (true, _) => Some(REPAINT),
            (false, 0) => None,
            (false, seconds) => Some(Duration::from_secs(seconds)),
        };
        let mut ticks = period.map(interval);
        if let Some(ticks) = &mut ticks {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        }
        loop {
            tokio::select! {
                Some(event) = self.events.recv() => self.handle(event),
                () = next(&mut ticks) => self.show_all(),
                // A user who closes a terminal does not ask for another configuration.
                _ = signals.hangup.recv() => match self.screen.is_gone() {
                    true => break,
                    false => self.reload()?,
                },
                _ = signals.interrupt.recv() => break,
                _ = signals.terminate.recv() => break,
            }
        }
        supervisor::report_stopping();
        let began = Instant::now();
        tokio::select! {
            // A signal that has arrived already is the same one, however long the rest takes.
            biased;
            () = signals.second_end(began) => Err(ended_at_once()),
            ended = self.end() => ended,
        }
    }

    async fn serve_page(&mut self) -> io::Result<()> {
        let Some(address) = self.options.http else {
            return Ok(());
        };
        let cameras = Arc::new(Cameras::new(&self.board, &self.context));
        let refusals = self.context.refusals.clone();
        let board = Board::new("rtmp2-multicam", cameras, refusals, &self.options.dashboard);
        let board = board.map_err(io::Error::other)?;
        let named = |error: io::Error| {
            let text = format!("--http {address}: {error}");
            io::Error::new(error.kind(), text)
        };
        let socket = TcpListener::bind(address).await.map_err(named)?;
        let address = socket.local_addr()?;
        self.print("serving", format!("page on http://{address}/"));
        tokio::spawn(dashboard::web::serve(socket, board));
        Ok(())
    }

    /// Prints a line of the program itself.
    fn print(&mut self, event: &'static str, text: String) {
        self.screen.print(&journal::info(event).line(text));
    }

    fn warn(&mut self, text: &str) {
        self.screen
            .warn(&journal::warning("configuration").line(text));
    }

    async fn serve_metrics(&mut self) -> io::Result<()> {
        let Some(address) = self.options.metrics else {
            return Ok(());
        };
        let named = |error: io::Error| {
            let text = format!("--metrics {address}: {error}");
            io::Error::new(error.kind(), text)
        };
        let socket = TcpListener::bind(address).await.map_err(named)?;
        let address = socket.local_addr()?;
        self.print("serving", format!("metrics on http://{address}/metrics"));
        let board = self.board.clone();
        let answer = get(move || async move { statistics::respond(board.families()) });
        let router = Router::new().route("/metrics", answer);
        let listener = LimitedListener::new(socket, MAX_CONNECTIONS, PATIENCE);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(())
    }

    fn reload(&mut self) -> io::Result<()> {
        match plan::load(&self.options.file) {
            Ok(plans) => {
                self.board.set_configuration(true);
                self.apply(plans)
            }
            Err(error) => {
                self.board.set_configuration(false);
                self.warn(&error.to_string());
                self.warn("the configuration was not changed; correct it, and send SIGHUP again");
                self.repaint();
                Ok(())
            }
        }
    }

    /// Starts and stops the streams that differ. A stream that takes over a server or a route from
    /// another one tries again until that one has left it.
    fn apply(&mut self, plans: Vec<Plan>) -> io::Result<()> {
        let changes = Changes::between(self.streams.iter().map(StreamHandle::plan), &plans);
        for name in &changes.removed {
            let index = self.streams.iter().position(|s| s.plan().name == *name);
            if let Some(index) = index {
                let stream = self.streams.remove(index);
                stream.stop();
                self.stopping.push(stream);
            }
        }
        let counts = (
            changes.added.len(),
            changes.changed.len(),
            changes.removed.len(),
        );
        for plan in changes.changed {
            let stream = self.streams.iter_mut();
            if let Some(stream) = stream.into_iter().find(|s| s.plan().name == plan.name) {
                stream.replace(plan);
            }
        }
        for plan in changes.added {
            self.streams.push(StreamHandle::start(plan, &self.context)?);
        }
        let place = |stream: &StreamHandle| plans.iter().position(|p| p.name == stream.plan().name);
        self.streams.sort_by_key(place);
        let streams = self.streams.iter().map(|stream| stream.shared().clone());
        self.board.set_streams(streams.collect());
        let (added, changed, removed) = counts;
        let kept = self.streams.len() - added - changed;
        let text = format!(
            "streams: {added} added, {changed} changed, {removed} removed, {kept} untouched"
        );
        self.print("streams", text);
        self.repaint();
        Ok(())
    }

    fn handle(&mut self, event: ProgramEvent) {
        match event {
            ProgramEvent::Listening(host, port) => {
                // The form that URLs use.
                let host = if host.contains(':') {
                    format!("[{host}]")
                } else {
                    host
                };
                self.print("listening", format!("listening on rtmp://{host}:{port}/"));
            }
            ProgramEvent::Changed(name, state) if !self.screen.is_terminal() => {
                let stream = self.streams.iter().find(|s| s.plan().name == name);
                if let Some(stream) = stream {
                    let entry = journal::info("state").with("stream", name.to_string());
                    let text = stream.shared().line_of(state);
                    self.screen.print(&entry.line(text));
                }
            }
            ProgramEvent::Changed(..) => {}
            ProgramEvent::Line(Level::Info, line) => self.screen.print(&line),
            ProgramEvent::Line(Level::Warning, line) => self.screen.warn(&line),
            ProgramEvent::Stopped(name) => {
                let is_it = |stream: &mut StreamHandle| stream.plan().name == name;
                // Its thread has nothing more to do.
                self.stopping
                    .extract_if(.., is_it)
                    .for_each(StreamHandle::join);
                let entry = journal::info("stopped").with("stream", name.to_string());
                self.screen.print(&entry.line(format!("{name}: stopped")));
            }
        }
        self.repaint();
    }

    fn show_all(&mut self) {
        if self.screen.is_terminal() {
            return self.repaint();
        }
        for stream in &self.streams {
            let entry = journal::info("state").with("stream", stream.plan().name.to_string());
            self.screen.print(&entry.line(stream.shared().line()));
        }
    }

    fn repaint(&mut self) {
        if self.screen.is_terminal() {
            let rows = self.streams.iter().map(|stream| stream.shared().row());
            self.screen.paint(&rows.collect::<Vec<_>>());
        }
    }

    /// Ends all streams, and waits for that.
    async fn end(&mut self) -> io::Result<()> {
        self.streams.iter().for_each(StreamHandle::stop);
        self.stopping.append(&mut self.streams);
        self.repaint();
        let deadline = Instant::now() + MAX_END;
        while !self.stopping.is_empty() {
            match timeout_at(deadline, self.events.recv()).await {
                Ok(Some(event)) => self.handle(event),
                Ok(None) | Err(_) => {
                    let names = self.stopping.iter().map(|s| s.plan().name.to_string());
                    let names: Vec<String> = names.collect();
                    let text = format!("these streams did not end: {}", names.join(", "));
                    return Err(io::Error::other(text));
                }
            }
        }
        Ok(())
    }
}

fn ended_at_once() -> io::Error {
    io::Error::new(
        io::ErrorKind::Interrupted,
        "ended at once, by a second signal",
    )
}

async fn next(ticks: &mut Option<tokio::time::Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}
