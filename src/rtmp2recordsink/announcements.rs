// SPDX-License-Identifier: MPL-2.0

//! Messages on the bus. Their form is part of the element's interface.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use parking_lot::Mutex;

use super::file::{Failure, Track};
use super::{CAT, Rtmp2RecordSink};

/// Version of the structures in here. A new one means that a field has another meaning.
const VERSION: u32 = 1;

/// Interval of equal warnings. A disk that stays full is told once in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Names of the stream that is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StreamNames {
    pub(super) application: String,
    pub(super) stream_key: String,
    pub(super) variables: Vec<(String, String)>,
}

impl StreamNames {
    pub(super) fn field(&self, name: &str) -> Option<String> {
        match name {
            "application" => Some(self.application.clone()),
            "stream-key" => Some(self.stream_key.clone()),
            name => {
                let mut variables = self.variables.iter();
                let found = variables.find(|(variable, _)| variable == name);
                found.map(|(_, value)| value.clone())
            }
        }
    }
}

/// An event in the life of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileEvent {
    Opened,
    Finished,
    Failed,
    Recovered,
    Deleted,
}

impl FileEvent {
    fn nick(self) -> &'static str {
        match self {
            FileEvent::Opened => "opened",
            FileEvent::Finished => "finished",
            FileEvent::Failed => "failed",
            FileEvent::Recovered => "recovered",
            FileEvent::Deleted => "deleted",
        }
    }
}

/// Facts about a file that is written, or was.
#[derive(Debug, Clone)]
pub(super) struct FileFacts {
    pub(super) names: StreamNames,
    pub(super) tracks: Vec<Track>,
    pub(super) begun_at: Option<glib::DateTime>,
    /// Running times in nanoseconds.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) packets: u64,
}

/// Returns `rtmp2-recorded-file` with the fields that each event has.
pub(super) fn file(event: FileEvent, path: &Path, bytes: u64) -> gst::Structure {
    gst::Structure::builder("rtmp2-recorded-file")
        .field("version", VERSION)
        .field("event", event.nick())
        .field("path", path.to_string_lossy().as_ref())
        .field("bytes", bytes)
        .build()
}

/// Returns `rtmp2-recorded-file` about a file of this run.
pub(super) fn own_file(
    event: FileEvent,
    path: &Path,
    bytes: u64,
    facts: &FileFacts,
) -> gst::Structure {
    let mut structure = file(event, path, bytes);
    structure.set("application", &facts.names.application);
    structure.set("stream-key", &facts.names.stream_key);
    let track = |track: &Track| {
        let media = track.caps.structure(0).map_or("", |caps| caps.name());
        gst::Structure::builder("track")
            .field("name", &track.name)
            .field("media-type", media)
            .build()
    };
    structure.set("tracks", gst::Array::new(facts.tracks.iter().map(track)));
    structure.set("start-time", facts.start);
    structure.set("end-time", facts.end);
    structure.set("packets", facts.packets);
    if let Some(begun_at) = &facts.begun_at {
        structure.set("date-time", gst::DateTime::from(begun_at.clone()));
    }
    structure
}

pub(super) fn post(element: &Rtmp2RecordSink, structure: gst::Structure) {
    let message = gst::message::Element::builder(structure)
        .src(element)
        .build();
    // Fails where there is no bus.
    let _ = element.post_message(message);
}

/// Posts warnings, equal ones not all the time.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    posted: Mutex<HashMap<String, Instant>>,
}

impl Warnings {
    pub(super) fn post_failure(&self, element: &Rtmp2RecordSink, path: &Path, failure: &Failure) {
        // Each attempt has another path.
        let key = match failure {
            Failure::Stalled(_) => "stalled".to_owned(),
            _ => failure.to_string(),
        };
        if !self.is_due(&key) {
            return;
        }
        let error = match failure {
            Failure::NoSpace(_) => gst::ResourceError::NoSpaceLeft,
            Failure::Write(_) | Failure::Stalled(_) => gst::ResourceError::OpenWrite,
            Failure::Mux(_) => {
                let text = format!("Cannot record {}: {failure}", path.display());
                return post_warning(element, gst::StreamError::Mux, &text);
            }
        };
        let text = format!(
            "Cannot record {}: {failure}. Recording goes on in another file once it can",
            path.display()
        );
        post_warning(element, error, &text);
    }

    pub(super) fn post(
        &self,
        element: &Rtmp2RecordSink,
        error: impl gst::MessageErrorDomain,
        text: &str,
    ) {
        if self.is_due(text) {
            post_warning(element, error, text);
        }
    }

    fn is_due(&self, text: &str) -> bool {
        let now = Instant::now();
        let is_recent = |at: &Instant| now.duration_since(*at) < WARNING_INTERVAL;
        let mut posted = self.posted.lock();
        posted.retain(|_, at| is_recent(at));
        posted.insert(text.to_owned(), now).is_none()
    }
}

fn post_warning(element: &Rtmp2RecordSink, error: impl gst::MessageErrorDomain, text: &str) {
    gst::warning!(CAT, obj = element, "{text}");
    let message = gst::message::Warning::builder(error, text)
        .src(element)
        .build();
    let _ = element.post_message(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_goes_on_is_told_once_whatever_its_path() {
        gst::init().unwrap();
        let element: Rtmp2RecordSink = glib::Object::new();
        let bus = gst::Bus::new();
        element.set_bus(Some(&bus));
        let warnings = Warnings::default();
        let full = Failure::NoSpace("No space left on device".into());
        let read_only = Failure::Write("Read-only file system".into());
        for path in ["a.mp4", "a-1.mp4", "a-2.mp4"] {
            warnings.post_failure(&element, Path::new(path), &full);
            warnings.post_failure(&element, Path::new(path), &read_only);
        }
        let texts = bus.iter().filter_map(|message| match message.view() {
            gst::MessageView::Warning(warning) => Some(warning.error().to_string()),
            _ => None,
        });
        let texts: Vec<String> = texts.collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].contains("No space left"), "{texts:?}");
        assert!(texts[1].contains("Read-only"), "{texts:?}");
    }
}
