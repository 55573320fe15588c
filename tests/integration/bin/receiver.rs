// SPDX-License-Identifier: MPL-2.0

//! Runs the bin in a pipeline of this process and records its output.

use std::sync::{Arc, Condvar, Mutex};

use gst::prelude::*;

use support::demuxer::{Packet, Track, Tracks};
use support::{PATIENCE, init};

pub struct Receiver {
    pub pipeline: gst::Pipeline,
    pub bin: gst::Element,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

#[derive(Default)]
pub struct Seen {
    pub tracks: Tracks,
    /// The bin's pads by name in the order of their appearance, and `no-more-pads`.
    pub pads: Vec<String>,
    pub messages: Vec<gst::Message>,
}

impl Seen {
    pub fn packets(&self, pad: &str) -> usize {
        self.tracks.get(pad).map_or(0, |track| track.packets.len())
    }

    /// Element messages of this name, with the name of their source.
    pub fn element_messages(&self, name: &str) -> Vec<(String, gst::Structure)> {
        let found = self.messages.iter().filter_map(|message| {
            let structure = message.structure().filter(|s| s.name() == name)?;
            Some((message.src()?.name().to_string(), structure.to_owned()))
        });
        found.collect()
    }
}

impl Receiver {
    pub fn start(properties: &str) -> Self {
        Self::start_linking(properties, |_| true)
    }

    /// Links only the pads that `is_wanted` accepts.
    pub fn start_linking(
        properties: &str,
        is_wanted: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Self {
        let receiver = Self::new(properties, is_wanted);
        receiver.play();
        receiver
    }

    /// Links a pad that was left unlinked to a sink.
    pub fn link(&self, pad: &str) {
        let pad = self.bin.static_pad(pad).unwrap();
        link(&self.pipeline, &pad, self.seen.clone());
    }

    /// Sets a URI as players of URIs do.
    pub fn set_uri(&self, uri: &str) {
        let handler = self.bin.dynamic_cast_ref::<gst::URIHandler>();
        handler.unwrap().set_uri(uri).unwrap();
    }

    pub fn play(&self) {
        self.pipeline.set_state(gst::State::Playing).unwrap();
    }

    /// Builds the pipeline without starting it.
    pub fn new(properties: &str, is_wanted: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        init();
        let text = format!("rtmp2serverbin name=bin port=0 resume-timeout=0 {properties}");
        // A single element would not become a pipeline.
        let bin = gst::parse::launch(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let pipeline = gst::Pipeline::new();
        pipeline.set_bin_flags(gst::BinFlags::STREAMS_AWARE);
        pipeline.add(&bin).unwrap();
        let seen = Arc::new((Mutex::new(Seen::default()), Condvar::new()));
        let (weak, record) = (pipeline.downgrade(), seen.clone());
        bin.connect_pad_added(move |_, pad| {
            update(&record, |seen| seen.pads.push(pad.name().to_string()));
            if let Some(pipeline) = weak.upgrade()
                && is_wanted(&pad.name())
            {
                link(&pipeline, pad, record.clone());
            }
        });
        let record = seen.clone();
        bin.connect_pad_removed(move |_, pad| {
            update(&record, |seen| seen.pads.push(format!("-{}", pad.name())));
        });
        let record = seen.clone();
        bin.connect_no_more_pads(move |_| {
            update(&record, |seen| seen.pads.push("no-more-pads".to_owned()));
        });
        let record = seen.clone();
        pipeline.bus().unwrap().set_sync_handler(move |_, message| {
            update(&record, |seen| seen.messages.push(message.clone()));
            gst::BusSyncReply::Pass
        });
        Receiver {
            pipeline,
            bin,
            seen,
        }
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
        found.unwrap_or_else(|| {
            let kinds = seen.messages.iter().map(|message| message.type_());
            let kinds: Vec<_> = kinds.collect();
            panic!("still waiting for {what}: {:?}, {kinds:?}", seen.pads)
        })
    }

    #[track_caller]
    pub fn wait_for_packets(&self, pad: &str, count: usize) {
        let what = format!("{count} packets of {pad}");
        self.wait_until(&what, |seen| (seen.packets(pad) >= count).then_some(()));
    }

    /// Waits for EOS and returns the output until then.
    #[track_caller]
    pub fn finish(&self) -> Tracks {
        self.wait_until("the end", |seen| {
            let mut messages = seen.messages.iter();
            messages
                .any(|message| message.type_() == gst::MessageType::Eos)
                .then_some(())
        });
        self.inspect(|seen| {
            let mut messages = seen.messages.iter();
            let error = messages.find(|message| message.type_() == gst::MessageType::Error);
            assert!(error.is_none(), "{error:?}");
            seen.tracks.clone()
        })
    }

    pub fn inspect<T>(&self, inspect: impl FnOnce(&Seen) -> T) -> T {
        inspect(&self.seen.0.lock().unwrap())
    }

    pub fn port(&self) -> u16 {
        self.bin.property::<u32>("current-port") as u16
    }

    pub fn url(&self, path: &str) -> String {
        format!("rtmp://127.0.0.1:{}/{path}", self.port())
    }

    /// Returns one of the two elements in the bin.
    pub fn child(&self, name: &str) -> gst::Element {
        let bin = self.bin.downcast_ref::<gst::Bin>().unwrap();
        bin.by_name(name).unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
        // Messages hold the bin, whose handlers hold them.
        *self.seen.0.lock().unwrap() = Seen::default();
    }
}

fn update(seen: &(Mutex<Seen>, Condvar), change: impl FnOnce(&mut Seen)) {
    change(&mut seen.0.lock().unwrap());
    seen.1.notify_all();
}

/// Links a pad to a sink that records its input.
fn link(pipeline: &gst::Pipeline, pad: &gst::Pad, seen: Arc<(Mutex<Seen>, Condvar)>) {
    let sink = gst::ElementFactory::make("fakesink")
        .property("sync", false)
        .property("async", false)
        .build()
        .unwrap();
    pipeline.add(&sink).unwrap();
    let end = sink.static_pad("sink").unwrap();
    let name = pad.name().to_string();
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    end.add_probe(kinds, move |_, info| {
        update(&seen, |seen| {
            let track = seen.tracks.entry(name.clone()).or_default();
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => record_packet(track, buffer),
                Some(gst::PadProbeData::Event(event)) => {
                    if let gst::EventView::Caps(caps) = event.view() {
                        track.caps.push(caps.caps_owned());
                    }
                    track.events.push(event.clone());
                }
                _ => {}
            }
        });
        gst::PadProbeReturn::Ok
    });
    sink.sync_state_with_parent().unwrap();
    pad.link(&end).unwrap();
}

fn record_packet(track: &mut Track, buffer: &gst::Buffer) {
    track.packets.push(Packet {
        dts: buffer.dts().map(gst::ClockTime::nseconds),
        pts: buffer.pts().map(gst::ClockTime::nseconds),
        data: buffer.map_readable().unwrap().to_vec(),
        is_delta: buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
    });
    track.buffers.push(buffer.clone());
}
