// SPDX-License-Identifier: MPL-2.0

//! # rtmp2multiserversrc
//!
//! SECTION:element-rtmp2multiserversrc
//! @see_also: rtmp2serversrc
//!
//! A live source that takes any number of RTMP publishers, nobody has to know which, and has a pad for
//! each of them. What comes out of a pad, and how publishers are met, is as with rtmp2serversrc.
//!
//! ## Example pipelines
//!
//! ```bash
//! gst-launch-1.0 -e rtmp2multiserversrc port=1935 application=live ! filesink location=first.flv
//! ```
//! Records the first publisher of `live`, whatever its stream key is, until it leaves. Others may publish
//! meanwhile, and nobody takes what they send.
//!
//! ```bash
//! gst-launch-1.0 rtmp2multiserversrc name=s port=1935 application=live \
//!     s.src_0 ! filesink async=false location=first.flv s.src_1 ! filesink async=false location=second.flv
//! ```
//! Records the first two. Without `async=false` the first one would wait for the second, and with `-e` the
//! end would wait for pads that have not come. An application links pads in a handler of `pad-added`, and knows by their
//! properties what they are.
//!
//! ## Streams and pads
//!
//! Each application and stream key on the route of the element is a stream from when its first publisher was
//! taken. Its pad `src_%u` comes with the first media that can be decoded, which waits until the pad was
//! linked: one that never sends any has none, and no sink waits for it. Streams are numbered upwards, and no
//! number comes twice while the element runs. When the publisher has left, the pad gets EOS, and is removed
//! once that has gone downstream: at once where it has ended its stream, after
//! #GstRtmp2MultiServerSrc:resume-timeout where it was cut off. A publisher that comes back before that goes
//! on with the same pad, and one that comes later gets a new one. A second publisher of a stream meets
//! #GstRtmp2MultiServerSrc:publisher-policy.
//!
//! For a publisher that would be one stream more than #GstRtmp2MultiServerSrc:max-streams, streams that have
//! ended get three seconds to leave; then it is refused with `NetStream.Publish.BadName`, and the reason
//! `full`. One that may come back, and one whose EOS has not gone downstream yet, count.
//!
//! EOS that is sent to the element, or to the pipeline as `gst-launch-1.0 -e` does, ends all streams: each pad gets it,
//! and publishers are told that the server has ended them. Nobody is taken after it until the element is started again,
//! for the reason `ended`, so the pipeline comes to its end though encoders connect again.
//!
//! An element whose properties say more about a stream takes it, wherever it is in the process: the rules
//! are those of rtmp2serversrc, and the two share ports with each other.
//!
//! Pads are of the class GstRtmp2MultiServerSrcPad. These properties have their values before `pad-added`:
//!
//! | property of a pad | meaning |
//! |---|---|
//! | `application`, `stream-key`, `variables` | what stream it is, and what variables have matched |
//! | `connection-state`, `stream-status`, `epoch` | the state of the stream as in rtmp2serversrc, with notify |
//! | `stats` | what the statistics of rtmp2serversrc have of a publisher and a stream, without `process` and `rejected`; they stay when the stream is over |
//!
//! `pad-added`, `pad-removed` and the signals about publishers are emitted on one thread, one after the other,
//! `publisher-added` with the name of the pad that will come before `pad-added`. While a handler takes its time, what publishers send waits in their
//! queues, each of #GstRtmp2MultiServerSrc:max-bytes. `pad-removed` comes when nothing streams any more.
//!
//! ## What is linked to a pad
//!
//! Nothing that happens behind a pad touches another one. What comes out of a pad that is not linked is thrown
//! away, and it may be linked at any time: whoever is linked late gets the headers of the stream first, and
//! then starts at a keyframe. When what is linked fails, has enough (EOS) or was stopped, its stream
//! ends: its publisher is told that the server has ended it, it is removed with the reason `disconnected`, and the
//! pad gets EOS and goes. The element posts no error for it, since whoever has failed has done so; where
//! the format does not fit, nobody else would tell, and it posts a warning.
//!
//! Each stream has a thread of its own, and one that is stuck holds up its own publisher alone.
//!
//! ## What the application is told
//!
//! The signals are those of rtmp2serversrc. `info` has a field `pad` (string) in `publisher-added` and
//! `publisher-removed`. The actions take the name of a pad first: `disconnect-publisher(pad)`, which also ends the wait
//! for one that was cut off, and `request-reconnect(pad, tc-url, description)`. The element messages `rtmp2-stream-status` and
//! `rtmp2-stream-event` come from this element, and have a field `pad`, which is empty where a client was
//! refused. What happened to the publishers of a stream that was ended from downstream is told when its pad goes.
//!
//! An upstream force-key-unit event is for the publisher of the pad that it is sent to, and for all when it is sent to
//! the element.
//!
//! ## Statistics
//!
//! #GstRtmp2MultiServerSrc:stats has sums over all streams since the start, those that are over among them,
//! under the names that rtmp2serversrc has for one: `total-` counters and `total-uptime`, `publishers`, `reconnects`,
//! `replacements`, `downtime`, `dropped-` and `timestamp` counters, `force-key-unit-events`. It has sums of what there
//! is now: `bitrate`, `current-level-bytes`, `current-level-time`. And:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `publishing` | guint64 | streams that have a publisher |
//! | `rejected` | guint64 | clients that were refused |
//! | `last-error`, `last-error-address`, `time-since-last-error` | | of those, and of clients that were cut off before they published |
//! | `streams` | GstValueArray of GstStructure | the statistics of each pad, and its name in the field `pad` |
//! | `process` | GstStructure | as in rtmp2serversrc; this element counts as one |
//!
//! Since: 0.1.0

use gst::glib;
use gst::prelude::*;

mod branch;
mod imp;
mod late_link;
mod observer;
mod pad;
mod running;
mod signals;
mod specs;
mod stats;

glib::wrapper! {
    pub struct Rtmp2MultiServerSrc(ObjectSubclass<imp::Rtmp2MultiServerSrc>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

glib::wrapper! {
    pub struct Rtmp2MultiServerSrcPad(ObjectSubclass<pad::Rtmp2MultiServerSrcPad>)
        @extends gst::GhostPad, gst::ProxyPad, gst::Pad, gst::Object;
}

pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    Rtmp2MultiServerSrcPad::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(
        Some(plugin),
        "rtmp2multiserversrc",
        gst::Rank::NONE,
        Rtmp2MultiServerSrc::static_type(),
    )
}
