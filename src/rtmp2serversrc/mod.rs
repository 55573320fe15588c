// SPDX-License-Identifier: MPL-2.0

//! # rtmp2serversrc
//!
//! SECTION:element-rtmp2serversrc
//! @see_also: rtmp2serverbin, rtmp2multiserversrc
//!
//! A live source that listens for an RTMP publisher (an encoder, OBS, a phone, another server) and
//! delivers its stream as FLV, with no media server in between.
//!
//! ## Example pipelines
//!
//! ```bash
//! gst-launch-1.0 -e rtmp2serversrc port=1935 ! filesink location=out.flv
//! ```
//! Records the first publisher of port 1935 until it leaves.
//!
//! ```bash
//! gst-launch-1.0 rtmp2serversrc port=1935 application=live stream-key=camera keep-listening=true \
//!     ! eflvdemux name=d d.video_0 ! queue ! h264parse ! avdec_h264 ! videoconvert ! autovideosink \
//!     d.audio_0 ! queue ! aacparse ! avdec_aac ! audioconvert ! audioresample ! autoaudiosink
//! ```
//! Shows and plays H.264 video and AAC audio published to `rtmp://HOST:1935/live/camera`, one
//! publisher after the other.
//!
//! ```bash
//! gst-launch-1.0 -e rtmp2serversrc port=1935 application=live "stream-key=cam{camera}_{quality}" \
//!     authmod=adobe username=studio password=secret ! filesink location=cameras.flv
//! ```
//! Accepts publishers of `live/cam1_main` and the like, one at a time, that know the password: with
//! ffmpeg, `rtmp://studio:secret@HOST/live/cam1_main`.
//!
//! ## Access
//!
//! #GstRTMP2ServerSrc:application and #GstRTMP2ServerSrc:stream-key are the names that a publisher
//! has to use. In both, `{name}` is a variable: it matches one or more characters up to the text
//! that follows it, and never a slash. All elements of a process that have the same host and port
//! share it, and a publisher goes to the most specific one: an exact stream key beats one with
//! variables, which beats none; then the application counts in the same way. A second element with
//! the same names fails to start.
//!
//! Before a publisher is told that it may start, it has to pass, in this order,
//! #GstRTMP2ServerSrc:allowed-addresses, the challenge of #GstRTMP2ServerSrc:authmod, the route,
//! #GstRTMP2ServerSrc:signing-key, #GstRTMP2ServerSrc:auth-url, #GstRTMP2ServerSrc:publisher-policy,
//! and #GstRTMP2ServerSrc::publisher-connecting. A rejected client is told why, and closed within a second. With #GstRTMP2ServerSrc:certificate-file the
//! port is RTMPS, or with #GstRTMP2ServerSrc:encryption optional both RTMP and RTMPS.
//!
//! ## The state of the stream
//!
//! #GstRTMP2ServerSrc:stream-status is the state of the stream for its consumers, and
//! #GstRTMP2ServerSrc:connection-state the progress of its publisher. They are the truth: nothing
//! has to be inferred from sockets, caps or frames.
//!
//! | stream-status | it means | a consumer should |
//! |---|---|---|
//! | 4 stopped | there is no publisher | show that nothing is on; it may take down decoders |
//! | 2 reconfiguring | a publisher was accepted or has changed its configuration; no frame of the new epoch has left yet | keep the last picture, let decoders start afresh with the next media |
//! | 1 active | the first frame that can be decoded has left the element, or, after the event `no-keyframe`, the first of all | use the stream |
//! | 3 paused | no media arrives, or the connection is lost; it is expected to go on | keep the last picture, and wait |
//!
//! #GstRTMP2ServerSrc:epoch counts up whenever a decoder has to start afresh: with each publisher,
//! also one that returns, and with each changed sequence header. A repeated sequence header changes
//! nothing. Each buffer carries its epoch: the caps of its `GstReferenceTimestampMeta` are
//! `timestamp/x-rtmp, epoch=(guint64)N`. All buffers of an epoch share one caps object. The meta
//! passes through eflvdemux, and decoders keep it.
//!
//! Each change is reported once: by notifications, by an element message `rtmp2-stream-status` with
//! `version` (guint, 1), `stream-status`, `connection-state`, `epoch`, `application`, `stream-key`
//! and `variables`, and by the same structure in a sticky event downstream, which a branch that is
//! linked late gets too. Everything else that happens is in element messages `rtmp2-stream-event`
//! with `version`, `event` (GstRTMP2StreamEvent), `epoch` and `details`. Times in details are in
//! nanoseconds.
//!
//! | event | details |
//! |---|---|
//! | `publisher-connected`, `replaced`, `reconnect-requested` | `address`, `application`, `stream-key`, `variables` |
//! | `publisher-gone` | the same, and `reason` |
//! | `publisher-rejected` | the same, `reason`, and `suppressed` (guint64): rejections before this one that were not posted |
//! | `reconfiguration-started`, `reconfiguration-done` | |
//! | `stalled` | `since-last-byte` (guint64) |
//! | `resumed` | none after a stall; `downtime` (guint64) after a lost connection |
//! | `dropped` | `tags` (guint64), `reason`: `queue-full`, `late`, `before-keyframe`, `descriptions`, `cut-off`, `unusable`, `pause`, `not-linked` or `end` |
//! | `imbalance` | `missing`: `audio` or `video`; `time` (guint64) for which only the other one arrived; `over` (gboolean): it arrives again |
//! | `timestamp-jump` | `kind`: `backward`, `forward` or `frozen`; `track`: `audio` or `video`; `from`, `to` (gint64) on the publisher's clock |
//! | `codec-refused` | `kind`: `audio` or `video`; `track` (guint), `codec` |
//! | `no-keyframe` | `waited` (guint64) |
//! | `standby-started` | `reason`: `no-publisher`, `no-media` or `cut-off`; `reconfigures` (gboolean) |
//! | `standby-ended` | `time` (guint64) that standby has played; `reconfigures` (gboolean) |
//! | `keyframe-requested` | `action`, and `reason` where that is `none` |
//! | `quality-low`, `quality-restored` | `limit`: its name; `value` (gdouble) as measured, `bound` (gdouble) |
//!
//! During a flood of rejections, 32 are posted at once, and then ten a second. Each drop of media
//! is posted at once, or with others of its reason within a second, or at the end of its publisher.
//! #GstRTMP2ServerSrc:stats has a counter for each reason.
//!
//! A publisher that ends its stream is gone at once. One whose connection breaks may return within
//! #GstRTMP2ServerSrc:resume-timeout: the stream goes on where it was, without a flush, another
//! segment (except with #GstRTMP2ServerSrc:timestamp-mode publisher) or another file header, first
//! with sequence headers and a keyframe. From the loss of the publisher to its first media, GAP
//! events tell mixers and muxers that there is nothing. There are none while a publisher is
//! connected and silent, since it may yet send media that is due, none in timestamp-mode publisher,
//! and none once it counts as gone. That is at once with the action `disconnect-publisher`.
//!
//! A publisher that has nothing to send gets an RTMP ping after half of #GstRTMP2ServerSrc:timeout;
//! an answer counts as a byte, and a missing one as nothing. One whose network is gone without a
//! word is found by TCP keepalive too, within #GstRTMP2ServerSrc:timeout, or within a minute where
//! that is 0.
//!
//! EOS that is sent to the element, or to the pipeline as `gst-launch-1.0 -e` does, ends the
//! stream: media accepted until then still leaves, the publisher is told that the server has ended
//! it, and no publisher is accepted until the element is started again.
//!
//! ## Messages for people
//!
//! With #GstRTMP2ServerSrc:verbose-messages, INFO messages on the bus say where to publish to, who
//! publishes what with which encoder, and each stall, return and end with its duration. WARNING
//! messages say why a client was refused or closed, and what is accepted; 32 at once and then ten a
//! second at most, of which one counts those left out. `gst-launch-1.0` prints both. The log has the
//! same lines, in the category `rtmp2serversrc` at the levels INFO and WARNING.
//! #GstRTMP2ServerSrc:log-keys says how much of a stream key is in them.
//!
//! ## Standby
//!
//! With #GstRTMP2ServerSrc:standby the stream goes on while no media of a publisher comes, on the same
//! timeline, without a hole or a flush. `freeze` sends the last keyframe once a second, with silence in
//! the publisher's own codec (AAC, Opus, MP3 and G.711; other audio is a gap). `file` plays the FLV file
//! at #GstRTMP2ServerSrc:standby-location in a loop, also before the first publisher. It begins
//! #GstRTMP2ServerSrc:standby-after after the last media, where that has ended, and ends with the
//! publisher's next keyframe. That time is part of the latency that is reported, so that a synchronised
//! sink misses nothing. What a silent publisher sends late for that time is skipped to its newest
//! keyframe. #GstRTMP2ServerSrc:stream-status is paused meanwhile, and a publisher that takes over
//! counts an epoch only where its configuration differs from the one in force.
//!
//! ## Timestamp repair
//!
//! In #GstRTMP2ServerSrc:timestamp-mode running-time, no track goes back, and audio and video are
//! moved together or not at all:
//!
//! | the publisher's timestamps | the timestamps that leave | statistics |
//! |---|---|---|
//! | wrap at 24, 31 or 32 bits | go on | |
//! | repeat, or step back by up to a second | the time of the tag before | `timestamps-clamped` |
//! | step back further | go on at the time of arrival | `timestamp-jumps` |
//! | jump ahead by 2 s more than has passed, where they had gone with the clock before, or by 24 hours | the same | `timestamp-jumps` |
//! | stand still, for a second and ten tags | the times of arrival | `timestamps-frozen` |
//! | of two tracks start a second to days apart | brought together by arrival | `timestamp-jumps` |
//!
//! The last four are reported by `timestamp-jump`, at most once a second.
//!
//! With #GstRTMP2ServerSrc:max-lateness, media that is further than that from its time, behind or
//! ahead, is left out up to a keyframe, which is awaited for ten seconds at most. That is media
//! that a publisher kept during an outage and sends all at once, that waited for a slow pipeline,
//! or that a new publisher had kept before it connected, which would leave the pipeline behind by
//! as much for ever. The value has to be more than the latency of the pipeline, and is for
//! publishers that are live: a file that is sent as fast as it goes is a backlog.
//!
//! ## Drift
//!
//! The publisher's clock and the pipeline's are never equally fast: 50 ppm are 4.3 s in a day. With
//! #GstRTMP2ServerSrc:drift-correction, timestamps follow the pipeline's clock, so that the latency stays
//! as it began. The drift shows in the least delayed tags, since networks only ever delay. All tracks
//! are moved together, by no more than #GstRTMP2ServerSrc:max-drift: 1 ms in a second. A change that no
//! clock makes is left as it is, such as a file that is sent fast, or a network that is too slow.
//!
//! ## Keyframe requests
//!
//! RTMP has no way to ask an encoder for a keyframe. A publisher that connects again starts with
//! one: with #GstRTMP2ServerSrc:reconnect-on-force-key-unit, an upstream force-key-unit event asks
//! it to reconnect, by the reconnect request of Enhanced RTMP, if it supports that, and at most
//! once in 10 seconds. In any case there is the event `keyframe-requested`, whose details have
//! `action` (`reconnect-requested` or `none`) and, for the latter, `reason`: `off`, `too-soon`,
//! `no-publisher`, `not-supported` by the publisher, or `not-reading`.
//!
//! ## Quality
//!
//! #GstRTMP2ServerSrc:quality-limits is a structure of any name with limits of what a publisher
//! sends: `min-` or `max-` and one of `keyframe-interval` (ms), `video-bitrate`, `audio-bitrate`
//! (bits per second), `framerate`, `width` and `height`, such as
//! `quality-limits="limits,min-framerate=25,max-width=1920"`. The event `quality-low` is posted when a
//! figure is beyond its limit, and `quality-restored` when it is within it again. New limits judge the
//! last figures at once. Rates are measured
//! over two seconds of the publisher's timestamps, of its first video track and of all audio; the size
//! is that of the sequence header. A keyframe that is overdue counts before it comes. Limits judge,
//! and drop nothing.
//!
//! ## Output
//!
//! One buffer a tag of one endless FLV stream: the file header once, no second one and no flush
//! when another publisher follows. Metadata and sequence headers are also in the caps, as
//! `streamheader`. Buffers have DTS and PTS, `HEADER` on the tags of the stream header,
//! `DELTA_UNIT` where decoding can't start, `DISCONT` after a gap and at the start of each
//! publisher, and a `GstReferenceTimestampMeta` (`timestamp/x-rtmp`) with the publisher's own time.
//! Where the publisher states the time of day (script data `onFI` and `onTextData`, the broadcast
//! performance metrics of OBS), buffers have a second one (`timestamp/x-unix`): nanoseconds since the
//! Unix epoch, in UTC. The caps of streams with Enhanced FLV have `enhanced=(boolean)true`, by which
//! decodebin3, decodebin and parsebin find a demuxer that knows it.
//! The codec does not matter: everything that Enhanced RTMP carries passes byte for byte. So does
//! script data other than `onMetaData` (`onTextData`, `onCuePoint`, `onCaption` and any other
//! name), at its own time.
//!
//! PTS is DTS plus the composition time offset, which may be negative, and the nanoseconds of a
//! ModEx prefix; the reference timestamp is that of the message, to which neither is added. There
//! are no times before the start of the stream, so a PTS that would be is 0.
//!
//! With #GstRTMP2ServerSrc:timestamp-mode at its default, the first media is at the running time
//! of its arrival, however long after the start of the pipeline that is, so that a live sink shows
//! every frame.
//!
//! ## Codecs
//!
//! With #GstRTMP2ServerSrc:accepted-codecs a publisher's tracks in other codecs are dropped, one by
//! one: audio leaves at once where video is refused, and of several tracks in one message the
//! accepted ones stay. Each refused track is reported once a publisher, up to 64 of them, with an
//! event `codec-refused` whose details are `kind` (`audio` or `video`), `track` (guint) and
//! `codec`, and counted in #GstRTMP2ServerSrc:stats as `dropped-codec-refused`. Metadata passes
//! unchanged and may describe refused tracks.
//!
//! Codecs are named by the FourCC that Enhanced RTMP has for them, whichever way they are sent, and
//! case matters: `avc1` (H.264), `hvc1` (HEVC, also under the codec ids 12 and 7), `av01`, `vp08`,
//! `vp09`, `vvc1`; `mp4a` (AAC), `.mp3`, `Opus`, `fLaC`, `ac-3`, `ec-3`. Older codecs have names
//! here: `flv1` (Sorenson H.263), `fsv1` and `fsv2` (Screen Video), `vp6f` and `vp6a` (VP6, with
//! alpha), `h263`, `mp4v` (MPEG-4); `lpcm`, `alaw`, `ulaw`, `adpc` (ADPCM), `nell` (Nellymoser),
//! `spex` (Speex), `devs` (device-specific). In any case `h264`, `h265`, `hevc`, `h266`, `av1`, `vp8`,
//! `vp9`, `aac`, `mp3`, `opus`, `flac`, `ac3` and `eac3` are accepted too. Anything else in the
//! property is an error at the start.
//!
//! A client that announces its Enhanced RTMP capabilities in `connect` (`fourCcList`,
//! `videoFourCcInfoMap`, `audioFourCcInfoMap`, `capsEx`, `videoFunction`) is told those of this
//! element: its accepted codecs, and that it supports reconnecting, multitrack, ModEx and
//! nanoseconds. Nothing depends on it.
//!
//! ## Statistics
//!
//! #GstRTMP2ServerSrc:stats is a snapshot, made when it is read. Times and durations are in
//! nanoseconds. A `time-since-` field is `GST_CLOCK_TIME_NONE` until its event has happened.
//!
//! These fields are about the present publisher, or the last one once it has left. They start at
//! zero with each publisher, also with one that returns:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `in-bytes-total`, `out-bytes-total` | guint64 | bytes of its connection |
//! | `in-bytes-acked`, `out-bytes-acked` | guint64 | bytes of those that were acknowledged |
//! | `in-chunk-size`, `out-chunk-size`, `in-window-ack-size`, `out-window-ack-size` | guint | bytes, as agreed on |
//! | `tags`, `audio-tags`, `video-tags`, `script-tags` | guint64 | tags, with sequence headers and ends of sequences |
//! | `audio-bytes`, `video-bytes`, `script-bytes` | guint64 | bytes in the bodies of tags |
//! | `keyframes` | guint64 | video tags that decoding can start with |
//! | `skipped` | guint64 | messages that no decoder could use |
//! | `bitrate` | guint64 | bits per second of the connection, in the last whole second; 0 without a publisher |
//! | `bitrate-average` | guint64 | the same over the whole time of the publisher |
//! | `bitrate-peak` | guint64 | the same in the second that had the most; 0 in its first second |
//! | `frame-rate` | gdouble | video frames per second in the last whole second of the publisher's own timestamps, which the network does not change; in the first second, an estimate from the frames so far |
//! | `gop-length`, `gop-duration` | guint, guint64 | frames from the last keyframe but one to the last, and the time between them by their timestamps; 0 before the second keyframe |
//! | `b-frames` | guint | frames of that group of pictures that are shown before one that came earlier |
//! | `video-codec`, `profile`, `width`, `height` | gchararray, gchararray, guint, guint | of its first video track, by the sequence header, or else by its metadata: `H.264`, `high`. These fields and the next five only where they are known |
//! | `configured-frame-rate` | gdouble | frames per second that the sequence header or the metadata announces |
//! | `audio-codec`, `audio-rate`, `audio-channels` | gchararray, guint, guint | of its first audio track: `AAC`, hertz, number |
//! | `encoder` | gchararray | name of the encoder, by the metadata or by `flash-ver` |
//! | `time-since-last-byte`, `time-since-last-keyframe` | guint64 | since they arrived |
//! | `uptime` | guint64 | time since it started; 0 without a publisher |
//! | `clock-drift` | gdouble | ppm by which its clock is faster than the pipeline's; 0 while that is not known |
//! | `capture-latency` | gint64 | from the last stated capture to its arrival; negative where the publisher's clock is ahead. This field and the next five only where the publisher states them |
//! | `encode-latency`, `send-latency` | gint64 | of OBS: from the composition of a frame to the end of its encoding, and from there to its arrival |
//! | `encoder-lagged-frames`, `encoder-dropped-frames`, `encoder-skipped-frames` | guint64 | of OBS: frames composed too late, not sent on a slow network, not encoded by a slow encoder |
//! | `address`, `application`, `stream-key`, `flash-ver`, `tls`, `variables` | | its identity; only while it publishes |
//!
//! These fields are about the element since its start, over all publishers:
//!
//! | field | type | meaning |
//! |---|---|---|
//! | `connection-state`, `stream-status`, `epoch` | as the properties | the state of the stream |
//! | `history` | GstValueArray of GstStructure | the last 64 states, oldest first, each with `connection-state`, `stream-status`, `epoch`, and the `time` (guint64) at which it was entered, in nanoseconds since the Unix epoch |
//! | `quality` | GstStructure | the figures beyond their limits (gdouble), by the names of the limits: see #GstRTMP2ServerSrc:quality-limits |
//! | `publishing` | gboolean | there is a publisher |
//! | `total-in-bytes`, `total-tags`, `total-audio-tags`, `total-video-tags`, `total-script-tags`, `total-audio-bytes`, `total-video-bytes`, `total-script-bytes`, `total-keyframes`, `total-skipped` | guint64 | sums of the fields above |
//! | `publishers` | guint64 | publishers that were accepted |
//! | `reconnects` | guint64 | those of them that returned within #GstRTMP2ServerSrc:resume-timeout |
//! | `replacements` | guint64 | those of them that replaced one that was still connected |
//! | `rejected` | guint64 | clients that were rejected; one that might have meant several elements counts for each of them |
//! | `total-uptime` | guint64 | time with a publisher |
//! | `downtime` | guint64 | time without a publisher, from when the first one left |
//! | `outage` | guint64 | the part of it that goes on now; 0 with a publisher |
//! | `current-level-bytes`, `current-level-time` | guint64 | media that waits in the queue, as the properties |
//! | `dropped-queue-full` | guint64 | tags that a leaky queue dropped because it was full |
//! | `dropped-before-keyframe` | guint64 | tags before the first keyframe |
//! | `dropped-descriptions` | guint64 | metadata and the like of media that has not come, more than can be kept |
//! | `dropped-late` | guint64 | tags of a backlog, see #GstRTMP2ServerSrc:max-lateness |
//! | `dropped-codec-refused` | guint64 | tracks of tags in codecs that are not accepted |
//! | `dropped-cut-off` | guint64 | tags that a publisher had sent when it was replaced, disconnected or drained |
//! | `dropped-not-linked` | guint64 | tags of a stream of rtmp2multiserversrc that left while nothing was linked |
//! | `dropped-at-end` | guint64 | tags that had not left when the stream was ended downstream or stopped, and descriptions and script data of a publisher that has ended without media |
//! | `dropped-in-pause` | guint64 | tags that GStreamer dropped when the element was paused |
//! | `timestamps-clamped` | guint64 | tags that stepped back, and leave at the time of the one before |
//! | `timestamp-jumps` | guint64 | times that the publisher's clock started again or jumped ahead |
//! | `timestamps-frozen` | guint64 | tags that leave at the time of their arrival, as the publisher's timestamps stand still |
//! | `clock-corrected` | gint64 | added to all timestamps so far to correct drift; negative where publishers' clocks are fast |
//! | `last-error`, `last-error-address` | string | the reason for which a client was last rejected (`refused: busy`) or cut off (`closed`, `timeout`, `violation` with the details), and its address; without anything secret, empty where there was none |
//! | `time-since-last-error` | guint64 | since then |
//! | `force-key-unit-events` | guint64 | requests for a keyframe from downstream |
//!
//! The field `process` is a structure with sums over all elements of this process, all of them
//! guint64. Present numbers: `elements` that listen, `listeners` (addresses that they listen on),
//! `clients` (connections to those), `publishing`. Since the process started, elements that have
//! stopped included: `publishers`, `in-bytes`, `tags`, `rejected`, `dropped` (for any reason).
//!
//! The program `examples/metrics.rs` serves this to Prometheus.
//!
//! Since: 0.1.0

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

pub(crate) mod announcements;
mod buffers;
pub(crate) mod claiming;
mod context;
pub(crate) mod counters;
mod drops;
mod element_state;
mod history;
mod imp;
mod keyframe;
pub(crate) mod listening;
mod location;
mod mark;
mod narrator;
mod nick;
mod output;
mod pause_gate;
mod pauses;
pub(crate) mod ration;
pub(crate) mod refusals;
mod reporter;
pub(crate) mod settings;
pub(crate) mod signals;
mod spare_buffers;
mod specs;
pub(crate) mod standby_file;
mod state;
pub(crate) mod stats;
mod stream_event;
mod streaming;
pub(crate) mod voice;

pub use stream_event::StreamEvent;

pub(crate) use signals::build as build_signals;
pub(crate) use specs::build as build_specs;

use crate::server::KeyMasking;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtmp2serversrc",
        gst::DebugColorFlags::empty(),
        Some("RTMP server source"),
    )
});

/// Returns the error that the property `location` would cause at the start.
pub(crate) fn check_location(text: &str) -> Result<(), String> {
    let location = location::Location::parse(text);
    location.map(drop).map_err(|error| error.reason)
}

glib::wrapper! {
    /// Element `rtmp2serversrc`: one publisher at a time, as an endless FLV stream.
    pub struct Rtmp2ServerSrc(ObjectSubclass<imp::Rtmp2ServerSrc>)
        @extends gst_base::PushSrc, gst_base::BaseSrc, gst::Element, gst::Object;
}

/// Source of the times of buffers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRTMP2ServerSrcTimestampMode")]
#[repr(u32)]
pub enum TimestampMode {
    /// The first media of a publisher is at the running time of its arrival, and the stream goes on
    /// over all publishers.
    #[default]
    #[enum_value(name = "Running time at arrival", nick = "running-time")]
    RunningTime,
    /// The publisher's own timestamps, with a segment for each publisher.
    #[enum_value(name = "Timestamps of the publisher", nick = "publisher")]
    Publisher,
}

/// Progress of the publisher's connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRTMP2ConnectionState")]
#[repr(u32)]
pub enum ConnectionState {
    /// No publisher.
    #[default]
    #[enum_value(name = "No publisher", nick = "disconnected")]
    Disconnected = 0,
    /// A client asks to publish.
    #[enum_value(name = "A client asks to publish", nick = "socket-connected")]
    SocketConnected = 1,
    /// The client is being authorized.
    #[enum_value(name = "The client is being authorized", nick = "authenticating")]
    Authenticating = 2,
    /// No frame that can be decoded has left yet.
    #[enum_value(
        name = "The publisher is accepted, its first frame is awaited",
        nick = "negotiating"
    )]
    Negotiating = 3,
    /// The configuration has changed, the next frame is awaited.
    #[enum_value(
        name = "The configuration has changed, the next frame is awaited",
        nick = "reconfiguring"
    )]
    Reconfiguring = 4,
    /// Media flows.
    #[enum_value(name = "Media flows", nick = "streaming")]
    Streaming = 5,
    /// No media arrives, or the connection is lost and the publisher may return.
    #[enum_value(
        name = "Waiting for media or for the publisher's return",
        nick = "recovering"
    )]
    Recovering = 6,
}

/// State of the stream for its consumers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRTMP2StreamStatus")]
#[repr(u32)]
pub enum StreamStatus {
    /// The first frame of this epoch that can be decoded has left the element.
    #[enum_value(name = "Media flows and can be decoded", nick = "active")]
    Active = 1,
    /// Decoders have to start afresh with the next media.
    #[enum_value(
        name = "Decoders have to start afresh with the next media",
        nick = "reconfiguring"
    )]
    Reconfiguring = 2,
    /// Interrupted, and expected to go on.
    #[enum_value(name = "Interrupted, and expected to go on", nick = "paused")]
    Paused = 3,
    /// There is no publisher.
    #[default]
    #[enum_value(name = "There is no publisher", nick = "stopped")]
    Stopped = 4,
}

/// Method by which publishers prove that they know the password.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRTMP2ServerSrcAuthMod")]
#[repr(u32)]
pub enum AuthMod {
    /// No authentication.
    #[default]
    #[enum_value(name = "No authentication", nick = "none")]
    None,
    /// Adobe authentication.
    #[enum_value(name = "Adobe authentication", nick = "adobe")]
    Adobe,
    /// Limelight authentication.
    #[enum_value(name = "Limelight authentication", nick = "llnw")]
    Llnw,
}

/// Encryption of connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRTMP2ServerSrcEncryption")]
#[repr(u32)]
pub enum Encryption {
    /// RTMPS where there is a certificate, RTMP where there is none.
    #[default]
    #[enum_value(name = "RTMPS with certificate-file, RTMP without one", nick = "auto")]
    Auto,
    /// RTMPS. Without a certificate the element does not start.
    #[enum_value(
        name = "RTMPS only, an error without certificate-file",
        nick = "required"
    )]
    Required,
    /// RTMP and RTMPS on one port, as each client likes.
    #[enum_value(name = "RTMP and RTMPS on the same port", nick = "optional")]
    Optional,
}

/// PROXY header that precedes each connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRTMP2ServerSrcProxyProtocol")]
#[repr(u32)]
pub enum ProxyProtocol {
    /// Connections start with RTMP or TLS. A PROXY header is rejected.
    #[default]
    #[enum_value(name = "No PROXY header is allowed", nick = "off")]
    Off,
    /// A PROXY header of version 1 is required.
    #[enum_value(name = "A PROXY header of version 1 is required", nick = "v1")]
    V1,
    /// A PROXY header of version 2 is required.
    #[enum_value(name = "A PROXY header of version 2 is required", nick = "v2")]
    V2,
}

/// Treatment of a second publisher while there is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRTMP2ServerSrcPublisherPolicy")]
#[repr(u32)]
pub enum PublisherPolicy {
    /// Reject the new publisher.
    #[enum_value(name = "Reject the new publisher", nick = "reject")]
    Reject,
    /// The new publisher replaces the present one.
    #[enum_value(name = "The new publisher replaces the present one", nick = "replace")]
    Replace,
    /// For a publisher that returns after its network died, while its old connection is still open.
    #[default]
    #[enum_value(
        name = "The new publisher replaces one that has sent no media for stall-timeout",
        nick = "replace-stalled"
    )]
    ReplaceStalled,
}

/// Part of a stream key that messages and the log show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRTMP2ServerSrcLogKeys")]
#[repr(u32)]
pub enum LogKeys {
    /// Up to 8 characters, or the first 3 and the last 2 of more.
    #[default]
    #[enum_value(
        name = "Up to 8 characters, or the first 3 and the last 2 of more",
        nick = "masked"
    )]
    Masked,
    /// The whole stream key.
    #[enum_value(name = "The whole stream key", nick = "full")]
    Full,
    /// Nothing of a stream key.
    #[enum_value(name = "Nothing of a stream key", nick = "none")]
    None,
}

impl From<LogKeys> for KeyMasking {
    fn from(keys: LogKeys) -> Self {
        match keys {
            LogKeys::Masked => KeyMasking::Masked,
            LogKeys::Full => KeyMasking::Full,
            LogKeys::None => KeyMasking::None,
        }
    }
}

/// Output while no media of a publisher comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRTMP2ServerSrcStandby")]
#[repr(u32)]
pub enum Standby {
    /// Nothing.
    #[default]
    #[enum_value(name = "Nothing", nick = "none")]
    None,
    /// The last keyframe once a second, with silence.
    #[enum_value(
        name = "The last keyframe once a second, with silence in the publisher's codec",
        nick = "freeze"
    )]
    Freeze,
    /// The file at standby-location in a loop.
    #[enum_value(name = "The file at standby-location in a loop", nick = "file")]
    File,
}

/// Behaviour of a full queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRTMP2ServerSrcLeakyType")]
#[repr(u32)]
pub enum LeakyType {
    /// Reading stops, so that TCP pushes back on the publisher and nothing is lost.
    #[default]
    #[enum_value(name = "Not leaky: push back on the publisher", nick = "none")]
    None,
    /// Leaky on upstream: drop new groups of pictures.
    #[enum_value(
        name = "Leaky on upstream: drop new groups of pictures",
        nick = "upstream"
    )]
    Upstream,
    /// Leaky on downstream: drop old groups of pictures.
    #[enum_value(
        name = "Leaky on downstream: drop old groups of pictures",
        nick = "downstream"
    )]
    Downstream,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    {
        for enumeration in [
            AuthMod::static_type(),
            ConnectionState::static_type(),
            Encryption::static_type(),
            LeakyType::static_type(),
            LogKeys::static_type(),
            ProxyProtocol::static_type(),
            PublisherPolicy::static_type(),
            Standby::static_type(),
            StreamEvent::static_type(),
            StreamStatus::static_type(),
            TimestampMode::static_type(),
        ] {
            enumeration.mark_as_plugin_api(gst::PluginAPIFlags::empty());
        }
    }
    gst::Element::register(
        Some(plugin),
        "rtmp2serversrc",
        gst::Rank::NONE,
        Rtmp2ServerSrc::static_type(),
    )
}
