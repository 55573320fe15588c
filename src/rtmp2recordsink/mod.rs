// SPDX-License-Identifier: MPL-2.0

//! # rtmp2recordsink
//!
//! SECTION:element-rtmp2recordsink
//! @see_also: rtmp2serversrc, rtmp2multiserversrc, splitmuxsink
//!
//! Records an FLV stream, with all of its tracks, to files that are named by stream and time.
//! Nothing is encoded again.
//!
//! ## Example pipelines
//!
//! ```bash
//! gst-launch-1.0 rtmp2serversrc port=1935 keep-listening=true \
//!     ! rtmp2recordsink location="rec/{application}/{stream-key}/%Y%m%d-%H%M%S.mp4"
//! ```
//! Records each publisher to a file of its own, until Ctrl-C.
//!
//! ```bash
//! gst-launch-1.0 rtmp2serversrc port=1935 keep-listening=true \
//!     ! rtmp2recordsink location="rec/%Y%m%d-%H%M%S.mkv" max-size-time=3600000000000 max-files=24
//! ```
//! Begins another file each hour, and keeps the last 24.
//!
//! ## Files
//!
//! The ending of #GstRTMP2RecordSink:location selects the format: `.mp4` (fragmented), `.mkv`,
//! `.ts` or `.flv`. `{application}`, `{stream-key}` and the variables of the source's route are
//! filled in from the stream, and the rest is a format of strftime, in local time. Characters of
//! values that have a meaning in paths are written as `%2F`; long values are cut and end with a
//! hash. An unknown or empty value is `unknown`. Folders are made.
//!
//! A file has `.rec.part` after its name while it is written, and is renamed when it is whole and on
//! the disk (fsync, on a thread of its own, while the next file is recorded). No
//! file is ever overwritten: where the name is used, `-1`, `-2` and so on come before the ending.
//! A recorder that is killed leaves a file that plays up to the last fragment of
//! #GstRTMP2RecordSink:fragment-duration. The next recorder that opens a file in the same folder
//! cuts it after that fragment, and renames it.
//!
//! ## Where files begin and end
//!
//! The first second of media decides about the tracks of a file. A track that comes later is in the
//! next file, which then begins at the next keyframe; nothing is lost in between. A file ends, and
//! the next one begins,
//!
//! - at the first keyframe after #GstRTMP2RecordSink:max-size-time or
//!   #GstRTMP2RecordSink:max-size-bytes, of the lowest video track, or anywhere without video;
//! - where the configuration of a track changes;
//! - when the publisher has left for good, or with the keyframe of another one of another name. One
//!   that returns within `resume-timeout` continues the same file if its configuration is the same.
//!   Standby is recorded too, and then files end at keyframes only;
//! - at the end of the stream, and when the element stops.
//!
//! A track without media while others go on for 3 seconds ends in that file, since muxers would
//! wait for it. It is in the next file again. For a track that does so repeatedly that time grows to
//! 30 seconds.
//!
//! Tracks in a codec that the format does not have are left out, with a warning; a file has at most
//! 32 tracks, FLV one of each kind.
//!
//! ## A disk that fails
//!
//! The element posts no ERROR for what happens to its files, so that other branches of the pipeline
//! go on: a full disk, a missing permission and a removed folder are WARNING messages. The part of
//! the file that is whole is kept, and recording goes on at a keyframe at least two seconds later,
//! in another file, if that can be written. Equal warnings are posted once a minute.
//!
//! With #GstRTMP2RecordSink:min-free-bytes a file ends before the disk is full. Then the oldest
//! files are deleted if #GstRTMP2RecordSink:max-files is set; otherwise recording
//! pauses until there is space. A disk that accepts no data for 2 seconds, with 64 MiB waiting,
//! makes the element drop media rather than block the pipeline. Stopping waits for such a disk for
//! 6 seconds at most.
//!
//! ## Files that are deleted
//!
//! #GstRTMP2RecordSink:max-files counts the whole files of each stream, those of earlier runs and of
//! other elements with the same location among them. A file counts if only this location and stream
//! can have made its name: the fields have the values of the stream, each conversion of a time is a
//! number in its range (of `%Y %m %d %H %I %M %S %y %j %V %u %s %F %T`; names of days and months tell
//! no file), and a number such as `-1` may follow. With `{stream-key}.mp4` the file `cam-1.mp4` may
//! be the first one of a stream `cam-1`: such files count only in the run that made them. Files with
//! other names, links and folders are never deleted.
//!
//! ## Messages
//!
//! The element message `rtmp2-recorded-file` has `version` (guint, 1), `event` (string), `path`
//! (string) and `bytes` (guint64). The events are `opened`, `finished`, `failed`, `recovered` (a file
//! that was left behind) and `deleted`. The first three also have `application`, `stream-key`,
//! `tracks` (array of structures with `name` and `media-type`), `start-time` and `end-time` (running
//! time in ns), `packets` (guint64) and `date-time` (GstDateTime) of the beginning, except where no
//! file could be opened. `finished` and `failed` have the `reason` of the end: `configuration`,
//! `publisher`, `max-size-time`, `max-size-bytes`, `min-free-bytes`, `eos`, `stopped`,
//! `discontinuity` or `error`, and `failed` the `error` as text.
//!
//! Since: 0.1.0

use std::sync::LazyLock;

use gst::glib;
use gst::prelude::*;

mod announcements;
mod block_flags;
mod corrections;
mod counters;
mod disk;
mod file;
mod finisher;
mod fragments;
mod imp;
mod input;
mod kept;
mod location;
mod pattern;
mod repair;
mod rotation;
mod settings;
mod shared;
mod watch;
mod worker;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rtmp2recordsink",
        gst::DebugColorFlags::empty(),
        Some("RTMP recording sink"),
    )
});

glib::wrapper! {
    /// Element `rtmp2recordsink`: records FLV streams to files.
    pub struct Rtmp2RecordSink(ObjectSubclass<imp::Rtmp2RecordSink>)
        @extends gst::Bin, gst::Element, gst::Object,
        @implements gst::ChildProxy;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(
        Some(plugin),
        "rtmp2recordsink",
        gst::Rank::NONE,
        Rtmp2RecordSink::static_type(),
    )
}
