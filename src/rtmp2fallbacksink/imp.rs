// SPDX-License-Identifier: MPL-2.0

//! Lock order: `running`, then `settings`. Nothing is pushed, posted or joined under either.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::prelude::*;
use parking_lot::Mutex;

use super::Status;
use super::driver::{self, Driver, SystemEnvironment};
use super::schedule::Schedule;
use super::settings::{SPECS, Settings};
use super::shared::Shared;
use super::stats::Telemetry;
use super::tags::{self, Seen};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtmp2fallbacksink",
        gst::DebugColorFlags::empty(),
        Some("RTMP sink with fallbacks"),
    )
});

#[derive(Debug, Default)]
pub struct Rtmp2FallbackSink {
    settings: Mutex<Settings>,
    /// From start to stop.
    running: Mutex<Option<Running>>,
    /// Touched by the streaming thread alone.
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    telemetry: Arc<Mutex<Telemetry>>,
    driver: JoinHandle<()>,
}

#[glib::object_subclass]
impl ObjectSubclass for Rtmp2FallbackSink {
    const NAME: &'static str = "GstRtmp2FallbackSink";
    type Type = super::Rtmp2FallbackSink;
    type ParentType = gst_base::BaseSink;
}

impl ObjectImpl for Rtmp2FallbackSink {
    fn properties() -> &'static [glib::ParamSpec] {
        &SPECS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.settings.lock().set(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "status" => self.status().to_value(),
            "stats" => self.stats().to_value(),
            name => match self.settings.lock().get(name) {
                Some(value) => value,
                None => unreachable!("{name} is not readable"),
            },
        }
    }
}

impl GstObjectImpl for Rtmp2FallbackSink {}

impl ElementImpl for Rtmp2FallbackSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "RTMP Fallback Sink",
                "Sink/Network",
                "Sends FLV to the first of several RTMP servers that takes it",
                "The rtmp2server developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let sink = gst::PadTemplate::new(
                "sink",
                gst::PadDirection::Sink,
                gst::PadPresence::Always,
                &gst::Caps::new_empty_simple("video/x-flv"),
            );
            sink.into_iter().collect()
        });
        &TEMPLATES
    }
}

impl BaseSinkImpl for Rtmp2FallbackSink {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings.lock().clone();
        let locations = settings
            .locations()
            .map_err(|error| gst::error_msg!(gst::ResourceError::Settings, ("{}", error)))?;
        if gst::ElementFactory::find("rtmp2sink").is_none() {
            return Err(gst::error_msg!(
                gst::CoreError::MissingPlugin,
                ("There is no rtmp2sink: install the plugins \"bad\" of GStreamer")
            ));
        }
        let now = Instant::now();
        let shared = Arc::new(Shared::new(settings.limits(), now));
        let telemetry = Arc::new(Mutex::new(Telemetry::new(now)));
        let driver = Driver {
            world: SystemEnvironment,
            element: self.obj().downgrade(),
            shared: shared.clone(),
            locations,
            schedule: Schedule::new(settings.schedule()),
            telemetry: telemetry.clone(),
            connections: HashMap::new(),
        };
        let thread = thread::Builder::new().name("rtmp-fallback".into());
        let driver = thread.spawn(move || driver.run()).map_err(|error| {
            gst::error_msg!(
                gst::ResourceError::Failed,
                ("Could not start a thread: {}", error)
            )
        })?;
        *self.seen.lock() = Seen::default();
        *self.running.lock() = Some(Running {
            shared,
            telemetry,
            driver,
        });
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let running = self.running.lock().take();
        if let Some(running) = running {
            running.shared.stop();
            // A handler of a message or notification runs on the driver's own thread.
            let is_own = running.driver.thread().id() == thread::current().id();
            if !is_own && running.driver.join().is_err() {
                gst::error!(CAT, imp = self, "A thread has panicked");
            }
            let mut telemetry = running.telemetry.lock();
            let is_news = telemetry.set(Status::Disconnected, None, Instant::now());
            let reason = telemetry.last_error();
            drop(telemetry);
            if is_news {
                driver::tell(&self.obj(), Status::Disconnected, None, 0, &reason);
            }
        }
        Ok(())
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(shared) = self.shared() {
            shared.set_flushing(true);
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(shared) = self.shared() {
            shared.set_flushing(false);
        }
        Ok(())
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let Some(shared) = self.shared() else {
            return Ok(());
        };
        // Who is linked late gets what came before in here alone.
        let mut seen = self.seen.lock();
        for tag in tags::stream_header(caps) {
            if seen.is_news(&tag) {
                shared.push(tag);
            }
        }
        Ok(())
    }

    /// Never waits for a server.
    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let shared = self.shared().ok_or(gst::FlowError::Flushing)?;
        if self.status() == Status::Error {
            return Err(gst::FlowError::Error);
        }
        let tag = tags::read(buffer).map_err(|error| {
            gst::element_imp_error!(self, gst::StreamError::Format, ("{error}"));
            gst::FlowError::Error
        })?;
        let Some(tag) = tag else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let is_header = buffer.flags().contains(gst::BufferFlags::HEADER);
        let is_news = !tag.is_configuration() || self.seen.lock().is_news(&tag);
        if is_news || !is_header {
            shared.push(tag);
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Eos(_) => {
                if let Some(shared) = self.shared()
                    && !shared.drain()
                {
                    return false;
                }
            }
            gst::EventView::FlushStop(_) | gst::EventView::StreamStart(_) => {
                if let Some(shared) = self.shared() {
                    shared.reopen();
                }
            }
            _ => {}
        }
        self.parent_event(event)
    }
}

impl Rtmp2FallbackSink {
    fn shared(&self) -> Option<Arc<Shared>> {
        let running = self.running.lock();
        running.as_ref().map(|running| running.shared.clone())
    }

    fn status(&self) -> Status {
        let running = self.running.lock();
        running.as_ref().map_or(Status::Disconnected, |running| {
            running.telemetry.lock().status()
        })
    }

    fn stats(&self) -> gst::Structure {
        let now = Instant::now();
        let running = self.running.lock();
        match running.as_ref() {
            Some(running) => {
                let levels = running.shared.levels();
                running.telemetry.lock().structure(Some(&levels), now)
            }
            None => Telemetry::new(now).structure(None, now),
        }
    }
}
