// SPDX-License-Identifier: MPL-2.0

//! The element in a pipeline of this process, with all that leaves it kept, and what happened in its order.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

use gst::glib;
use gst::prelude::*;
use gstrtmp2server::StreamEvent;

use crate::support::flv::{self, Tag};
use crate::support::raw::{RawClient, send};
use crate::support::synthetic::stream;
use crate::support::{PATIENCE, init};

/// Gives a new pad somewhere to go to.
pub type Plug = dyn Fn(&gst::Pipeline, &gst::Pad) + Send + Sync;

pub struct MultiRecorder {
    pub pipeline: gst::Pipeline,
    pub element: gst::Element,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

#[derive(Default)]
pub struct Seen {
    /// `+src_0`, `added src_0`, `eos src_0`, `removed src_0 closed`, `-src_0`, `rejected busy`.
    pub happened: Vec<String>,
    pub buffers: BTreeMap<String, Vec<gst::Buffer>>,
    /// The stream key of each pad.
    pub keys: BTreeMap<String, String>,
    pub messages: Vec<gst::Message>,
}

impl Seen {
    pub fn buffers(&self, pad: &str) -> usize {
        self.buffers.get(pad).map_or(0, Vec::len)
    }

    pub fn has(&self, what: &str) -> bool {
        self.happened.iter().any(|happened| happened == what)
    }

    /// Element messages of this name, with the name of their source.
    pub fn told(&self, name: &str) -> Vec<(String, gst::Structure)> {
        let told = self.messages.iter().filter_map(|message| {
            let structure = message.structure().filter(|s| s.name() == name)?;
            Some((message.src()?.name().to_string(), structure.to_owned()))
        });
        told.collect()
    }

    pub fn of_kind(&self, kind: gst::MessageType) -> Vec<&gst::Message> {
        let messages = self.messages.iter();
        messages.filter(|message| message.type_() == kind).collect()
    }
}

impl MultiRecorder {
    /// With a sink for each pad that takes all.
    pub fn start(properties: &str) -> Self {
        Self::start_with(properties, into_fakesink)
    }

    pub fn start_with(
        properties: &str,
        plug: impl Fn(&gst::Pipeline, &gst::Pad) + Send + Sync + 'static,
    ) -> Self {
        let recorder = Self::new(properties, plug);
        recorder.play();
        recorder
    }

    /// In NULL.
    pub fn new(
        properties: &str,
        plug: impl Fn(&gst::Pipeline, &gst::Pad) + Send + Sync + 'static,
    ) -> Self {
        init();
        // Most tests end a publisher by closing its connection, and have nothing to wait for.
        let text = format!("rtmp2multiserversrc name=src port=0 resume-timeout=0 {properties}");
        let element = gst::parse::launch(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let pipeline = gst::Pipeline::new();
        pipeline.add(&element).unwrap();
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        watch_pads(&pipeline, &element, &seen, Box::new(plug));
        watch_signals(&element, &seen);
        let kept = seen.clone();
        pipeline.bus().unwrap().set_sync_handler(move |_, message| {
            note(&kept, |seen| seen.messages.push(message.clone()));
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

    /// Waits, without a fixed pause, until what was seen satisfies a condition.
    #[track_caller]
    pub fn wait_until<T>(&self, what: &str, condition: impl Fn(&Seen) -> Option<T>) -> T {
        let (seen, more) = &*self.seen;
        let mut found = None;
        let waited = more.wait_timeout_while(seen.lock().unwrap(), PATIENCE, |seen| {
            found = condition(seen);
            found.is_none()
        });
        let (seen, _) = waited.unwrap();
        found.unwrap_or_else(|| panic!("still waiting for {what}: {:?}", seen.happened))
    }

    /// Waits until this has happened.
    #[track_caller]
    pub fn wait_for(&self, what: &str) {
        self.wait_until(what, |seen| seen.has(what).then_some(()));
    }

    /// All that has happened of one pad, once so much has.
    #[track_caller]
    pub fn history(&self, pad: &str, count: usize) -> Vec<String> {
        self.wait_until(pad, |seen| {
            let of_pad = |what: &&String| {
                let mut words = what.split([' ', '+', '-']);
                words.any(|word| word == pad)
            };
            let history: Vec<String> = seen.happened.iter().filter(of_pad).cloned().collect();
            (history.len() >= count).then_some(history)
        })
    }

    #[track_caller]
    pub fn wait_for_buffers(&self, pad: &str, count: usize) {
        self.wait_until(&format!("{count} buffers of {pad}"), |seen| {
            (seen.buffers(pad) >= count).then_some(())
        });
    }

    /// Waits until the bus has told that a publisher of this pad is gone, for this reason.
    #[track_caller]
    pub fn wait_for_gone(&self, pad: &str, reason: &str) {
        self.wait_until(&format!("{reason} of {pad}"), |seen| {
            let told = seen.told("rtmp2-stream-event").into_iter();
            let mut gone = told.filter(|(_, event)| {
                let details = event.get::<gst::Structure>("details").unwrap();
                event.get("event") == Ok(StreamEvent::PublisherGone)
                    && event.get("pad") == Ok(pad)
                    && details.get("reason") == Ok(reason)
            });
            gone.next().map(|_| ())
        });
    }

    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.0.lock().unwrap())
    }

    #[track_caller]
    pub fn tags(&self, pad: &str) -> Vec<Tag> {
        self.look(|seen| {
            let mut bytes = Vec::new();
            for buffer in &seen.buffers[pad] {
                bytes.extend_from_slice(&buffer.map_readable().unwrap());
            }
            flv::parse(&bytes).unwrap()
        })
    }

    /// Lets go of what was kept of a pad, so that it is not counted as memory of the element.
    pub fn forget(&self, pad: &str) {
        self.seen.0.lock().unwrap().buffers.remove(pad);
    }
}

impl Drop for MultiRecorder {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
        // They have references to what they are from.
        note(&self.seen, |seen| seen.messages.clear());
    }
}

/// A publisher that has sent a bit, without which there is no pad.
pub fn publisher(port: u16, key: &str) -> RawClient {
    let mut client = RawClient::publish(port, "live", key);
    send(&mut client, &stream(0, 4));
    client
}

/// Into a sink of its own.
pub fn into_fakesink(pipeline: &gst::Pipeline, pad: &gst::Pad) {
    into(pipeline, pad, "fakesink sync=false async=false");
}

/// Into a sink of its own, described as one element.
pub fn into(pipeline: &gst::Pipeline, pad: &gst::Pad, text: &str) {
    let sink = gst::parse::bin_from_description(text, true).unwrap();
    sink.set_property("name", format!("sink_{}", pad.name()));
    pipeline.add(&sink).unwrap();
    sink.sync_state_with_parent().unwrap();
    pad.link(&sink.static_pad("sink").unwrap()).unwrap();
}

fn note(seen: &(Mutex<Seen>, Condvar), change: impl FnOnce(&mut Seen)) {
    // A test that has failed while it looked must not take the rest of the process with it.
    change(&mut seen.0.lock().unwrap_or_else(|e| e.into_inner()));
    seen.1.notify_all();
}

fn watch_pads(
    pipeline: &gst::Pipeline,
    element: &gst::Element,
    seen: &Arc<(Mutex<Seen>, Condvar)>,
    plug: Box<Plug>,
) {
    let (weak, kept) = (pipeline.downgrade(), seen.clone());
    element.connect_pad_added(move |_, pad| {
        watch_pad(pad, &kept);
        let name = pad.name().to_string();
        note(&kept, |seen| {
            seen.happened.push(format!("+{name}"));
            seen.keys.insert(name, pad.property("stream-key"));
        });
        if let Some(pipeline) = weak.upgrade() {
            plug(&pipeline, pad);
        }
    });
    let (weak, kept) = (pipeline.downgrade(), seen.clone());
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
        note(&kept, |seen| seen.happened.push(format!("-{name}")));
    });
}

/// What comes to the pad, whoever is linked to it.
fn watch_pad(pad: &gst::Pad, seen: &Arc<(Mutex<Seen>, Condvar)>) {
    let kinds = gst::PadProbeType::BUFFER
        | gst::PadProbeType::BUFFER_LIST
        | gst::PadProbeType::EVENT_DOWNSTREAM;
    let kept = seen.clone();
    let name = pad.name().to_string();
    let inner = pad.downcast_ref::<gst::GhostPad>().unwrap().internal();
    inner.unwrap().add_probe(kinds, move |_, info| {
        let buffers: Vec<gst::Buffer> = match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => vec![buffer.clone()],
            Some(gst::PadProbeData::BufferList(list)) => list.iter_owned().collect(),
            Some(gst::PadProbeData::Event(event)) => {
                if event.type_() == gst::EventType::Eos {
                    note(&kept, |seen| seen.happened.push(format!("eos {name}")));
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        note(&kept, |seen| {
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
        let kept = seen.clone();
        element.connect(name, false, move |arguments: &[glib::Value]| {
            let info: gst::Structure = arguments[1].get().unwrap();
            let pad: Option<String> = info.get("pad").ok();
            let reason: Option<String> = arguments.get(2).map(|reason| reason.get().unwrap());
            let words = [Some(name["publisher-".len()..].to_owned()), pad, reason];
            let words: Vec<String> = words.into_iter().flatten().collect();
            note(&kept, |seen| seen.happened.push(words.join(" ")));
            None
        });
    }
}
