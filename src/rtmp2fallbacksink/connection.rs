// SPDX-License-Identifier: MPL-2.0

//! One attempt to send to one server: an rtmp2sink of its own, and a thread that feeds it. Neither is
//! part of the pipeline, so that nothing that happens to them does to it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use gst::prelude::*;
use parking_lot::Mutex;

use super::imp::CAT;
use super::location::Location;
use super::schedule::Id;
use super::shared::{BufferTag, Event, Next, Shared};
use super::sockets::Sockets;
use super::tags::{self, Times};

/// Frames are cut into few pieces.
const CHUNK_SIZE: u32 = 65_536;

/// Why a connection could not even be begun.
#[derive(Debug, thiserror::Error)]
pub(super) enum CantStart {
    #[error("there is no rtmp2sink: install the plugins \"bad\" of GStreamer")]
    NoSink(#[from] gst::glib::BoolError),
    #[error("rtmp2sink does not start")]
    State(#[from] gst::StateChangeError),
    #[error("rtmp2sink can't be fed")]
    Link(#[from] gst::PadLinkError),
    #[error("{0}")]
    Thread(#[from] io::Error),
}

#[derive(Debug)]
pub(super) struct Connection {
    sink: gst::Element,
    pad: gst::Pad,
    bus: gst::Bus,
    thread: Option<JoinHandle<()>>,
}

impl Connection {
    /// Begins to connect. What becomes of it is told to the driver.
    pub(super) fn open(
        id: Id,
        location: &Arc<Location>,
        shared: &Arc<Shared>,
    ) -> Result<Self, CantStart> {
        // The timeout is seen to by the driver.
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
        let said = Arc::new(Mutex::new(None));
        let is_over = Arc::new(AtomicBool::new(false));
        let (kept, concerned, teller) = (said.clone(), location.clone(), shared.clone());
        let expected = is_over.clone();
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view()
                && !expected.load(Ordering::Acquire)
            {
                let reason = reason(error, &concerned);
                kept.lock().get_or_insert_with(|| reason.clone());
                teller.tell(Event::Failed(id, reason));
            }
            gst::BusSyncReply::Drop
        });
        sink.set_bus(Some(&bus));
        let target = sink.static_pad("sink");
        let pad = gst::Pad::builder(gst::PadDirection::Src)
            .name("src")
            .build();
        if let Some(target) = target {
            pad.link(&target)?;
        }
        let mut connection = Connection {
            sink,
            pad,
            bus,
            thread: None,
        };
        connection.pad.set_active(true)?;
        let before = Sockets::now();
        connection.sink.set_state(gst::State::Playing)?;
        let feeder = Feeder {
            id,
            pad: connection.pad.clone(),
            shared: shared.clone(),
            said,
            is_over,
            before,
            port: location.port(),
            version: 0,
            times: Times::default(),
        };
        let thread = thread::Builder::new().name(format!("rtmp-send-{id}"));
        connection.thread = Some(thread.spawn(move || feeder.run())?);
        Ok(connection)
    }
}

impl Drop for Connection {
    /// The driver has told the feeder to end before.
    fn drop(&mut self) {
        // Whatever it waits for in there.
        let _ = self.sink.set_state(gst::State::Null);
        let _ = self.pad.set_active(false);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            gst::error!(CAT, "A thread has panicked");
        }
        self.bus.unset_sync_handler();
    }
}

/// What an error says, in one sentence and without anything secret.
fn reason(error: &gst::message::Error, location: &Location) -> String {
    let text = location.without_secrets(error.error().message());
    let details = error.debug();
    let details = details.as_deref().and_then(|text| text.rsplit('\n').next());
    let details = details.map(|text| location.without_secrets(text));
    match details {
        // What says no more than the text, or where in the code it was.
        Some(details) if details.starts_with("domain ") || details.contains(".c(") => text,
        Some(details) if !details.is_empty() => format!("{text}: {details}"),
        _ => text,
    }
}

enum End {
    Finished,
    Cancelled,
}

struct Feeder {
    id: Id,
    pad: gst::Pad,
    shared: Arc<Shared>,
    /// What the sink has said of itself.
    said: Arc<Mutex<Option<String>>>,
    /// The stream was ended, after which servers close the connection: that is no error.
    is_over: Arc<AtomicBool>,
    /// Sockets that are not this connection's.
    before: Sockets,
    port: u16,
    /// Of the configuration that the server has.
    version: u64,
    times: Times,
}

impl Feeder {
    /// The thread.
    fn run(mut self) {
        match self.feed() {
            Ok(End::Finished) => self.shared.tell(Event::Finished(self.id)),
            Ok(End::Cancelled) => {}
            // Also where the driver has ended it, which does not wait for this then.
            Err(_) => {
                let said = self.said.lock().take();
                let reason = said.unwrap_or_else(|| "The connection was lost".to_owned());
                self.shared.tell(Event::Failed(self.id, reason));
            }
        }
    }

    fn feed(&mut self) -> Result<End, gst::FlowError> {
        let caps = gst::Caps::new_empty_simple("video/x-flv");
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        for event in [
            gst::event::StreamStart::new("rtmp2fallbacksink"),
            gst::event::Caps::new(&caps),
            gst::event::Segment::new(&segment),
        ] {
            self.pad.push_event(event);
        }
        let (version, configuration) = self.shared.configuration();
        self.version = version;
        let has_metadata = |tag: &BufferTag| tag.kind == crate::flv::TagKind::Script;
        // It waits in there until the server has accepted the connection.
        if !configuration.iter().any(has_metadata) {
            self.pad.push(tags::empty_metadata())?;
        }
        self.configure(&configuration)?;
        self.before.bound_new(self.port);
        self.shared.tell(Event::Opened(self.id));
        let mut sent = None;
        loop {
            match self.shared.next(self.id, sent.take(), &mut self.version) {
                Next::Send(tag) => {
                    let buffer = self.times.stamp(&tag);
                    self.pad.push(buffer)?;
                    sent = Some(tag.bytes);
                }
                Next::Configure(configuration) => self.configure(&configuration)?,
                Next::Finish => {
                    self.is_over.store(true, Ordering::Release);
                    self.pad.push_event(gst::event::Eos::new());
                    return Ok(End::Finished);
                }
                Next::Cancelled => return Ok(End::Cancelled),
            }
        }
    }

    fn configure(&self, configuration: &[BufferTag]) -> Result<(), gst::FlowError> {
        for tag in configuration {
            self.pad.push(self.times.stamp_at_last(tag))?;
        }
        Ok(())
    }
}
