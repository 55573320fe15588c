// SPDX-License-Identifier: MPL-2.0

//! Lock order: `running`, then `settings`. Neither is held while pushing, posting or joining.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::prelude::*;
use parking_lot::Mutex;

use super::coordinator::Coordinator;
use super::driver::{self, Driver, DropReports, SystemEnvironment};
use super::schedule::Schedule;
use super::settings::{SPECS, Settings};
use super::stats::Telemetry;
use super::tags::{self, TagReader};
use super::{CAT, FallbackStatus};
use crate::post_permits;

#[derive(Debug, Default)]
pub struct Rtmp2FallbackSink {
    settings: Mutex<Settings>,
    /// Present from start to stop.
    running: Mutex<Option<Running>>,
    /// Used by the streaming thread only.
    reader: Mutex<TagReader>,
}

#[derive(Debug)]
struct Running {
    coordinator: Arc<Coordinator>,
    telemetry: Arc<Mutex<Telemetry>>,
    driver: JoinHandle<()>,
}

#[glib::object_subclass]
impl ObjectSubclass for Rtmp2FallbackSink {
    const NAME: &'static str = "GstRTMP2FallbackSink";
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
                "Sends FLV to the first of several RTMP servers that accepts it",
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

    fn post_message(&self, message: gst::Message) -> bool {
        post_permits::post(message, |message| self.parent_post_message(message))
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
                ("No rtmp2sink element: install GStreamer's \"bad\" plugins")
            ));
        }
        let now = Instant::now();
        let coordinator = Arc::new(Coordinator::new(settings.limits(), now));
        let telemetry = Arc::new(Mutex::new(Telemetry::new(now)));
        let driver = Driver {
            environment: SystemEnvironment,
            element: self.obj().upcast_ref::<gst::Element>().downgrade(),
            coordinator: coordinator.clone(),
            locations,
            schedule: Schedule::new(settings.schedule()),
            telemetry: telemetry.clone(),
            connections: HashMap::new(),
            drop_reports: DropReports::default(),
            is_verbose: settings.verbose_messages,
        };
        let thread = thread::Builder::new().name("rtmp-fallback".into());
        let driver = thread.spawn(move || driver.run()).map_err(|error| {
            gst::error_msg!(
                gst::ResourceError::Failed,
                ("Failed to start a thread: {}", error)
            )
        })?;
        *self.reader.lock() = TagReader::default();
        *self.running.lock() = Some(Running {
            coordinator,
            telemetry,
            driver,
        });
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        let running = self.running.lock().take();
        if let Some(running) = running {
            running.coordinator.stop();
            // A message or notify handler that stops the element runs on the driver's thread
            // itself.
            let is_driver_thread = running.driver.thread().id() == thread::current().id();
            if !is_driver_thread && running.driver.join().is_err() {
                gst::error!(CAT, imp = self, "The driver thread panicked");
            }
            let mut telemetry = running.telemetry.lock();
            let has_changed = telemetry.set(FallbackStatus::Disconnected, None, Instant::now());
            let reason = telemetry.last_error();
            drop(telemetry);
            if has_changed {
                driver::post_status(
                    self.obj().upcast_ref(),
                    FallbackStatus::Disconnected,
                    None,
                    0,
                    &reason,
                );
            }
        }
        Ok(())
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(coordinator) = self.coordinator() {
            coordinator.set_flushing(true);
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(coordinator) = self.coordinator() {
            coordinator.set_flushing(false);
        }
        Ok(())
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let Some(coordinator) = self.coordinator() else {
            return Ok(());
        };
        // A sink that is linked late gets earlier headers only through the caps.
        if let Some(headers) = self.reader.lock().stream_header(caps) {
            coordinator.set_headers(headers);
        }
        Ok(())
    }

    /// Queues the tag; never waits for a server.
    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let coordinator = self.coordinator().ok_or(gst::FlowError::Flushing)?;
        if self.status() == FallbackStatus::Error {
            return Err(gst::FlowError::Error);
        }
        let tag = self.reader.lock().read(buffer);
        let tag = tag.map_err(|error| {
            gst::element_imp_error!(self, gst::StreamError::Format, ("{error}"));
            gst::FlowError::Error
        })?;
        let Some(tag) = tag else {
            if !tags::is_file_header(buffer) {
                gst::warning!(CAT, imp = self, "Dropped a tag that no decoder could use");
                coordinator.reject();
            }
            return Ok(gst::FlowSuccess::Ok);
        };
        let is_header = buffer.flags().contains(gst::BufferFlags::HEADER);
        coordinator.push(tag, is_header);
        Ok(gst::FlowSuccess::Ok)
    }

    fn event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Eos(_) => {
                if let Some(coordinator) = self.coordinator()
                    && !coordinator.drain()
                {
                    return false;
                }
            }
            gst::EventView::FlushStop(_) | gst::EventView::StreamStart(_) => {
                if let Some(coordinator) = self.coordinator() {
                    coordinator.reopen();
                }
            }
            _ => {}
        }
        self.parent_event(event)
    }
}

impl Rtmp2FallbackSink {
    fn coordinator(&self) -> Option<Arc<Coordinator>> {
        let running = self.running.lock();
        running.as_ref().map(|running| running.coordinator.clone())
    }

    fn status(&self) -> FallbackStatus {
        let running = self.running.lock();
        running
            .as_ref()
            .map_or(FallbackStatus::Disconnected, |running| {
                running.telemetry.lock().status()
            })
    }

    fn stats(&self) -> gst::Structure {
        let now = Instant::now();
        let running = self.running.lock();
        match running.as_ref() {
            Some(running) => {
                let levels = running.coordinator.levels();
                running.telemetry.lock().structure(Some(&levels), now)
            }
            None => Telemetry::new(now).structure(None, now),
        }
    }
}
