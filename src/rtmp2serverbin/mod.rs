// SPDX-License-Identifier: MPL-2.0

//! # rtmp2serverbin
//!
//! SECTION:element-rtmp2serverbin
//! @see_also: rtmp2serversrc, eflvdemux
//!
//! rtmp2serversrc and eflvdemux in one: listens for an RTMP publisher, and has a pad for each of
//! its tracks, in any codec.
//!
//! ## Example pipelines
//!
//! ```bash
//! gst-launch-1.0 rtmp2serverbin name=s port=1935 keep-listening=true \
//!     s.video_0 ! queue ! decodebin3 ! videoconvert ! autovideosink \
//!     s.audio_0 ! queue ! decodebin3 ! audioconvert ! audioresample ! autoaudiosink
//! ```
//! Shows and plays one publisher after the other. Where the next one uses another codec, the pad
//! gets new caps, which not every element accepts: decodebin3 does, and decodebin, playbin3 and
//! muxers end the pipeline with an error. #GstRTMP2ServerBin:accepted-codecs keeps other codecs
//! out.
//!
//! ```bash
//! gst-launch-1.0 -e rtmp2serverbin name=s port=1935 application=live \
//!     matroskamux name=m ! filesink location=out.mkv \
//!     s.video_0 ! queue ! m.video_0 s.audio_0 ! queue ! m.audio_0
//! ```
//! Records a publisher of `live` as Matroska, without encoding it again. matroskamux waits for each
//! of its tracks, so there has to be audio and video: see eflvdemux.
//!
//! ```bash
//! gst-play-1.0 --use-playbin3 "rtmpserver://0.0.0.0:1935/live/camera1?latency=500"
//! ```
//! Plays the stream published to `rtmp://HOST:1935/live/camera1`.
//!
//! ## Properties, signals and pads
//!
//! The bin has all properties and signals of rtmp2serversrc; #GstRTMP2ServerBin:stats has the
//! statistics of eflvdemux in its field `demuxer`. Messages of the source come from the bin. See
//! rtmp2serversrc for access and for the state of the stream, and eflvdemux for pads, times and
//! errors in a stream. The two elements are `source` and `demuxer` in the bin.
//!
//! Pads are added with the first media of the first publisher, and stay until the bin stops: with
//! #GstRTMP2ServerBin:keep-listening the next publisher continues on them. A track that is not linked
//! stops no other one. Where two are linked, each needs a queue after it, as with any demuxer.
//!
//! ## URIs
//!
//! Any player of URIs plays `rtmpserver://host:port/application/stream-key`, and for RTMPS
//! `rtmpsserver://...`: playbin3, uridecodebin3, gst-play-1.0 and their predecessors among them.
//! The part from the host on is as in #GstRTMP2ServerBin:location: application and stream key may
//! be left out or have variables, and the default ports are 1935 and 443. All addresses of the
//! machine are `0.0.0.0`.
//!
//! Other properties may be in the query, by name, with values as gst-launch-1.0 takes them, in
//! percent encoding where they need it: `?latency=500&keep-listening=true`. Those that the next URI
//! does not name return to their defaults. Any writable property is allowed except
//! #GstRTMP2ServerBin:password, since URIs are shown and logged. It is set in a handler of
//! `source-setup`, a signal of all of those elements, as everything else can be. Unknown properties
//! and values that are not allowed make a URI invalid. URIs name the address to listen on and files
//! to read, so they should not come from strangers.
//!
//! `rtmpsserver` needs #GstRTMP2ServerBin:certificate-file and #GstRTMP2ServerBin:private-key-file,
//! in the query or from `source-setup`; without them there is an error at the start.
//!
//! A bin that was given a URI has a queue for each track, of up to 10 MB: uridecodebin and playbin
//! block one track until they know all of them.
//!
//! Since: 0.1.0

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

mod imp;
mod uri;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtmp2serverbin",
        gst::DebugColorFlags::empty(),
        Some("RTMP server source and demuxer"),
    )
});

glib::wrapper! {
    /// Element `rtmp2serverbin`: source and demuxer in one.
    pub struct Rtmp2ServerBin(ObjectSubclass<imp::Rtmp2ServerBin>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy, gst::URIHandler;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "rtmp2serverbin",
        // No other element has its URIs, and sources are not looked up by caps.
        gst::Rank::PRIMARY,
        Rtmp2ServerBin::static_type(),
    )
}
