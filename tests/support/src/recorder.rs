// SPDX-License-Identifier: MPL-2.0

//! The element in a pipeline of this process, all of whose output is kept.

use std::sync::{Arc, Condvar, Mutex};

use gst::glib;
use gst::prelude::*;

use super::flv::{self, Tag};
use super::{PATIENCE, init};

#[derive(Debug)]
pub struct Recorder {
    pub pipeline: gst::Pipeline,
    pub element: gst::Element,
    buffers: Arc<Mutex<Vec<gst::Buffer>>>,
    more: Arc<Condvar>,
    events: Arc<Mutex<Vec<gst::Event>>>,
    messages: Arc<(Mutex<Vec<gst::Structure>>, Condvar)>,
}

impl Recorder {
    /// Starts `rtmp2serversrc` with these properties on any free port, into a sink that accepts
    /// everything.
    pub fn start(properties: &str) -> Self {
        Self::start_into(properties, "fakesink sync=false async=false")
    }

    pub fn start_into(properties: &str, downstream: &str) -> Self {
        init();
        // Most tests end a publisher by closing its connection, and have nothing to wait for.
        let text =
            format!("rtmp2serversrc name=src port=0 resume-timeout=0 {properties} ! {downstream}");
        let pipeline = gst::parse::launch(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let element = pipeline.by_name("src").unwrap();
        let buffers = Arc::new(Mutex::new(Vec::new()));
        let events = Arc::new(Mutex::new(Vec::new()));
        let (kept_buffers, kept_events) = (buffers.clone(), events.clone());
        let more = Arc::new(Condvar::new());
        let announce = more.clone();
        let kinds = gst::PadProbeType::BUFFER
            | gst::PadProbeType::BUFFER_LIST
            | gst::PadProbeType::EVENT_DOWNSTREAM;
        let pad = element.static_pad("src").unwrap();
        pad.add_probe(kinds, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    kept_buffers.lock().unwrap().push(buffer.clone());
                }
                Some(gst::PadProbeData::BufferList(list)) => {
                    let owned = list.iter_owned();
                    kept_buffers.lock().unwrap().extend(owned);
                }
                Some(gst::PadProbeData::Event(event)) => {
                    kept_events.lock().unwrap().push(event.clone());
                }
                _ => {}
            }
            // With the lock of those who wait, so that none of them misses an event.
            let _buffers = kept_buffers.lock().unwrap();
            announce.notify_all();
            gst::PadProbeReturn::Ok
        });
        let messages = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let kept_messages = messages.clone();
        pipeline.bus().unwrap().set_sync_handler(move |_, message| {
            if let gst::MessageView::Element(element) = message.view() {
                let structure = element.structure().unwrap().to_owned();
                kept_messages.0.lock().unwrap().push(structure);
                kept_messages.1.notify_all();
            }
            gst::BusSyncReply::Pass
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        // A live pipeline takes a moment to get there; the port is known before.
        Recorder {
            pipeline,
            element,
            buffers,
            more,
            events,
            messages,
        }
    }

    /// Waits for so many element messages of this name, and returns all of them.
    #[track_caller]
    pub fn messages(&self, name: &str, count: usize) -> Vec<gst::Structure> {
        let (messages, more) = &*self.messages;
        let named = |all: &[gst::Structure]| -> Vec<gst::Structure> {
            all.iter().filter(|s| s.name() == name).cloned().collect()
        };
        let waited = more.wait_timeout_while(messages.lock().unwrap(), PATIENCE, |all| {
            named(all).len() < count
        });
        let (all, timeout) = waited.unwrap();
        assert!(
            !timeout.timed_out(),
            "still waiting for {count} {name}: {all:?}"
        );
        named(&all)
    }

    /// Returns the error of `rtmp2serversrc` with these properties, which fails to start.
    #[track_caller]
    pub fn refusal(properties: &str) -> (glib::Error, String) {
        init();
        let text = format!("rtmp2serversrc port=0 {properties} ! fakesink");
        let pipeline = gst::parse::launch(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let started = pipeline.set_state(gst::State::Playing);
        let kinds = [gst::MessageType::Error];
        let message = pipeline.bus().unwrap().pop_filtered(&kinds);
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(started.is_err(), "{properties} has started");
        let message = message.expect("there is an error on the bus");
        let gst::MessageView::Error(error) = message.view() else {
            unreachable!()
        };
        (error.error(), error.error().to_string())
    }

    pub fn port(&self) -> u16 {
        self.element.property::<u32>("current-port") as u16
    }

    /// `rtmp://127.0.0.1:PORT/PATH`
    pub fn url(&self, path: &str) -> String {
        format!("rtmp://127.0.0.1:{}/{path}", self.port())
    }

    /// Waits for EOS, and returns all tags.
    #[track_caller]
    pub fn finish(&self) -> Vec<Tag> {
        self.wait_for(gst::MessageType::Eos);
        self.tags()
    }

    /// Waits for a message; another error is a failure.
    #[track_caller]
    pub fn wait_for(&self, kind: gst::MessageType) -> gst::Message {
        let patience = gst::ClockTime::try_from(PATIENCE).unwrap();
        let kinds = [kind, gst::MessageType::Error];
        let message = self.pipeline.bus().unwrap();
        let message = message.timed_pop_filtered(patience, &kinds);
        let message = message.unwrap_or_else(|| panic!("no {kind:?} came"));
        if let gst::MessageView::Error(error) = message.view()
            && kind != gst::MessageType::Error
        {
            panic!("{error:?}");
        }
        message
    }

    /// Waits, without a fixed pause, until the output satisfies a condition.
    #[track_caller]
    pub fn wait_until(&self, what: &str, condition: impl Fn(&[gst::Buffer]) -> bool) {
        let buffers = self.buffers.lock().unwrap();
        let waited = self
            .more
            .wait_timeout_while(buffers, PATIENCE, |buffers| !condition(buffers));
        let timed_out = waited.unwrap().1.timed_out();
        assert!(!timed_out, "still waiting for {what}");
    }

    pub fn buffers(&self) -> Vec<gst::Buffer> {
        self.buffers.lock().unwrap().clone()
    }

    pub fn events(&self) -> Vec<gst::Event> {
        self.events.lock().unwrap().clone()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for buffer in self.buffers.lock().unwrap().iter() {
            bytes.extend_from_slice(&buffer.map_readable().unwrap());
        }
        bytes
    }

    #[track_caller]
    pub fn tags(&self) -> Vec<Tag> {
        flv::parse(&self.bytes()).unwrap()
    }

    pub fn stats(&self) -> gst::Structure {
        self.element.property("stats")
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Returns the epoch that a buffer of the element carries.
pub fn epoch_of(buffer: &gst::BufferRef) -> u64 {
    let meta = buffer.meta::<gst::ReferenceTimestampMeta>().unwrap();
    let caps = meta.reference();
    let structure = caps.structure(0).unwrap();
    assert_eq!(structure.name(), "timestamp/x-rtmp");
    structure.get("epoch").unwrap()
}
