// SPDX-License-Identifier: MPL-2.0

//! # rtmp2serverbin
//!
//! SECTION:element-rtmp2serverbin
//! @see_also: rtmp2serversrc, eflvdemux
//!
//! rtmp2serversrc and eflvdemux in one: listens for an RTMP publisher, and has a pad for each of its
//! tracks, whatever they are coded in.
//!
//! ## Example pipelines
//!
//! ```bash
//! gst-launch-1.0 rtmp2serverbin name=s port=1935 keep-listening=true \
//!     s.video_0 ! queue ! decodebin3 ! videoconvert ! autovideosink \
//!     s.audio_0 ! queue ! decodebin3 ! audioconvert ! audioresample ! autoaudiosink
//! ```
//! Shows and plays whatever is published, one publisher after the other. Where the next one uses another
//! codec, the pad gets new caps, which not everything that may be linked takes: decodebin3 does, and
//! decodebin, playbin3 and muxers end the pipeline with an error.
//! #GstRtmp2ServerBin:accepted-codecs keeps other codecs out.
//!
//! ```bash
//! gst-launch-1.0 -e rtmp2serverbin name=s port=1935 application=live \
//!     matroskamux name=m ! filesink location=out.mkv \
//!     s.video_0 ! queue ! m.video_0 s.audio_0 ! queue ! m.audio_0
//! ```
//! Records what is published to `live` as Matroska, without coding anything anew. matroskamux waits for
//! each of its tracks, so there has to be audio and video: see eflvdemux.
//!
//! ```bash
//! gst-play-1.0 --use-playbin3 "rtmpserver://0.0.0.0:1935/live/camera1?latency=500"
//! ```
//! Plays what is published to `rtmp://HOST:1935/live/camera1`.
//!
//! ## What it has of the two
//!
//! All properties and signals of rtmp2serversrc are the bin's too; #GstRtmp2ServerBin:stats has the
//! statistics of eflvdemux in its field `demuxer`. Its messages come from the bin. See rtmp2serversrc for
//! who may publish and for the state of the stream, and eflvdemux for pads, times and what is wrong in a
//! stream. The two are `source` and `demuxer` in the bin.
//!
//! Pads come with the first media of the first publisher, and stay until the bin stops: with
//! #GstRtmp2ServerBin:keep-listening the next publisher goes on with them. A track that is not linked
//! stops no other one. Where two are linked, each wants a queue behind it, as with any demuxer.
//!
//! ## URIs
//!
//! Whatever plays URIs plays `rtmpserver://host:port/application/stream-key`, and for RTMPS
//! `rtmpsserver://...`: playbin3, uridecodebin3, gst-play-1.0 and their elder brothers among them. The part
//! from the host on is as in #GstRtmp2ServerBin:location: application and stream key may be left out or
//! have variables, and ports that are left out are 1935 and 443. All addresses of the machine are
//! `0.0.0.0`.
//!
//! Other properties may be in the query, by name, with values as gst-launch-1.0 takes them, in percent
//! encoding where they need it: `?latency=500&keep-listening=true`. Those that the next URI does not name
//! go back to their defaults. Any that can be set may, but for
//! #GstRtmp2ServerBin:password, since URIs are shown and logged. It is set in a handler of
//! `source-setup`, a signal of all of those elements, as everything else can be. Unknown properties and
//! values that are not allowed make a URI invalid. URIs say what to listen on and what files to read, so
//! they should not come from strangers.
//!
//! `rtmpsserver` needs #GstRtmp2ServerBin:certificate-file and #GstRtmp2ServerBin:private-key-file, in
//! the query or from `source-setup`; without them there is an error at the start.
//!
//! A bin that was given a URI has a queue for each track, of up to 10 MB: uridecodebin and playbin hold
//! back one track until they know all of them.
//!
//! Since: 0.1.0

use gst::glib;
use gst::prelude::*;

mod imp;
mod uri;

glib::wrapper! {
    pub struct Rtmp2ServerBin(ObjectSubclass<imp::Rtmp2ServerBin>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy, gst::URIHandler;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "rtmp2serverbin",
        // Nothing else has its URIs, and by caps nobody looks for a source.
        gst::Rank::PRIMARY,
        Rtmp2ServerBin::static_type(),
    )
}
