// SPDX-License-Identifier: MPL-2.0

//! # eflvdemux
//!
//! SECTION:element-eflvdemux
//! @see_also: flvdemux, rtmp2serversrc
//!
//! Demuxes FLV and Enhanced FLV (Enhanced RTMP, versions 1 and 2): HEVC, AV1, VP9, VP8, VVC, Opus,
//! FLAC, AC-3 and E-AC-3 beside all that flvdemux has, and several tracks of audio and video in one
//! stream.
//!
//! ## Example pipelines
//!
//! ```bash
//! gst-launch-1.0 rtmp2serversrc port=1935 ! eflvdemux name=d \
//!     d.video_0 ! queue ! decodebin3 ! videoconvert ! autovideosink \
//!     d.audio_0 ! queue ! decodebin3 ! audioconvert ! audioresample ! autoaudiosink
//! ```
//! Shows and plays whatever is published, whatever it is coded in, also when that changes: decodebin3
//! takes another decoder then, decodebin fails.
//!
//! ```bash
//! gst-launch-1.0 -e rtmp2serversrc port=1935 ! eflvdemux name=d \
//!     matroskamux name=m ! filesink location=out.mkv \
//!     d.video_0 ! queue ! m.video_0 d.audio_0 ! queue ! m.audio_0
//! ```
//! Records as Matroska without coding anything anew. The caps say all that a muxer asks for, so no
//! parser is needed; a second track of audio is `d.audio_1`. matroskamux waits for each of its tracks
//! (that of GStreamer 1.22 ignores GAP events), so every publisher has to send all of them, in the codec
//! that the first one sent them in. mpegtsmux does not wait.
//!
//! ## Pads
//!
//! A track's pad is `video_` or `audio_` and its track id; what is sent without multitrack is track 0.
//! Pads come with the first media, for all tracks whose configuration came before it, and a track that
//! comes later gets its pad then, with a new `GstStreamCollection`. A track that stays away, or falls
//! back, holds nobody back who takes GAP events: it gets them once it is 0.4 seconds behind another one, so
//! that a queue of one second, which is the default of queue, has room for the others until then. Where
//! upstream has no times, as with files, that is 3 seconds.
//!
//! A track that changes gets new caps, also where it goes over to another codec. Not everything that is
//! linked takes that: #GstRtmp2ServerSrc:accepted-codecs of rtmp2serversrc keeps other codecs out.
//!
//! Payloads are not copied: buffers that leave are parts of the buffers that came, also where a buffer
//! has several tags or several tracks. Only a tag that lies across two buffers is put together.
//!
//! ## Times
//!
//! Where upstream has times, as rtmp2serversrc does, its segment and its times are kept, and PTS is
//! DTS plus the composition time offset, to the nanosecond where the stream has nanoseconds. Else
//! times are those of the tags, and the segment starts with the first of them.
//!
//! ## What is wrong in a stream
//!
//! A broken or unknown tag, packet or configuration is skipped and counted in
//! #GstEFlvDemux:stats, and there is one WARNING message for each kind. Nothing in a stream is an
//! error of this element, with one exception: a stream that ends without a single track, live or not, as
//! with other demuxers, since nobody downstream could learn of that end. With keep-listening of
//! rtmp2serversrc the stream does not end with a publisher.
//!
//! Pads need not be linked. On a live stream in TIME it is no error either if none is, for the track
//! that somebody waits for may come later; else that ends the stream, as with other demuxers.
//!
//! Of a file that can be read anywhere the element takes the bytes itself, in large pieces; else it
//! takes what upstream pushes. It does not seek in files. flvdemux does, and has the higher rank.
//!
//! Since: 0.1.0

use gst::glib;
use gst::prelude::*;

mod caps;
mod codec;
mod imp;
mod input;
mod stats;
mod stream;
mod tags;
mod times;
mod track;

pub(crate) use imp::source_templates;

glib::wrapper! {
    pub struct EFlvDemux(ObjectSubclass<imp::EFlvDemux>)
        @extends gst::Element, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "eflvdemux",
        // Below flvdemux, which seeks, and still there for whoever has no flvdemux or sees it fail.
        gst::Rank::MARGINAL - 1,
        EFlvDemux::static_type(),
    )
}
