// SPDX-License-Identifier: MPL-2.0

//! # eflvdemux
//!
//! SECTION:element-eflvdemux
//! @see_also: flvdemux, rtmp2serversrc
//!
//! Demuxes FLV and Enhanced FLV (Enhanced RTMP, versions 1 and 2): HEVC, AV1, VP9, VP8, VVC, Opus,
//! FLAC, AC-3 and E-AC-3 in addition to the codecs of flvdemux, and several tracks of audio and
//! video in one stream.
//!
//! ## Example pipelines
//!
//! ```bash
//! gst-launch-1.0 rtmp2serversrc port=1935 ! eflvdemux name=d \
//!     d.video_0 ! queue ! decodebin3 ! videoconvert ! autovideosink \
//!     d.audio_0 ! queue ! decodebin3 ! audioconvert ! audioresample ! autoaudiosink
//! ```
//! Shows and plays any publisher, whatever its codecs, also when they change: decodebin3 then
//! switches to another decoder, decodebin fails.
//!
//! ```bash
//! gst-launch-1.0 -e rtmp2serversrc port=1935 ! eflvdemux name=d \
//!     matroskamux name=m ! filesink location=out.mkv \
//!     d.video_0 ! queue ! m.video_0 d.audio_0 ! queue ! m.audio_0
//! ```
//! Records as Matroska without transcoding. The caps have all that a muxer asks for, so no parser
//! is needed; a second audio track is `d.audio_1`. matroskamux waits for each of its tracks (the
//! one of GStreamer 1.22 ignores GAP events), so every publisher has to send all of them, in the
//! codec of the first publisher. mpegtsmux does not wait.
//!
//! ## Pads
//!
//! A track's pad is `video_` or `audio_` and its track id. Media without multitrack is track 0. The
//! first media adds the pads of all tracks whose configuration came before it. A later track gets
//! its pad when it comes. In a bin that is STREAMS_AWARE, as that of uridecodebin3, each change of
//! the tracks also sends a new `GstStreamCollection`.
//!
//! A track that stays away or falls behind holds back no element that accepts GAP events. It gets
//! them once nothing of it has come while another track advanced by 0.4 seconds, so that a queue of
//! one second, the default of queue, has room for the others until then. In a live pipeline with a
//! larger latency it is that latency: media that comes within it is still in time. Where upstream
//! has no times, as with files, it is 3 seconds. A track that then comes after all was only late,
//! and gets no GAP for that lag again.
//!
//! A track that changes gets new caps, also when it changes to another codec. Not every element
//! downstream supports that: #GstRTMP2ServerSrc:accepted-codecs of rtmp2serversrc keeps other
//! codecs out.
//!
//! Configurations, colours and metadata also come from the `streamheader` of upstream's caps, so
//! that a demuxer that is linked late starts at once. A new `streamheader`, as the next publisher
//! has it, states all that holds: other facts are forgotten.
//!
//! AVC and HEVC leave with a standard configuration record and NAL unit lengths, also where they
//! came in Annex B, with start codes within the record, or with parameter sets in the frames alone.
//!
//! Payloads are not copied: outgoing buffers are parts of the incoming ones, also where a buffer
//! has several tags or several tracks. Only tags that lie across two buffers, that are found after
//! lost bytes, or that are in Annex B are put together.
//!
//! ## Times
//!
//! Where upstream has times, as rtmp2serversrc does, its segment and its times stay, and PTS is DTS
//! plus the composition time offset, to the nanosecond where the stream has nanoseconds. Otherwise
//! times are those of the tags, and the segment starts with the first of them.
//!
//! Where times of the tags restart, as in a second file after the first, they go on, with the same
//! shift for all tracks.
//!
//! ## Timed metadata
//!
//! Script data other than `onMetaData`, as `onTextData`, `onCuePoint` or `onCaption`, leaves every
//! pad as a custom downstream event, in order with the media, and is posted as an element message.
//! Both have the structure `rtmp2-script-data` with these fields:
//!
//! - `name`: string, the name of the script data
//! - `timestamp`: guint64, its time in the segment, in nanoseconds
//! - `running-time`: guint64, the same as running time; missing outside the segment
//! - `values`: string, its values as a JSON array
//! - `body`: GstBuffer, the body of the tag in AMF0
//!
//! ```bash
//! gst-launch-1.0 -m rtmp2serversrc port=1935 ! eflvdemux name=d \
//!     d.video_0 ! queue ! decodebin3 ! videoconvert ! autovideosink
//! ```
//! Shows the video and prints the messages, such as `rtmp2-script-data, name=(string)onTextData,
//! timestamp=(guint64)1500000000, values=(string)"[{\"text\":\"hello\"}]"`.
//!
//! ## Problems in a stream
//!
//! A broken or unknown tag, packet or configuration is skipped and counted in
//! #GstEFLVDemux:stats, with one WARNING message for each kind. Nothing in a stream is an error of
//! this element, with one exception: a stream, live or not, that ends without a single track, as
//! with other demuxers, because that end can't reach anything downstream. With keep-listening of
//! rtmp2serversrc the stream does not end with a publisher.
//!
//! Pads need not be linked. A live stream in TIME goes on even if none is, because the linked track
//! may come later. Any other stream then ends, as with other demuxers.
//!
//! If upstream can be read at any position, as a file can, the element pulls the bytes itself, in
//! large pieces. Otherwise it takes what upstream pushes. It does not seek in files. flvdemux does,
//! and has the higher rank.
//!
//! Since: 0.1.0

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

mod bodies;
mod caps;
mod codec;
mod counters;
mod demuxer;
mod gaps;
mod imp;
mod pads;
mod parser;
mod problem;
mod script;
mod streaming;
mod tag_header;
mod tags;
mod times;
mod track;

pub(crate) use imp::source_templates;
pub(crate) use parser::{FlvParser, Parsed};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "eflvdemux",
        gst::DebugColorFlags::empty(),
        Some("Enhanced FLV demuxer"),
    )
});

glib::wrapper! {
    /// Element `eflvdemux`: demuxer of FLV and Enhanced FLV.
    pub struct EFlvDemux(ObjectSubclass<imp::EFlvDemux>)
        @extends gst::Element, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "eflvdemux",
        // Below flvdemux, which seeks, and still found where flvdemux is missing or fails.
        gst::Rank::MARGINAL - 1,
        EFlvDemux::static_type(),
    )
}
