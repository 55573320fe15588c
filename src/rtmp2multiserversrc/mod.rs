// SPDX-License-Identifier: MPL-2.0

//! # rtmp2multiserversrc
//!
//! SECTION:element-rtmp2multiserversrc
//! @see_also: rtmp2serversrc
//!
//! A live source for any number of RTMP publishers, which need not be known in advance, with a pad
//! for each of them. The output of a pad, and the rules for publishers, are those of
//! rtmp2serversrc.
//!
//! ## Example pipelines
//!
//! ```bash
//! gst-launch-1.0 -e rtmp2multiserversrc port=1935 application=live ! filesink location=first.flv
//! ```
//! Records the first publisher of `live`, whatever its stream key is, until it leaves. Others may
//! publish meanwhile, and their media is dropped.
//!
//! ```bash
//! gst-launch-1.0 rtmp2multiserversrc name=s port=1935 application=live \
//!     s.src_0 ! filesink async=false location=first.flv s.src_1 ! filesink async=false location=second.flv
//! ```
//! Records the first two. Without `async=false` the first one would wait for the second, and with
//! `-e` the end would wait for pads that have not been added. An application links pads in a
//! handler of `pad-added`, and reads their properties to identify them.
//!
//! ## Streams and pads
//!
//! Each application and stream key on the route of the element is a stream from when its first
//! publisher was accepted. Its pad `src_%u` is added with the first media that can be decoded,
//! which waits until the pad was linked: a publisher that never sends any has no pad, and no sink
//! waits for it. Streams are numbered upwards, and no number is used twice while the element runs.
//! When the publisher has left, the pad gets EOS, and is removed once that has gone downstream: at
//! once where the publisher has ended its stream, after #GstRTMP2MultiServerSrc:resume-timeout
//! where it was cut off. A publisher that returns before that continues on the same pad, and one
//! that returns later gets a new one. #GstRTMP2MultiServerSrc:publisher-policy applies to a second
//! publisher of a stream.
//!
//! For a publisher that would be one stream more than #GstRTMP2MultiServerSrc:max-streams, streams
//! that have ended get three seconds to leave; then it is rejected with
//! `NetStream.Publish.BadName`, and the reason `full`. A stream whose publisher may return, and one
//! whose EOS has not gone downstream yet, count.
//!
//! EOS that is sent to the element, or to the pipeline as `gst-launch-1.0 -e` does, ends all
//! streams: each pad gets it, and publishers are told that the server has ended them. Publishers
//! are then rejected with the reason `ended` until the element is started again, so the pipeline
//! comes to its end though encoders connect again.
//!
//! A more specific element gets the publisher of a stream, wherever it is in the process: the rules
//! are those of rtmp2serversrc, and the two share ports with each other.
//!
//! Pads are of the class GstRTMP2MultiServerSrcPad. These properties have their values before
//! `pad-added`:
//!
//! | property of a pad | meaning |
//! |---|---|
//! | `application`, `stream-key`, `variables` | the names of the stream, and the values that variables have matched |
//! | `connection-state`, `stream-status`, `epoch` | the state of the stream as in rtmp2serversrc, with notify |
//! | `stats` | the statistics that rtmp2serversrc has of a publisher and a stream, without `process` and `rejected`; they stay when the stream is over |
//!
//! `pad-added`, `pad-removed` and the signals about publishers are emitted on one thread, one after
//! the other, `publisher-added` with the name of the future pad before `pad-added`. While a handler
//! runs, the media of publishers waits in their queues, each of #GstRTMP2MultiServerSrc:max-bytes.
//! `pad-removed` is emitted when nothing streams any more.
//!
//! ## Elements linked to a pad
//!
//! Nothing that happens downstream of a pad affects another one. The output of a pad that is not
//! linked is dropped, and the pad may be linked at any time: it then starts with the headers of the
//! stream and a keyframe. When an element downstream fails, has enough (EOS) or was stopped, its
//! stream ends: the publisher is told that the server has ended it, it is removed with the reason
//! `disconnected`, and the pad gets EOS and is removed. The element posts no error for it, since
//! the failed element has done so; where the format does not fit, no other element would report it,
//! and it posts a warning.
//!
//! Each stream has a thread of its own, and one that is blocked holds up its own publisher alone.
//!
//! ## Signals and messages
//!
//! The signals are those of rtmp2serversrc. `info` has a field `pad` (string) in `publisher-added`
//! and `publisher-removed`. The actions have the name of a pad as their first argument:
//! `disconnect-publisher(pad)`, which also ends the wait for a publisher that was cut off, and
//! `request-reconnect(pad, tc-url, description)`. The element messages `rtmp2-stream-status` and
//! `rtmp2-stream-event` come from this element, and have a field `pad`, which is empty where a
//! client was rejected. Events of a stream that was ended from downstream are posted when its pad
//! is removed.
//!
//! An upstream force-key-unit event is for the publisher of the pad that it is sent to, and for all
//! when it is sent to the element.
//!
//! ## Statistics
//!
//! #GstRTMP2MultiServerSrc:stats has sums over all streams since the start, those that are over among
//! them, under the names that rtmp2serversrc has for one: `total-` counters and `total-uptime`,
//! `publishers`, `reconnects`, `replacements`, `downtime`, `dropped-` and `timestamp` counters,
//! `force-key-unit-events`. It has sums over the present streams: `bitrate`, `current-level-bytes`,
//! `current-level-time`. These fields are added:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `publishing` | guint64 | streams that have a publisher |
//! | `rejected` | guint64 | clients that were rejected |
//! | `last-error`, `last-error-address`, `time-since-last-error` | | about those, and about clients that were cut off before they published |
//! | `streams` | GstValueArray of GstStructure | the statistics of each pad, and its name in the field `pad` |
//! | `process` | GstStructure | as in rtmp2serversrc; this element counts as one |
//!
//! Since: 0.1.0

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

mod branch;
mod core;
mod imp;
mod late_link;
mod observer;
mod pad;
mod rejections;
mod running;
mod signals;
mod specs;
mod state_lock;
mod stats;
mod stopping;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtmp2multiserversrc",
        gst::DebugColorFlags::empty(),
        Some("RTMP server source of many streams"),
    )
});

glib::wrapper! {
    /// Element `rtmp2multiserversrc`: a pad for each of any number of publishers.
    pub struct Rtmp2MultiServerSrc(ObjectSubclass<imp::Rtmp2MultiServerSrc>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

glib::wrapper! {
    /// Pad of `rtmp2multiserversrc`, with the state of its stream as properties.
    pub struct Rtmp2MultiServerSrcPad(ObjectSubclass<pad::Rtmp2MultiServerSrcPad>)
        @extends gst::GhostPad, gst::ProxyPad, gst::Pad, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    Rtmp2MultiServerSrcPad::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "rtmp2multiserversrc",
        gst::Rank::NONE,
        Rtmp2MultiServerSrc::static_type(),
    )
}
