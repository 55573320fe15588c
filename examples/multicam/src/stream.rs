// SPDX-License-Identifier: MPL-2.0

//! One stream: a pipeline of its own, and a thread that starts it, handles its messages, and starts
//! it again when it has failed. No stream waits for another.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::journal::Level;
use dashboard::RejectedClients;
use dashboard::thumbnail::LastPicture;
use gst::prelude::*;
use gstrtmp2server::{FallbackStatus, StreamStatus};
use tokio::sync::mpsc::UnboundedSender;

use super::flv::Player;
use super::plan::{Name, Plan, Policy, Source};
use super::source::{self, Feeder};
use super::status::{Condition, SharedStatus, SourceState, StatusChange};

/// An event of a stream for the program.
#[derive(Debug)]
pub enum ProgramEvent {
    /// Each state once.
    Changed(Name, StatusChange),
    Stopped(Name),
    /// Publishers can connect there.
    Listening(String, u32),
    /// A line of the log.
    Line(Level, String),
}

/// Time for a server to learn of the end of a stream.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// A publisher that is gone for longer has left: its server learns of the end of the stream.
const MAX_ABSENCE: Duration = Duration::from_secs(10);

/// A pipeline that ran for this long was a good one.
const GOOD: Duration = Duration::from_secs(10);

/// State that all streams share.
#[derive(Clone)]
pub struct Context {
    pub ports: Arc<Ports>,
    pub refusals: Arc<RejectedClients>,
    /// No publisher is accepted any more.
    pub is_draining: Arc<AtomicBool>,
    pub events: UnboundedSender<ProgramEvent>,
}

/// The port that was bound for each host and port of the configuration, whose port may be 0. All
/// streams share it.
#[derive(Debug, Default)]
pub struct Ports(Mutex<HashMap<(String, u16), u32>>);

/// The handle of a stream.
pub struct StreamHandle {
    plan: Plan,
    shared: Arc<SharedStatus>,
    inputs: Sender<StreamInput>,
    thread: JoinHandle<()>,
}

enum StreamInput {
    /// A message of the pipeline with this number.
    Message(u64, gst::Message),
    Play(Plan),
    Stop,
}

impl StreamHandle {
    pub fn start(plan: Plan, context: &Context) -> io::Result<Self> {
        let shared = Arc::new(SharedStatus::new(plan.name.clone(), first_status(&plan)));
        let (inputs, receiver) = channel();
        let worker = Worker {
            plan: plan.clone(),
            shared: shared.clone(),
            context: context.clone(),
            inputs: receiver,
            sender: inputs.clone(),
            generation: 0,
            delay: None,
        };
        let thread = thread::Builder::new().name(plan.name.to_string());
        let thread = thread.spawn(move || worker.run())?;
        Ok(StreamHandle {
            plan,
            shared,
            inputs,
            thread,
        })
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn shared(&self) -> &Arc<SharedStatus> {
        &self.shared
    }

    /// Starts it again with this plan.
    pub fn replace(&mut self, plan: Plan) {
        self.plan = plan.clone();
        self.post(StreamInput::Play(plan));
    }

    /// Asks it to end; [`ProgramEvent::Stopped`] follows.
    pub fn stop(&self) {
        self.post(StreamInput::Stop);
    }

    /// Waits for its end.
    pub fn join(self) {
        // A panic was printed.
        let _ = self.thread.join();
    }

    fn post(&self, input: StreamInput) {
        // Its thread reads everything until it was stopped.
        let _ = self.inputs.send(input);
    }
}

fn first_status(plan: &Plan) -> Condition {
    Condition::new(match plan.source {
        Source::Rtmp { .. } | Source::File { .. } => SourceState::Waiting,
        Source::Test(_) => SourceState::Active,
    })
}

struct Worker {
    plan: Plan,
    shared: Arc<SharedStatus>,
    context: Context,
    inputs: Receiver<StreamInput>,
    sender: Sender<StreamInput>,
    /// Number of the present pipeline.
    generation: u64,
    /// Delay before the last restart.
    delay: Option<Duration>,
}

/// The reason why a pipeline is over.
enum EndReason {
    Failed(String),
    /// The file was sent.
    Ended,
    /// The publisher has left.
    Left,
    Asked(Command),
}

enum Command {
    Play(Plan),
    Stop,
}

impl Worker {
    /// The thread.
    fn run(mut self) {
        while let Command::Play(plan) = self.play() {
            self.plan = plan;
            self.delay = None;
            self.shared.start_over(first_status(&self.plan));
        }
        let _ = self
            .context
            .events
            .send(ProgramEvent::Stopped(self.plan.name.clone()));
    }

    /// Plays until there is another command.
    fn play(&mut self) -> Command {
        loop {
            let start = Instant::now();
            let end = match RunningPipeline::start(self) {
                Ok(running) => self.attend(running),
                Err(reason) => EndReason::Failed(reason),
            };
            let command = match end {
                EndReason::Asked(command) => Some(command),
                EndReason::Ended => {
                    self.update(|status| *status = Condition::new(SourceState::Ended));
                    self.wait(None)
                }
                EndReason::Left => {
                    // The next start reports that publishers can connect.
                    self.delay = None;
                    continue;
                }
                EndReason::Failed(reason) => {
                    if start.elapsed() >= GOOD {
                        self.delay = None;
                    }
                    let delay = next_delay(self.delay, &self.plan.retry);
                    self.delay = Some(delay);
                    self.update(|status| {
                        *status = Condition::new(SourceState::Failed);
                        status.error = reason;
                    });
                    self.wait(Some(delay))
                }
            };
            if let Some(command) = command {
                return command;
            }
            self.shared.count_restart();
        }
    }

    /// Waits for a command; `None` after the timeout.
    fn wait(&self, time: Option<Duration>) -> Option<Command> {
        let deadline = time.map(|time| Instant::now() + time);
        loop {
            match self.receive(deadline) {
                Some(StreamInput::Play(plan)) => return Some(Command::Play(plan)),
                Some(StreamInput::Stop) => return Some(Command::Stop),
                Some(StreamInput::Message(..)) => {}
                None => return None,
            }
        }
    }

    /// Returns `None` after the timeout.
    fn receive(&self, deadline: Option<Instant>) -> Option<StreamInput> {
        let Some(deadline) = deadline else {
            // This thread has a sender itself.
            return self.inputs.recv().ok();
        };
        let time = deadline.saturating_duration_since(Instant::now());
        self.inputs.recv_timeout(time).ok()
    }

    fn attend(&mut self, mut running: RunningPipeline) -> EndReason {
        // Who reads that it waits may publish: it listens since it plays.
        let status = first_status(&self.plan);
        // The reason of the restart stays until things are better.
        self.update(|present| {
            let error = std::mem::take(&mut present.error);
            *present = Condition { error, ..status };
        });
        let end = loop {
            let deadline = running.gone_since.map(|since| since + MAX_ABSENCE);
            match self.receive(deadline) {
                Some(StreamInput::Message(generation, message))
                    if generation == self.generation =>
                {
                    if let Some(end) = self.handle(&mut running, &message) {
                        break end;
                    }
                }
                Some(StreamInput::Message(..)) => {}
                Some(StreamInput::Play(plan)) => break EndReason::Asked(Command::Play(plan)),
                Some(StreamInput::Stop) => break EndReason::Asked(Command::Stop),
                None => break EndReason::Left,
            }
        };
        match end {
            EndReason::Asked(command) => {
                EndReason::Asked(self.finish_at_server(&running).unwrap_or(command))
            }
            EndReason::Left => self
                .finish_at_server(&running)
                .map_or(EndReason::Left, EndReason::Asked),
            end => end,
        }
    }

    /// Ends the stream in an orderly way, where a server is there to learn of it. Returns a command
    /// that came meanwhile.
    fn finish_at_server(&mut self, running: &RunningPipeline) -> Option<Command> {
        let mut command = None;
        if self.shared.state().status.sink != FallbackStatus::Connected {
            return command;
        }
        running.pipeline.send_event(gst::event::Eos::new());
        let deadline = Instant::now() + FINISH_TIMEOUT;
        while let Some(input) = self.receive(Some(deadline)) {
            match input {
                StreamInput::Message(generation, message) if generation == self.generation => {
                    use gst::MessageType;
                    if matches!(message.type_(), MessageType::Eos | MessageType::Error) {
                        break;
                    }
                }
                StreamInput::Message(..) => {}
                StreamInput::Play(plan) => command = Some(Command::Play(plan)),
                StreamInput::Stop => command = Some(Command::Stop),
            }
        }
        command
    }

    fn handle(
        &mut self,
        running: &mut RunningPipeline,
        message: &gst::Message,
    ) -> Option<EndReason> {
        match message.view() {
            gst::MessageView::Error(error) => {
                return Some(EndReason::Failed(error.error().message().to_owned()));
            }
            gst::MessageView::Eos(_) => {
                return Some(match self.plan.source {
                    Source::File { .. } => EndReason::Ended,
                    Source::Rtmp { .. } if self.is_draining() => EndReason::Ended,
                    _ => EndReason::Failed("The source has ended".to_owned()),
                });
            }
            gst::MessageView::Element(element) => {
                let structure = element.structure()?;
                match structure.name().as_str() {
                    "rtmp2-fallback-status" => return self.handle_sink(running, structure),
                    "rtmp2-stream-status" => self.handle_source(running, structure),
                    "rtmp2-stream-event" => {
                        dashboard::watch::log_message(&self.plan.name.to_string(), structure);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        None
    }

    fn handle_sink(
        &mut self,
        running: &mut RunningPipeline,
        message: &gst::StructureRef,
    ) -> Option<EndReason> {
        let sink = message.get("status").unwrap_or_default();
        let begins = sink == FallbackStatus::Connected && running.player.is_some();
        self.update(|status| {
            if begins {
                status.source = SourceState::Active;
            }
            status.sink = sink;
            status.index = message.get("location-index").unwrap_or(-1);
            status.location = message.get("location").unwrap_or_default();
            status.error = message.get("last-error").unwrap_or_default();
        });
        if sink == FallbackStatus::Connected
            && let Some(player) = running.player.take()
        {
            match Feeder::start(&running.source, player) {
                Ok(feeder) => running.feeder = Some(feeder),
                Err(error) => return Some(EndReason::Failed(error.to_string())),
            }
        }
        None
    }

    fn handle_source(&self, running: &mut RunningPipeline, message: &gst::StructureRef) {
        let state = match message.get("stream-status") {
            Ok(StreamStatus::Active) => SourceState::Active,
            Ok(StreamStatus::Reconfiguring) => SourceState::Starting,
            Ok(StreamStatus::Paused) => SourceState::Stalled,
            _ => SourceState::Waiting,
        };
        let is_gone = state == SourceState::Waiting && running.has_sink();
        running.gone_since = is_gone.then(|| running.gone_since.unwrap_or_else(Instant::now));
        self.update(|status| status.source = state);
    }

    fn is_draining(&self) -> bool {
        self.context.is_draining.load(Ordering::SeqCst)
    }

    fn update(&self, change: impl FnOnce(&mut Condition)) {
        if let Some(state) = self.shared.update(change) {
            self.post(state);
        }
    }

    fn post(&self, state: StatusChange) {
        // The program may have ended.
        let name = self.plan.name.clone();
        let _ = self.context.events.send(ProgramEvent::Changed(name, state));
    }
}

/// Doubles from the initial to the maximal delay.
fn next_delay(last: Option<Duration>, policy: &Policy) -> Duration {
    let millis = |millis: u32| Duration::from_millis(millis.into());
    let first = millis(policy.initial_delay_ms);
    last.map_or(first, |last| last.saturating_mul(2))
        .min(millis(policy.max_delay_ms))
}

/// A pipeline that plays.
struct RunningPipeline {
    shared: Arc<SharedStatus>,
    pipeline: gst::Pipeline,
    source: gst::Element,
    /// With a publisher as source, it is part of the pipeline only while there is one.
    sink: gst::Element,
    /// Time at which the publisher left.
    gone_since: Option<Instant>,
    /// A file that no server has accepted yet.
    player: Option<Player>,
    feeder: Option<Feeder>,
}

impl RunningPipeline {
    fn start(worker: &mut Worker) -> Result<Self, String> {
        let plan = &worker.plan;
        let player = match &plan.source {
            Source::File { path, is_loop } => Some(source::open(path, *is_loop)?),
            _ => None,
        };
        let source = source::make(&plan.source).map_err(|error| error.message().to_owned())?;
        let sink = make_sink(plan).map_err(|error| error.to_string())?;
        let pipeline = gst::Pipeline::new();
        pipeline.add(&source).map_err(|error| error.to_string())?;
        let branch = SinkBranch {
            pipeline: pipeline.downgrade(),
            sink: sink.clone(),
            shared: worker.shared.clone(),
        };
        match plan.source {
            Source::Rtmp { .. } => branch.attach_at_first_media(&source)?,
            _ => branch.attach(&source).map_err(|error| error.to_string())?,
        }
        worker.watch_source(&source);
        worker.generation += 1;
        let failure = listen(
            &pipeline,
            worker.generation,
            &worker.sender,
            &worker.context.refusals,
        )?;
        let running = RunningPipeline {
            shared: worker.shared.clone(),
            pipeline,
            source,
            sink,
            gone_since: None,
            player,
            feeder: None,
        };
        worker.begin(&running).map_err(|_| {
            let reason = failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            reason.unwrap_or_else(|| "The pipeline does not start".to_owned())
        })?;
        Ok(running)
    }

    /// Returns whether a publisher has sent media.
    fn has_sink(&self) -> bool {
        self.sink.parent().is_some()
    }

    fn play(&self) -> Result<(), gst::StateChangeError> {
        self.pipeline.set_state(gst::State::Playing).map(|_| ())
    }
}

impl Drop for RunningPipeline {
    fn drop(&mut self) {
        self.shared.set_source(None, None);
        self.shared.detach();
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
            bus.set_flushing(true);
        }
        let _ = self.pipeline.set_state(gst::State::Null);
        // A publisher may have come just then.
        self.shared.detach();
        let _ = self.sink.set_state(gst::State::Null);
        if let Some(feeder) = self.feeder.take() {
            feeder.join();
        }
    }
}

/// The sink end of a pipeline.
struct SinkBranch {
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
    sink: gst::Element,
    shared: Arc<SharedStatus>,
}

impl SinkBranch {
    fn attach(&self, source: &gst::Element) -> Result<(), gst::glib::BoolError> {
        let Some(pipeline) = self.pipeline.upgrade() else {
            return Ok(());
        };
        pipeline.add(&self.sink)?;
        self.shared.attach(&self.sink);
        self.sink.sync_state_with_parent()?;
        source.link(&self.sink)
    }

    /// Servers learn of a stream when there is one: the sink connects as soon as it plays. Media
    /// that comes before a server has accepted it waits in the sink.
    fn attach_at_first_media(self, source: &gst::Element) -> Result<(), String> {
        let pad = source.static_pad("src").ok_or("A source has a pad")?;
        use gst::PadProbeType;
        let kinds = PadProbeType::BLOCK | PadProbeType::BUFFER | PadProbeType::BUFFER_LIST;
        let probe = pad.add_probe(kinds, move |pad, info| {
            // Headers are in the caps too, which the sink gets then.
            let is_header =
                |buffer: &gst::BufferRef| buffer.flags().contains(gst::BufferFlags::HEADER);
            let has_media = match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => !is_header(buffer),
                Some(gst::PadProbeData::BufferList(list)) => !list.iter().all(is_header),
                _ => false,
            };
            if !has_media {
                return gst::PadProbeReturn::Drop;
            }
            let source = pad.parent_element();
            if let Some(source) = source
                && let Err(error) = self.attach(&source)
            {
                gst::element_error!(source, gst::CoreError::StateChange, ("{error}"));
                return gst::PadProbeReturn::Drop;
            }
            gst::PadProbeReturn::Remove
        });
        probe
            .map(|_| ())
            .ok_or_else(|| "A pad takes a probe".to_owned())
    }
}

/// Sends the messages of the pipeline to the thread, and keeps the first error.
fn listen(
    pipeline: &gst::Pipeline,
    generation: u64,
    sender: &Sender<StreamInput>,
    refusals: &Arc<RejectedClients>,
) -> Result<Arc<Mutex<Option<String>>>, String> {
    let bus = pipeline.bus().ok_or("A pipeline has a bus")?;
    let failure = Arc::new(Mutex::new(None));
    let (kept, sender, refusals) = (failure.clone(), sender.clone(), refusals.clone());
    bus.set_sync_handler(move |_, message| {
        dashboard::watch::log_warning(&refusals, message);
        if let gst::MessageView::Error(error) = message.view()
            && let Ok(mut kept) = kept.lock()
        {
            kept.get_or_insert_with(|| error.error().message().to_owned());
        }
        let is_wanted = matches!(
            message.type_(),
            gst::MessageType::Error | gst::MessageType::Eos | gst::MessageType::Element
        );
        if is_wanted {
            let _ = sender.send(StreamInput::Message(generation, message.clone()));
        }
        gst::BusSyncReply::Drop
    });
    Ok(failure)
}

impl Worker {
    /// Shows the source to operators.
    fn watch_source(&self, source: &gst::Element) {
        if let Source::Rtmp { .. } = self.plan.source {
            let name = self.plan.name.to_string();
            let refusals = &self.context.refusals;
            dashboard::watch::watch(source, refusals, move |_| name.clone());
            self.shared.set_source(Some(source.clone()), None);
            // After it can be seen, so that a drain of all streams misses none.
            if self.is_draining() {
                source.set_property("drain", true);
            }
        } else if let Some(pad) = source::raw_pad(source) {
            let picture = Arc::new(LastPicture::default());
            picture.watch(&pad);
            self.shared.set_source(None, Some(picture));
        }
    }

    /// The first of the streams that listen on any free port binds it, and the others wait for it.
    fn begin(&self, running: &RunningPipeline) -> Result<(), gst::StateChangeError> {
        let Source::Rtmp { host, port, .. } = &self.plan.source else {
            return running.play();
        };
        let key = (host.clone(), *port);
        let ports = &self.context.ports.0;
        let mut ports = ports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(port) = ports.get(&key) {
            running.source.set_property("port", port);
            drop(ports);
            return running.play();
        }
        running.play()?;
        let port: u32 = running.source.property("current-port");
        ports.insert(key, port);
        drop(ports);
        let _ = self
            .context
            .events
            .send(ProgramEvent::Listening(host.clone(), port));
        Ok(())
    }
}

fn make_sink(plan: &Plan) -> Result<gst::Element, gst::glib::BoolError> {
    // Only a file delivers faster than it is to be sent.
    let is_file = matches!(plan.source, Source::File { .. });
    let retry = &plan.retry;
    gst::ElementFactory::make("rtmp2fallbacksink")
        .property("locations", &plan.urls)
        .property("retry-initial-delay", retry.initial_delay_ms)
        .property("retry-max-delay", retry.max_delay_ms)
        .property("max-attempts", retry.max_attempts)
        .property("return-to-primary", retry.return_to_primary_ms)
        .property("connect-timeout", retry.timeout_ms)
        .property("send-timeout", retry.timeout_ms)
        .property("sync", is_file)
        .property("async", false)
        .build()
}

#[test]
fn delays_double_up_to_the_maximum() {
    let policy = Policy {
        initial_delay_ms: 1000,
        max_delay_ms: 5000,
        max_attempts: 0,
        return_to_primary_ms: 0,
        timeout_ms: 5000,
    };
    let delays = std::iter::successors(Some(next_delay(None, &policy)), |last| {
        Some(next_delay(Some(*last), &policy))
    });
    let seconds: Vec<u64> = delays.take(5).map(|delay| delay.as_secs()).collect();
    assert_eq!(seconds, [1, 2, 4, 5, 5]);
}
