// SPDX-License-Identifier: MPL-2.0

//! `onMetaData` as tags.

use gst::tags;

use crate::flv::TagKind;
use crate::flv::body::Metadata;

/// Tags of the stream and of one track, both empty without metadata.
pub(super) fn of_stream_and_track(
    metadata: Option<&Metadata>,
    kind: TagKind,
    track: u8,
) -> [gst::TagList; 2] {
    let nothing = Metadata::default();
    let metadata = metadata.unwrap_or(&nothing);
    [of_stream(metadata), of_track(metadata, kind, track)]
}

/// Tags of the whole stream.
fn of_stream(metadata: &Metadata) -> gst::TagList {
    let mut list = gst::TagList::new();
    if let Some(list) = list.get_mut() {
        list.set_scope(gst::TagScope::Global);
        let text = |name| metadata.text(name).filter(|text| !text.is_empty());
        if let Some(title) = text("title") {
            list.add::<tags::Title>(&title, gst::TagMergeMode::Replace);
        }
        if let Some(artist) = text("creator").or(text("artist")) {
            list.add::<tags::Artist>(&artist, gst::TagMergeMode::Replace);
        }
        if let Some(encoder) = text("encoder").or(text("metadatacreator")) {
            list.add::<tags::Encoder>(&encoder, gst::TagMergeMode::Replace);
        }
        if let Some(comment) = text("comment") {
            list.add::<tags::Comment>(&comment, gst::TagMergeMode::Replace);
        }
        if let Some(date) = text("creationdate").or(text("date"))
            && let Ok(date) = gst::DateTime::from_iso8601_string(date)
        {
            list.add::<tags::DateTime>(&date, gst::TagMergeMode::Replace);
        }
        if let Some(duration) = duration(metadata) {
            list.add::<tags::Duration>(&duration, gst::TagMergeMode::Replace);
        }
    }
    list
}

/// Tags of one track.
fn of_track(metadata: &Metadata, kind: TagKind, track: u8) -> gst::TagList {
    let (map, rate) = match kind {
        TagKind::Video => (
            "videoTrackIdInfoMap",
            metadata.video(track, "videodatarate"),
        ),
        _ => (
            "audioTrackIdInfoMap",
            metadata.audio(track, "audiodatarate"),
        ),
    };
    let mut list = gst::TagList::new();
    if let Some(list) = list.get_mut() {
        if let Some(rate) = rate.filter(|rate| (1.0..4e6).contains(rate)) {
            let rate = (rate * 1000.0) as u32;
            list.add::<tags::NominalBitrate>(&rate, gst::TagMergeMode::Replace);
        }
        let text = |name| metadata.track_text(map, track, name);
        if let Some(language) = text("language").or(text("lang")) {
            list.add::<tags::LanguageCode>(&language, gst::TagMergeMode::Replace);
        }
        if let Some(title) = text("title").or(text("name")) {
            list.add::<tags::Title>(&title, gst::TagMergeMode::Replace);
        }
    }
    list
}

/// Duration of a file. Live streams have 0 or nothing.
pub(super) fn duration(metadata: &Metadata) -> Option<gst::ClockTime> {
    let seconds = metadata.number("duration")?;
    (seconds > 0.0 && seconds < 1e9).then(|| gst::ClockTime::from_nseconds((seconds * 1e9) as u64))
}
