// SPDX-License-Identifier: MPL-2.0

//! Elements without a linked pad: a WARNING while their media is dropped, and an ERROR at the
//! end of the stream, which no sink would report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use gst::prelude::*;
use parking_lot::Mutex;

use crate::flv::codec::CodecName;
use crate::flv::config::Dimensions;
use crate::flv::description::{AudioDescription, VideoDescription};

/// Media that is dropped before the warning.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(2);

/// Time after the end in which an application may still link a pad, since handlers of `pad-added`
/// may leave that to another thread.
const GRACE: Duration = Duration::from_millis(500);

/// Stands for no time.
const NONE: u64 = u64::MAX;

/// The links of the source pads of one element.
#[derive(Debug)]
pub(crate) struct LinkWatch {
    was_linked: AtomicBool,
    /// Decoding time of the first buffer that was dropped, in nanoseconds.
    first: AtomicU64,
    is_warned: AtomicBool,
    /// The pads that the warning has named: they may be gone at the end.
    pads: Mutex<String>,
}

impl Default for LinkWatch {
    fn default() -> Self {
        LinkWatch {
            was_linked: AtomicBool::new(false),
            first: AtomicU64::new(NONE),
            is_warned: AtomicBool::new(false),
            pads: Mutex::default(),
        }
    }
}

impl LinkWatch {
    /// Begins a new stream.
    pub(crate) fn reset(&self) {
        self.was_linked.store(false, Relaxed);
        self.first.store(NONE, Relaxed);
        self.is_warned.store(false, Relaxed);
        self.pads.lock().clear();
    }

    /// Notes when a pad of the element is linked.
    pub(crate) fn watch(self: &Arc<Self>, pad: &impl IsA<gst::Pad>) {
        let links = Arc::downgrade(self);
        pad.upcast_ref::<gst::Pad>().connect_linked(move |_, _| {
            if let Some(links) = links.upgrade() {
                links.was_linked.store(true, Relaxed);
            }
        });
    }

    /// Handles a buffer that was dropped at an unlinked pad. Warns once where nothing is linked.
    pub(crate) fn dropped(
        &self,
        element: &gst::Element,
        time: Option<gst::ClockTime>,
        pads: impl FnOnce() -> String,
    ) {
        if self.note_dropped(time) {
            let (name, pads) = (element.name(), pads());
            gst::element_warning!(
                element,
                gst::StreamError::Failed,
                ("Nothing is linked to {name}, so its media is dropped. It has these pads: {pads}")
            );
            *self.pads.lock() = pads;
        }
    }

    /// Returns true where the warning is due.
    fn note_dropped(&self, time: Option<gst::ClockTime>) -> bool {
        if self.was_linked.load(Relaxed) {
            return false;
        }
        let time = time.unwrap_or_default().nseconds();
        let first = self.first.compare_exchange(NONE, time, Relaxed, Relaxed);
        let first = first.unwrap_or_else(|first| first);
        first != NONE
            && time.saturating_sub(first) >= PATIENCE.nseconds()
            && !self.is_warned.swap(true, Relaxed)
    }

    /// Returns true where media was dropped, and no pad was ever linked.
    fn is_useless(&self) -> bool {
        !self.was_linked.load(Relaxed) && self.first.load(Relaxed) != NONE
    }

    /// Returns the end of a sentence about the pads at the end of the stream.
    fn last_pads(&self, present: String) -> String {
        if !present.is_empty() {
            return format!(", which has these pads: {present}");
        }
        match self.pads.lock().as_str() {
            "" => String::new(),
            before => format!(", which had these pads: {before}"),
        }
    }

    /// Handles the end of the stream. Posts an error, a moment later, where no pad was ever linked.
    pub(crate) fn end(self: &Arc<Self>, element: &gst::Element, pads: impl FnOnce() -> String) {
        if !self.is_useless() {
            return;
        }
        let pads = self.last_pads(pads());
        let (links, element) = (self.clone(), element.downgrade());
        let post = move |element: &gst::Element| {
            if links.is_useless() && element.current_state() > gst::State::Ready {
                let name = element.name();
                gst::element_error!(
                    element,
                    gst::StreamError::Failed,
                    ("The stream has ended, and nothing was ever linked to {name}{pads}")
                );
            }
        };
        let clock = gst::SystemClock::obtain();
        let wait = gst::ClockTime::try_from(GRACE).unwrap_or_default();
        let id = clock.new_single_shot_id(clock.time() + wait);
        let _ = id.wait_async(move |_, _, _| {
            if let Some(element) = element.upgrade() {
                element.call_async(post);
            }
        });
    }
}

/// Returns the source pads of an element with codec and size, by their caps.
pub(crate) fn pads_text(element: &gst::Element) -> String {
    let pads = element.src_pads();
    let pads = pads.iter().map(|pad| {
        let caps = pad.current_caps();
        let what = caps.as_deref().and_then(caps_text);
        match what {
            Some(what) => format!("{} ({what})", pad.name()),
            None => pad.name().to_string(),
        }
    });
    pads.collect::<Vec<_>>().join(", ")
}

/// Describes caps of a track.
fn caps_text(caps: &gst::CapsRef) -> Option<String> {
    let structure = caps.structure(0)?;
    let number = |name: &str| structure.get::<i32>(name).ok();
    let number = |name: &str| number(name).and_then(|number| u32::try_from(number).ok());
    let version = number("mpegversion");
    let codec = match (structure.name().as_str(), version) {
        ("video/x-h264", _) => "avc1",
        ("video/x-h265", _) => "hvc1",
        ("video/x-h266", _) => "vvc1",
        ("video/x-av1", _) => "av01",
        ("video/x-vp8", _) => "vp08",
        ("video/x-vp9", _) => "vp09",
        ("audio/mpeg", Some(4)) => "mp4a",
        ("audio/mpeg", _) => ".mp3",
        ("audio/x-opus", _) => "Opus",
        ("audio/x-flac", _) => "fLaC",
        ("audio/x-ac3", _) => "ac-3",
        ("audio/x-eac3", _) => "ec-3",
        (name, _) => return Some(name.to_owned()),
    };
    let codec: CodecName = codec.parse().ok()?;
    if structure.name().starts_with("audio/") {
        let audio = AudioDescription {
            track: 0,
            codec,
            rate: number("rate"),
            channels: number("channels"),
        };
        return Some(audio.to_string());
    }
    let size = number("width").zip(number("height"));
    let rate = structure.get::<gst::Fraction>("framerate").ok();
    let rate = rate.map(|rate| f64::from(rate.numer()) / f64::from(rate.denom()));
    let video = VideoDescription {
        track: 0,
        codec,
        profile: structure.get("profile").ok(),
        level: None,
        dimensions: size.and_then(|(width, height)| Dimensions::new(width, height)),
        frame_rate: rate.filter(|rate| *rate > 0.0),
    };
    Some(video.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Option<gst::ClockTime> {
        Some(gst::ClockTime::from_mseconds(millis))
    }

    #[test]
    fn two_seconds_of_dropped_media_warn_once() {
        let links = LinkWatch::default();
        assert!(!links.is_useless());
        assert!(!links.note_dropped(at(5000)));
        assert!(links.is_useless());
        assert!(!links.note_dropped(at(6999)));
        assert!(links.note_dropped(at(7000)));
        assert!(!links.note_dropped(at(20_000)));
        links.reset();
        assert!(!links.is_useless());
    }

    #[test]
    fn pads_that_are_gone_are_named_as_they_were() {
        let links = LinkWatch::default();
        let present = || "src_0 (AAC)".to_owned();
        assert_eq!(
            links.last_pads(present()),
            ", which has these pads: src_0 (AAC)"
        );
        assert_eq!(links.last_pads(String::new()), "");
        *links.pads.lock() = present();
        assert_eq!(
            links.last_pads(String::new()),
            ", which had these pads: src_0 (AAC)"
        );
        links.reset();
        assert_eq!(links.last_pads(String::new()), "");
    }

    #[test]
    fn a_link_ends_the_watch() {
        gst::init().unwrap();
        let links = Arc::new(LinkWatch::default());
        let source = gst::Pad::builder(gst::PadDirection::Src).build();
        let sink = gst::Pad::builder(gst::PadDirection::Sink).build();
        links.watch(&source);
        assert!(!links.note_dropped(at(0)));
        source.link(&sink).unwrap();
        assert!(!links.is_useless() && !links.note_dropped(at(9000)));
    }

    #[test]
    fn caps_are_described() {
        gst::init().unwrap();
        for (caps, expected) in [
            (
                "video/x-h264,profile=high,width=1280,height=720,framerate=25/1",
                "H.264 High 1280x720 25 fps",
            ),
            (
                "audio/mpeg,mpegversion=4,rate=48000,channels=2",
                "AAC 48 kHz stereo",
            ),
            ("audio/x-speex", "audio/x-speex"),
        ] {
            let caps: gst::Caps = caps.parse().unwrap();
            assert_eq!(caps_text(&caps).unwrap(), expected);
        }
    }
}
