// SPDX-License-Identifier: MPL-2.0

//! The elements that accept publishers: one port, and a pad for each publisher.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use common::journal;
use dashboard::{Control, Detail, ElementStats, Observation, Program, RejectedClients};
use gst::prelude::*;
use gst_app::{AppSink, AppSinkCallbacks};
use gstrtmp2server::StreamStatus;

use crate::catalog::{StreamInfo, StreamName};
use crate::mailbox::{Mailbox, PushResult, QueuedTag};
use crate::options::Options;
use crate::streams::Streams;
use crate::web::Site;

/// Application and stream key of accepted publishers.
const ROUTES: [(&str, &str); 2] = [
    ("{application}/{user}", "{stream}"),
    ("{application}", "{stream}"),
];

/// Lower bound of the number of connections, however few streams there may be.
const MIN_CLIENTS: u32 = 100;

/// One element per route, all on the same port.
#[derive(Debug)]
pub struct Ingest {
    entries: Vec<Arc<Entry>>,
}

#[derive(Debug)]
struct Entry {
    pipeline: gst::Pipeline,
    source: gst::Element,
    /// Limit of streams over all routes.
    max_streams: usize,
    streams: Arc<Streams>,
    site: Arc<Site>,
    refusals: Arc<RejectedClients>,
    /// Publishers by the name of their pad.
    publishers: Mutex<HashMap<String, Publisher>>,
}

#[derive(Debug)]
struct Publisher {
    name: StreamName,
    sink: AppSink,
    mailbox: Arc<Mailbox>,
}

impl Ingest {
    /// Also returns the port that it listens on.
    pub fn start(
        options: &Options,
        streams: &Arc<Streams>,
        site: &Arc<Site>,
        refusals: &Arc<RejectedClients>,
    ) -> Result<(Self, u16), Box<dyn Error>> {
        let mut ingest = Ingest {
            entries: Vec::new(),
        };
        // The first element may bind any free port; the others join it there.
        let mut port = u32::from(options.rtmp.port);
        for (application, stream_key) in ROUTES {
            let source = gst::ElementFactory::make("rtmp2multiserversrc")
                .property("host", &options.rtmp.host)
                .property("port", port)
                .property("application", application)
                .property("stream-key", stream_key)
                .property("max-streams", options.max_streams)
                .property(
                    "max-clients",
                    options.max_streams.saturating_mul(2).max(MIN_CLIENTS),
                )
                // All clients may be behind one address.
                .property(
                    "max-clients-per-address",
                    options.max_streams.max(MIN_CLIENTS),
                )
                .build()?;
            options.access.apply(&source)?;
            dashboard::watch::watch(&source, refusals, name_or_masked);
            let entry = Entry::start(&source, options.max_streams, streams, site, refusals);
            let entry = entry.map_err(|error| format!("--rtmp {}: {error}", options.rtmp))?;
            ingest.entries.push(entry);
            port = source.property("current-port");
        }
        Ok((ingest, u16::try_from(port)?))
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        for entry in &self.entries {
            let _ = entry.pipeline.set_state(gst::State::Null);
        }
    }
}

impl Entry {
    fn start(
        source: &gst::Element,
        max_streams: u32,
        streams: &Arc<Streams>,
        site: &Arc<Site>,
        refusals: &Arc<RejectedClients>,
    ) -> Result<Arc<Self>, Box<dyn Error>> {
        let pipeline = gst::Pipeline::new();
        pipeline.add(source)?;
        let entry = Arc::new(Entry {
            pipeline,
            source: source.clone(),
            max_streams: usize::try_from(max_streams)?,
            streams: streams.clone(),
            site: site.clone(),
            refusals: refusals.clone(),
            publishers: Mutex::default(),
        });
        entry.listen_to(source);
        let bus = entry.pipeline.bus().ok_or("a pipeline has a bus")?;
        if entry.pipeline.set_state(gst::State::Playing).is_err() {
            let message = bus.pop_filtered(&[gst::MessageType::Error]);
            entry.pipeline.set_state(gst::State::Null)?;
            return Err(match message.as_ref().map(|message| message.view()) {
                Some(gst::MessageView::Error(error)) => error.error().to_string().into(),
                _ => "the port cannot be bound".into(),
            });
        }
        let weak = Arc::downgrade(&entry);
        bus.set_sync_handler(move |_, message| {
            if let Some(entry) = weak.upgrade() {
                entry.handle_message(message);
            }
            gst::BusSyncReply::Drop
        });
        Ok(entry)
    }

    fn listen_to(self: &Arc<Self>, source: &gst::Element) {
        let entry = Arc::downgrade(self);
        source.connect("publisher-connecting", false, move |arguments| {
            let info: gst::Structure = arguments[1].get().ok()?;
            let checked = entry.upgrade()?.check(&info);
            if let Err(reason) = checked {
                let text = format!("a publisher was refused: {reason}");
                journal::warning("denied").say(text);
            }
            Some(checked.is_ok().to_value())
        });
        let entry = Arc::downgrade(self);
        source.connect_pad_added(move |_, pad| {
            if let Some(entry) = entry.upgrade() {
                entry.add(pad);
            }
        });
        let entry = Arc::downgrade(self);
        source.connect_pad_removed(move |_, pad| {
            if let Some(entry) = entry.upgrade() {
                entry.remove(&pad.name());
            }
        });
        let entry = Arc::downgrade(self);
        source.connect("publisher-added", false, move |arguments| {
            let entry = entry.upgrade()?;
            let source: gst::Element = arguments[0].get().ok()?;
            let info: gst::Structure = arguments[1].get().ok()?;
            let pad: &str = info.get("pad").ok()?;
            entry
                .site
                .reconnect
                .ask(&source, pad, &info, &name_of(&info)?);
            None
        });
    }

    fn check(&self, info: &gst::StructureRef) -> Result<(), &'static str> {
        let Some(name) = name_of(info) else {
            return Err(
                "application, user and stream must be names of directories, which do not start with a \
                 dot, nor end in .ts or .m3u8",
            );
        };
        let streams = self.site.catalog.streams();
        // A publisher that returns needs no more space.
        if streams.len() >= self.max_streams && streams.iter().all(|(other, _)| *other != name) {
            return Err("the limit of --max-streams is reached");
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Publisher>> {
        self.publishers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the tags of a pad to its stream.
    fn add(&self, pad: &gst::Pad) {
        let variables: gst::Structure = pad.property("variables");
        // Publishers without a name were refused.
        let Some(name) = name_in(&variables) else {
            return;
        };
        if let Err(error) = self.try_add(pad, &name) {
            let text = format!("{name}: it cannot start: {error}. Its publisher has to reconnect");
            journal::warning("failed")
                .with("stream", name.to_string())
                .say(text);
        }
    }

    fn try_add(&self, pad: &gst::Pad, name: &StreamName) -> Result<(), Box<dyn Error>> {
        let mailbox = self.streams.start(name)?;
        let sink = sink(name, &mailbox);
        let publisher = Publisher {
            name: name.clone(),
            sink: sink.clone(),
            mailbox,
        };
        self.lock().insert(pad.name().to_string(), publisher);
        self.pipeline.add(&sink)?;
        sink.sync_state_with_parent()?;
        let entry = sink.static_pad("sink").ok_or("a sink without a pad")?;
        pad.link(&entry)?;
        Ok(())
    }

    fn remove(&self, pad: &str) {
        let Some(publisher) = self.lock().remove(pad) else {
            return;
        };
        publisher.mailbox.end();
        let pipeline = self.pipeline.clone();
        // This may be the thread that delivers the tags.
        publisher.sink.call_async(move |sink| {
            let _ = sink.set_state(gst::State::Null);
            let _ = pipeline.remove(sink);
        });
    }

    fn handle_message(&self, message: &gst::Message) {
        match message.view() {
            gst::MessageView::Error(error) => {
                let error = error.error().to_string();
                journal::warning("failed").say(format!(
                    "no more publishers are accepted: {error}. Restart this program"
                ));
                self.site.health.set("rtmp", Some(error));
            }
            gst::MessageView::Warning(_) => {
                dashboard::watch::log_warning(&self.refusals, message);
            }
            gst::MessageView::Element(element) => {
                let Some(structure) = element.structure() else {
                    return;
                };
                match structure.name().as_str() {
                    "rtmp2-stream-status" => self.status_changed(structure),
                    "rtmp2-stream-event" => self.log_event(structure),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn log_event(&self, event: &gst::StructureRef) {
        let pad = event.get::<&str>("pad").ok();
        let name = {
            let publishers = self.lock();
            let publisher = pad.and_then(|pad| publishers.get(pad));
            publisher.map(|publisher| publisher.name.to_string())
        };
        if let Some(name) = name {
            dashboard::watch::log_message(&name, event);
        }
    }

    fn status_changed(&self, status: &gst::StructureRef) {
        let pad = status.get::<&str>("pad").ok();
        let is_paused = status.get("stream-status") == Ok(StreamStatus::Paused);
        let publishers = self.lock();
        if let Some(publisher) = pad.and_then(|pad| publishers.get(pad)) {
            self.site.catalog.update(&publisher.name, |stream| {
                stream.is_interrupted = is_paused;
            });
        }
    }
}

/// The streams of all elements, as the page shows them.
#[derive(Debug)]
pub struct Publishers {
    entries: Vec<Arc<Entry>>,
    site: Arc<Site>,
}

impl Ingest {
    pub fn publishers(&self, site: &Arc<Site>) -> Arc<Publishers> {
        Arc::new(Publishers {
            entries: self.entries.clone(),
            site: site.clone(),
        })
    }
}

impl Program for Publishers {
    fn observations(&self) -> Vec<Observation> {
        let listed: HashMap<StreamName, StreamInfo> =
            self.site.catalog.streams().into_iter().collect();
        // A stream that has returned may have two pads for a moment; the present one is later.
        let mut observations: BTreeMap<String, Observation> = BTreeMap::new();
        for entry in &self.entries {
            for (name, observation) in entry.observations() {
                let info = listed.get(&name);
                observations.insert(name.to_string(), described(observation, info));
            }
        }
        observations.into_values().collect()
    }

    fn drain(&self) {
        for entry in &self.entries {
            entry.source.set_property("drain", true);
        }
        let problem = "it drains, and accepts no publisher: restart it";
        self.site.health.set("rtmp", Some(problem.to_owned()));
    }

    fn elements(&self, _observations: &[Observation]) -> Vec<ElementStats> {
        let element = |entry: &Arc<Entry>| {
            let name = |property| entry.source.property::<Option<String>>(property);
            ElementStats {
                name: name("stream-key").unwrap_or_default(),
                application: name("application").unwrap_or_default(),
                stats: entry.source.property("stats"),
            }
        };
        self.entries.iter().map(element).collect()
    }

    fn process(&self, _observations: &[Observation]) -> Option<gst::Structure> {
        let stats: gst::Structure = self.entries.first()?.source.property("stats");
        stats.get("process").ok()
    }
}

impl Entry {
    /// Returns the streams that have a pad.
    fn observations(&self) -> Vec<(StreamName, Observation)> {
        let stats: gst::Structure = self.source.property("stats");
        let streams = stats.get::<gst::Array>("streams").ok();
        let publishers = self.lock();
        let observation = |stats: gst::Structure| {
            let pad = stats.get::<String>("pad").ok()?;
            let name = publishers.get(&pad)?.name.clone();
            let application = match &name.user {
                Some(user) => format!("{}/{user}", name.application),
                None => name.application.clone(),
            };
            let text = name.to_string();
            let mut observation = Observation::of_stats(&text, &application, &name.stream, stats);
            observation.control = Some(Control::Pad(self.source.clone(), pad));
            Some((name, observation))
        };
        let streams = streams.iter().flat_map(|streams| streams.iter());
        let streams = streams.filter_map(|stats| stats.get::<gst::Structure>().ok());
        streams.filter_map(observation).collect()
    }
}

/// Adds what the relay makes of a stream.
fn described(mut observation: Observation, info: Option<&StreamInfo>) -> Observation {
    let Some(info) = info else {
        return observation;
    };
    let mut add = |label, value: String| observation.details.push(Detail::new(label, value));
    let handled = match info.is_passed_through {
        true => "passed through",
        false => "cleaned",
    };
    match (info.is_ready, &info.failure) {
        (_, Some(failure)) => add("HLS", failure.clone()),
        (true, None) => add(
            "HLS",
            format!("{handled}, {} segments", info.counts.segments),
        ),
        (false, None) => add("HLS", "starts in a moment".to_owned()),
    }
    observation.picture = Some(info.picture.clone());
    observation
}

/// Returns the name of a publisher's stream. That of a refused one may be no stream.
fn name_or_masked(info: &gst::StructureRef) -> String {
    let text = |field| info.get::<&str>(field).unwrap_or_default();
    match name_of(info) {
        Some(name) => name.to_string(),
        None => {
            let key = dashboard::rejected_clients::masked(text("stream-key"));
            format!("{}/{key}", text("application"))
        }
    }
}

/// Returns the stream of the publisher that `info` describes.
fn name_of(info: &gst::StructureRef) -> Option<StreamName> {
    let variables: gst::Structure = info.get("variables").ok()?;
    name_in(&variables)
}

fn name_in(variables: &gst::StructureRef) -> Option<StreamName> {
    let user = variables.get::<&str>("user").ok();
    StreamName::new(
        variables.get("application").ok()?,
        user,
        variables.get("stream").ok()?,
    )
}

/// Makes a sink that puts each tag into the mailbox, and never waits.
fn sink(name: &StreamName, mailbox: &Arc<Mailbox>) -> AppSink {
    let (name, ended, mailbox) = (name.clone(), mailbox.clone(), mailbox.clone());
    let callbacks = AppSinkCallbacks::builder()
        .eos(move |_| ended.end())
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            if let Some(tag) = tag(&sample)
                && mailbox.push(tag) == PushResult::Full
            {
let text = format!("{name}: its media is dropped up to a keyframe, since it comes faster than it can be decoded and \
                     coded. This machine has too many streams, or pictures that are too large for it");
journal::warning("overload").with("stream", name.to_string()).say(text);
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    AppSink::builder()
        .sync(false)
        .async_(false)
        .callbacks(callbacks)
        .build()
}

fn tag(sample: &gst::Sample) -> Option<QueuedTag> {
    let buffer = sample.buffer_owned()?;
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    let time = segment.to_running_time(buffer.dts_or_pts()?)?;
    let flags = buffer.flags();
    let is_header = flags.contains(gst::BufferFlags::HEADER);
    let meta = buffer.meta::<gst::ReferenceTimestampMeta>()?;
    let epoch = meta.reference().structure(0)?.get("epoch").ok()?;
    Some(QueuedTag {
        caps: sample.caps_owned()?,
        time: i64::try_from(time.nseconds()).ok()?,
        epoch,
        is_start: !is_header && !flags.contains(gst::BufferFlags::DELTA_UNIT),
        buffer,
    })
}
