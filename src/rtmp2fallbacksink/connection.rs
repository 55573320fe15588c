// SPDX-License-Identifier: MPL-2.0

//! A connection to one server: an rtmp2sink of its own, and a thread that feeds it. Neither is part
//! of the pipeline, so that their failures do not affect it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use gst::prelude::*;
use parking_lot::Mutex;

use super::CAT;
use super::coordinator::{BufferTag, Coordinator, DriverEvent, NextStep};
use super::location::Location;
use super::schedule::AttemptId;
use super::sockets::SocketSnapshot;
use super::tags::{self, OutputClock};

/// Large, so that a frame is split into few chunks.
const CHUNK_SIZE: u32 = 65_536;

/// A failure to start a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no rtmp2sink element: install GStreamer's \"bad\" plugins")]
    NoSink(#[from] gst::glib::BoolError),
    #[error("rtmp2sink failed to start")]
    State(#[from] gst::StateChangeError),
    #[error("rtmp2sink could not be linked")]
    Link(#[from] gst::PadLinkError),
    #[error("failed to start a thread: {0}")]
    Thread(#[from] io::Error),
}

#[derive(Debug)]
pub(super) struct ServerConnection {
    sink: gst::Element,
    pad: gst::Pad,
    bus: gst::Bus,
    thread: Option<JoinHandle<()>>,
}

impl ServerConnection {
    /// Starts to connect. The result is posted to the driver.
    pub(super) fn open(
        id: AttemptId,
        location: &Arc<Location>,
        coordinator: &Arc<Coordinator>,
    ) -> Result<Self, ConnectError> {
        // The driver enforces the timeout.
        let sink = gst::ElementFactory::make("rtmp2sink")
            .property("location", location.url())
            .property("async-connect", true)
            .property("async", false)
            .property("sync", false)
            .property("enable-last-sample", false)
            .property("chunk-size", CHUNK_SIZE)
            .property("timeout", 0u32)
            .build()?;
        let bus = gst::Bus::new();
        let reported_error = Arc::new(Mutex::new(None));
        let is_ending = Arc::new(AtomicBool::new(false));
        bus.set_sync_handler({
            let (reported_error, is_ending) = (reported_error.clone(), is_ending.clone());
            let (location, coordinator) = (location.clone(), coordinator.clone());
            move |_, message| {
                if let gst::MessageView::Error(error) = message.view()
                    && !is_ending.load(Ordering::Acquire)
                {
                    let reason = reason(error, &location);
                    reported_error.lock().get_or_insert_with(|| reason.clone());
                    coordinator.post(DriverEvent::Failed(id, reason));
                }
                gst::BusSyncReply::Drop
            }
        });
        sink.set_bus(Some(&bus));
        let target = sink.static_pad("sink");
        let pad = gst::Pad::builder(gst::PadDirection::Src)
            .name("src")
            .build();
        if let Some(target) = target {
            pad.link(&target)?;
        }
        let mut connection = ServerConnection {
            sink,
            pad,
            bus,
            thread: None,
        };
        connection.pad.set_active(true)?;
        let known_sockets = SocketSnapshot::now();
        connection.sink.set_state(gst::State::Playing)?;
        let feeder = Feeder {
            id,
            pad: connection.pad.clone(),
            coordinator: coordinator.clone(),
            reported_error,
            is_ending,
            known_sockets,
            port: location.port(),
            version: 0,
            clock: OutputClock::default(),
        };
        let thread = thread::Builder::new().name(format!("rtmp-send-{id}"));
        connection.thread = Some(thread.spawn(move || feeder.run())?);
        Ok(connection)
    }
}

impl Drop for ServerConnection {
    /// The driver has cancelled the feeder before.
    fn drop(&mut self) {
        // Also ends any wait of the feeder inside rtmp2sink.
        let _ = self.sink.set_state(gst::State::Null);
        let _ = self.pad.set_active(false);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            gst::error!(CAT, "The thread of a connection panicked");
        }
        self.bus.unset_sync_handler();
    }
}

/// Returns an error's text in one sentence, fit for logs and messages.
fn reason(error: &gst::message::Error, location: &Location) -> String {
    let text = location.printable(error.error().message());
    let details = error.debug();
    let details = details.as_deref().and_then(|text| text.rsplit('\n').next());
    let details = details.map(|text| location.printable(text));
    match details {
        // Details that only repeat the text or name a place in the code.
        Some(details) if details.starts_with("domain ") || details.contains(".c(") => text,
        Some(details) if !details.is_empty() => format!("{text}: {details}"),
        _ => text,
    }
}

enum FeedEnd {
    Finished,
    Cancelled,
}

struct Feeder {
    id: AttemptId,
    pad: gst::Pad,
    coordinator: Arc<Coordinator>,
    /// The first error that rtmp2sink posted.
    reported_error: Arc<Mutex<Option<String>>>,
    /// The stream was ended, after which servers close the connection, so errors are ignored.
    is_ending: Arc<AtomicBool>,
    /// The sockets that existed before this connection.
    known_sockets: SocketSnapshot,
    port: u16,
    /// Version of the configuration that the server has.
    version: u64,
    clock: OutputClock,
}

impl Feeder {
    /// Runs the thread.
    fn run(mut self) {
        match self.feed() {
            Ok(FeedEnd::Finished) => self.coordinator.post(DriverEvent::Finished(self.id)),
            Ok(FeedEnd::Cancelled) => {}
            // Also after a cancellation, when the driver ignores this event.
            Err(_) => {
                let reported = self.reported_error.lock().take();
                let reason = reported.unwrap_or_else(|| "The connection was lost".to_owned());
                self.coordinator.post(DriverEvent::Failed(self.id, reason));
            }
        }
    }

    fn feed(&mut self) -> Result<FeedEnd, gst::FlowError> {
        let caps = gst::Caps::new_empty_simple("video/x-flv");
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        for event in [
            gst::event::StreamStart::new("rtmp2fallbacksink"),
            gst::event::Caps::new(&caps),
            gst::event::Segment::new(&segment),
        ] {
            self.pad.push_event(event);
        }
        let (version, configuration) = self.coordinator.configuration();
        self.version = version;
        let has_metadata = |tag: &BufferTag| tag.kind == crate::flv::TagKind::Script;
        // The first push waits until the server has accepted the connection.
        if !configuration.iter().any(has_metadata) {
            self.pad.push(tags::empty_metadata())?;
        }
        self.send_configuration(&configuration)?;
        self.known_sockets.limit_new(self.port);
        self.coordinator.post(DriverEvent::Opened(self.id));
        let mut sent = None;
        loop {
            match self
                .coordinator
                .next(self.id, sent.take(), &mut self.version)
            {
                NextStep::Send(tag) => {
                    let buffer = self.clock.stamp(&tag);
                    self.pad.push(buffer)?;
                    sent = Some(tag.bytes);
                }
                NextStep::Configure(configuration) => self.send_configuration(&configuration)?,
                NextStep::Finish => {
                    self.is_ending.store(true, Ordering::Release);
                    self.pad.push_event(gst::event::Eos::new());
                    return Ok(FeedEnd::Finished);
                }
                NextStep::Cancelled => return Ok(FeedEnd::Cancelled),
            }
        }
    }

    fn send_configuration(&self, configuration: &[BufferTag]) -> Result<(), gst::FlowError> {
        for tag in configuration {
            self.pad.push(self.clock.stamp_at_last_media(tag))?;
        }
        Ok(())
    }
}
