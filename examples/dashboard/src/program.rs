// SPDX-License-Identifier: MPL-2.0

//! The interface of a program: it describes its streams, and lets operators act.

use std::sync::Arc;

use common::statistics::{Unit, number};
use gst::prelude::*;
use prometheus::proto::MetricFamily;
use serde::Serialize;

use crate::state::StreamState;
use crate::thumbnail::LastPicture;

/// A program with streams. Its methods must not wait: they run on the thread that serves HTTP.
pub trait Program: Send + Sync + 'static {
    /// Returns all streams, in the order in which they are shown.
    fn observations(&self) -> Vec<Observation>;

    /// Stops accepting publishers, and asks present ones to go elsewhere.
    fn drain(&self);

    /// Returns the statistics of the process, which each source has.
    fn process(&self, observations: &[Observation]) -> Option<gst::Structure> {
        let mut stats = observations
            .iter()
            .filter_map(|observation| observation.stats.as_ref());
        stats.find_map(|stats| stats.get("process").ok())
    }

    /// Returns the statistics of the elements that accept publishers, which count refused clients.
    /// By default each stream has an element of its own.
    fn elements(&self, observations: &[Observation]) -> Vec<ElementStats> {
        let element = |observation: &Observation| {
            Some(ElementStats {
                name: observation.name.clone(),
                application: observation.application.clone(),
                stats: observation.stats.clone()?,
            })
        };
        observations.iter().filter_map(element).collect()
    }

    /// Returns metrics beside those that all programs have.
    fn metrics(&self) -> Vec<MetricFamily> {
        Vec::new()
    }
}

/// An element that accepts publishers, at one time.
#[derive(Debug)]
pub struct ElementStats {
    pub name: String,
    pub application: String,
    pub stats: gst::Structure,
}

/// One stream at one time.
#[derive(Debug)]
pub struct Observation {
    /// The name of the stream, which appears once in the program.
    pub name: String,
    /// The application that its publisher names, and the stream's name in there, for `/stat`.
    pub application: String,
    pub stream: String,
    pub state: StreamState,
    /// Statistics of its source, where it has one that accepts publishers.
    pub stats: Option<gst::Structure>,
    /// In bits per second.
    pub bitrate: u64,
    /// Facts that only this program knows.
    pub details: Vec<Detail>,
    /// The way to its publisher, if there may be one.
    pub control: Option<Control>,
    /// The last decoded picture, where pictures are decoded anyway.
    pub picture: Option<Arc<LastPicture>>,
}

/// A line on the card of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Detail {
    pub label: String,
    pub value: String,
}

impl Detail {
    pub fn new(label: &str, value: impl Into<String>) -> Self {
        Detail {
            label: label.to_owned(),
            value: value.into(),
        }
    }
}

impl Observation {
    /// Describes the stream of an rtmp2serversrc.
    pub fn of_source(name: &str, application: &str, source: &gst::Element) -> Self {
        let stats: gst::Structure = source.property("stats");
        let mut observation = Observation::of_stats(name, application, name, stats);
        observation.control = Some(Control::Source(source.clone()));
        observation
    }

    /// Describes a stream by the statistics of its source.
    pub fn of_stats(name: &str, application: &str, stream: &str, stats: gst::Structure) -> Self {
        Observation {
            name: name.to_owned(),
            application: application.to_owned(),
            stream: stream.to_owned(),
            state: StreamState::of(&stats),
            bitrate: number(&stats, "bitrate", Unit::None).map_or(0, |rate| rate as u64),
            stats: Some(stats),
            details: Vec::new(),
            control: None,
            picture: None,
        }
    }

    /// Describes a stream without a publisher, such as one from a file.
    pub fn without_publisher(name: &str, state: StreamState) -> Self {
        Observation {
            name: name.to_owned(),
            application: String::new(),
            stream: name.to_owned(),
            state,
            stats: None,
            bitrate: 0,
            details: Vec::new(),
            control: None,
            picture: None,
        }
    }

    /// Returns the measured frame rate. The statistics keep that of a publisher that is silent or
    /// gone, for whom it says nothing any more.
    pub fn frame_rate(&self) -> Option<f64> {
        let is_active = self.state == StreamState::Active;
        let stats = self.stats.as_ref().filter(|_| is_active)?;
        number(stats, "frame-rate", Unit::None).filter(|rate| *rate > 0.0)
    }
}

/// The way to a publisher.
#[derive(Debug, Clone)]
pub enum Control {
    /// An rtmp2serversrc.
    Source(gst::Element),
    /// A pad of an rtmp2multiserversrc, by its name.
    Pad(gst::Element, String),
}

/// The words of a publisher that is asked to reconnect.
const DESCRIPTION: &str = "The operator asks to reconnect";

impl Control {
    /// Disconnects the publisher, or ends the wait for one that may return.
    pub fn disconnect(&self) {
        match self {
            Control::Source(source) => source.emit_by_name::<()>("disconnect-publisher", &[]),
            Control::Pad(source, pad) => {
                source.emit_by_name::<()>("disconnect-publisher", &[pad]);
            }
        }
    }

    /// Asks the publisher to connect again. Returns false where there is none, or where it does not
    /// support that.
    pub fn request_reconnect(&self) -> bool {
        match self {
            Control::Source(source) => {
                source.emit_by_name("request-reconnect", &[&"", &DESCRIPTION])
            }
            Control::Pad(source, pad) => {
                source.emit_by_name("request-reconnect", &[pad, &"", &DESCRIPTION])
            }
        }
    }
}
