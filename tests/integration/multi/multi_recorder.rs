// SPDX-License-Identifier: MPL-2.0

//! Runs the element in a pipeline of this process and records its output, and everything that
//! happened, in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

use gst::glib;
use gst::prelude::*;
use gstrtmp2server::StreamEvent;

use support::flv::{self, Tag};
use support::raw::{RawClient, send};
use support::synthetic::stream;
use support::{PATIENCE, init};

/// Links a new pad.
pub type LinkPad = dyn Fn(&gst::Pipeline, &gst::Pad) + Send + Sync;

pub struct MultiRecorder {
    pub pipeline: gst::Pipeline,
    pub element: gst::Element,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

#[derive(Default)]
pub struct Seen {
    /// `+src_0`, `added src_0`, `eos src_0`, `removed src_0 closed`, `-src_0`, `rejected busy`.
    pub history: Vec<String>,
    pub buffers: BTreeMap<String, Vec<gst::Buffer>>,
    /// The stream key of each pad.
    pub keys: BTreeMap<String, String>,
    pub messages: Vec<gst::Message>,
}

impl Seen {
    pub fn buffers(&self, pad: &str) -> usize {
        self.buffers.get(pad).map_or(0, Vec::len)
    }

    pub fn has_happened(&self, what: &str) -> bool {
        self.history.iter().any(|entry| entry == what)
    }

    /// Element messages of this name, with the name of their source.
    pub fn element_messages(&self, name: &str) -> Vec<(String, gst::Structure)> {
        let found = self.messages.iter().filter_map(|message| {
            let structure = message.structure().filter(|s| s.name() == name)?;
            Some((message.src()?.name().to_string(), structure.to_owned()))
        });
        found.collect()
    }

    pub fn of_kind(&self, kind: gst::MessageType) -> Vec<&gst::Message> {
        let messages = self.messages.iter();
        messages.filter(|message| message.type_() == kind).collect()
    }
}

impl MultiRecorder {
    /// Starts with a sink for each pad that accepts everything.
    pub fn start(properties: &str) -> Self {
        Self::start_with(properties, link_to_fakesink)
    }

    pub fn start_with(
        properties: &str,
        link_pad: impl Fn(&gst::Pipeline, &gst::Pad) + Send + Sync + 'static,
    ) -> Self {
        let recorder = Self::new(properties, link_pad);
        recorder.play();
        recorder
    }

    /// Builds the pipeline without starting it.
    pub fn new(
        properties: &str,
        link_pad: impl Fn(&gst::Pipeline, &gst::Pad) + Send + Sync + 'static,
    ) -> Self {
        init();
        // Most tests end a publisher by closing its connection, and await no return.
        let text = format!("rtmp2multiserversrc name=src port=0 resume-timeout=0 {properties}");
        let element = gst::parse::launch(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let pipeline = gst::Pipeline::new();
        pipeline.add(&element).unwrap();
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        watch_pads(&pipeline, &element, &seen, Box::new(link_pad));
        watch_signals(&element, &seen);
        let record = seen.clone();
        pipeline.bus().unwrap().set_sync_handler(move |_, message| {
            update(&record, |seen| seen.messages.push(message.clone()));
            gst::BusSyncReply::Drop
        });
        MultiRecorder {
            pipeline,
            element,
            seen,
        }
    }

    pub fn play(&self) {
        self.pipeline.set_state(gst::State::Playing).unwrap();
    }

    pub fn port(&self) -> u16 {
        self.element.property::<u32>("current-port") as u16
    }

    pub fn url(&self, path: &str) -> String {
        format!("rtmp://127.0.0.1:{}/{path}", self.port())
    }

    pub fn stats(&self) -> gst::Structure {
        self.element.property("stats")
    }

    /// Waits until the record satisfies a condition.
    #[track_caller]
    pub fn wait_until<T>(&self, what: &str, condition: impl Fn(&Seen) -> Option<T>) -> T {
        let (seen, more) = &*self.seen;
        let mut found = None;
        let waited = more.wait_timeout_while(seen.lock().unwrap(), PATIENCE, |seen| {
            found = condition(seen);
            found.is_none()
        });
        let (seen, _) = waited.unwrap();
        found.unwrap_or_else(|| panic!("still waiting for {what}: {:?}", seen.history))
    }

    /// Waits until this has happened.
    #[track_caller]
    pub fn wait_for(&self, what: &str) {
        self.wait_until(what, |seen| seen.has_happened(what).then_some(()));
    }

    /// Returns the history of one pad once it has this length.
    #[track_caller]
    pub fn history(&self, pad: &str, count: usize) -> Vec<String> {
        self.wait_until(pad, |seen| {
            let of_pad = |what: &&String| {
                let mut words = what.split([' ', '+', '-']);
                words.any(|word| word == pad)
            };
            let history: Vec<String> = seen.history.iter().filter(of_pad).cloned().collect();
            (history.len() >= count).then_some(history)
        })
    }

    #[track_caller]
    pub fn wait_for_buffers(&self, pad: &str, count: usize) {
        self.wait_until(&format!("{count} buffers of {pad}"), |seen| {
            (seen.buffers(pad) >= count).then_some(())
        });
    }

    /// Waits for the message `publisher-gone` of this pad with this reason.
    #[track_caller]
    pub fn wait_for_gone(&self, pad: &str, reason: &str) {
        self.wait_until(&format!("{reason} of {pad}"), |seen| {
            let events = seen.element_messages("rtmp2-stream-event").into_iter();
            let mut gone = events.filter(|(_, event)| {
                let details = event.get::<gst::Structure>("details").unwrap();
                event.get("event") == Ok(StreamEvent::PublisherGone)
                    && event.get("pad") == Ok(pad)
                    && details.get("reason") == Ok(reason)
            });
            gone.next().map(|_| ())
        });
    }

    pub fn inspect<T>(&self, inspect: impl FnOnce(&Seen) -> T) -> T {
        inspect(&self.seen.0.lock().unwrap())
    }

    #[track_caller]
    pub fn tags(&self, pad: &str) -> Vec<Tag> {
        self.inspect(|seen| {
            let mut bytes = Vec::new();
            for buffer in &seen.buffers[pad] {
                bytes.extend_from_slice(&buffer.map_readable().unwrap());
            }
            flv::parse(&bytes).unwrap()
        })
    }

    /// Drops the recorded buffers of a pad, so that they do not count as memory of the element.
    pub fn discard_buffers(&self, pad: &str) {
        self.seen.0.lock().unwrap().buffers.remove(pad);
    }
}

impl Drop for MultiRecorder {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
        // Messages hold references to their sources.
        update(&self.seen, |seen| seen.messages.clear());
    }
}

/// A publisher that has sent some media, without which there is no pad.
pub fn publisher(port: u16, key: &str) -> RawClient {
    let mut client = RawClient::publish(port, "live", key);
    send(&mut client, &stream(0, 4));
    client
}

/// Links a pad to a sink of its own.
pub fn link_to_fakesink(pipeline: &gst::Pipeline, pad: &gst::Pad) {
    link_to(pipeline, pad, "fakesink sync=false async=false");
}

/// Links a pad to a sink of its own with this description.
pub fn link_to(pipeline: &gst::Pipeline, pad: &gst::Pad, text: &str) {
    let sink = gst::parse::bin_from_description(text, true).unwrap();
    sink.set_property("name", format!("sink_{}", pad.name()));
    pipeline.add(&sink).unwrap();
    sink.sync_state_with_parent().unwrap();
    pad.link(&sink.static_pad("sink").unwrap()).unwrap();
}

fn update(seen: &(Mutex<Seen>, Condvar), change: impl FnOnce(&mut Seen)) {
    // A test that failed while it held the lock must not fail the others of the process.
    change(&mut seen.0.lock().unwrap_or_else(|e| e.into_inner()));
    seen.1.notify_all();
}

fn watch_pads(
    pipeline: &gst::Pipeline,
    element: &gst::Element,
    seen: &Arc<(Mutex<Seen>, Condvar)>,
    link_pad: Box<LinkPad>,
) {
    let (weak, record) = (pipeline.downgrade(), seen.clone());
    element.connect_pad_added(move |_, pad| {
        watch_pad(pad, &record);
        let name = pad.name().to_string();
        update(&record, |seen| {
            seen.history.push(format!("+{name}"));
            seen.keys.insert(name, pad.property("stream-key"));
        });
        if let Some(pipeline) = weak.upgrade() {
            link_pad(&pipeline, pad);
        }
    });
    let (weak, record) = (pipeline.downgrade(), seen.clone());
    element.connect_pad_removed(move |_, pad| {
        let name = pad.name().to_string();
        let sink = weak
            .upgrade()
            .and_then(|p| p.by_name(&format!("sink_{name}")));
        if let Some(sink) = sink {
            let _ = sink
                .parent()
                .and_downcast::<gst::Bin>()
                .unwrap()
                .remove(&sink);
            let _ = sink.set_state(gst::State::Null);
        }
        update(&record, |seen| seen.history.push(format!("-{name}")));
    });
}

/// Records everything that reaches the pad, whatever is linked to it.
fn watch_pad(pad: &gst::Pad, seen: &Arc<(Mutex<Seen>, Condvar)>) {
    let kinds = gst::PadProbeType::BUFFER
        | gst::PadProbeType::BUFFER_LIST
        | gst::PadProbeType::EVENT_DOWNSTREAM;
    let record = seen.clone();
    let name = pad.name().to_string();
    let inner = pad.downcast_ref::<gst::GhostPad>().unwrap().internal();
    inner.unwrap().add_probe(kinds, move |_, info| {
        let buffers: Vec<gst::Buffer> = match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => vec![buffer.clone()],
            Some(gst::PadProbeData::BufferList(list)) => list.iter_owned().collect(),
            Some(gst::PadProbeData::Event(event)) => {
                if event.type_() == gst::EventType::Eos {
                    update(&record, |seen| seen.history.push(format!("eos {name}")));
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        update(&record, |seen| {
            seen.buffers
                .entry(name.clone())
                .or_default()
                .extend(buffers);
        });
        gst::PadProbeReturn::Ok
    });
}

fn watch_signals(element: &gst::Element, seen: &Arc<(Mutex<Seen>, Condvar)>) {
    for name in ["publisher-added", "publisher-removed", "publisher-rejected"] {
        let record = seen.clone();
        element.connect(name, false, move |arguments: &[glib::Value]| {
            let info: gst::Structure = arguments[1].get().unwrap();
            let pad: Option<String> = info.get("pad").ok();
            let reason: Option<String> = arguments.get(2).map(|reason| reason.get().unwrap());
            let words = [Some(name["publisher-".len()..].to_owned()), pad, reason];
            let words: Vec<String> = words.into_iter().flatten().collect();
            update(&record, |seen| seen.history.push(words.join(" ")));
            None
        });
    }
}
