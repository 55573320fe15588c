// SPDX-License-Identifier: MPL-2.0

//! Clean streams pass through as they are.

use std::process::Command;

use super::media::clean_media;
use super::program::Relay;
use super::segments::{Segment, assert_clean, assert_plays};
use support::clients::FFMPEG;
use support::flv::Tag;

/// Returns the NAL units of slices.
fn sent_slices(tags: &[Tag]) -> Vec<Vec<u8>> {
    let mut slices = Vec::new();
    for tag in tags.iter().filter(|tag| tag.is_frame()) {
        let mut rest = &tag.body[5..];
        while let Some((length, after)) = rest.split_first_chunk() {
            let (nal, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            slices.push(nal.to_vec());
            rest = after;
        }
    }
    slices.retain(|nal| matches!(nal[0] & 0x1F, 1..=5));
    slices
}

/// Returns the same of segments, as ffmpeg extracts them.
fn listed_slices(segments: &[Segment]) -> Vec<Vec<u8>> {
    let mut slices = Vec::new();
    for segment in segments {
        let output = Command::new(FFMPEG)
            .args(["-nostdin", "-v", "error", "-i"])
            .arg(&segment.path)
            .args(["-map", "0:v", "-c", "copy", "-f", "h264", "-"])
            .output();
        let bytes = output.unwrap().stdout;
        let is_start = |at: &usize| bytes[*at..].starts_with(&[0, 0, 1]);
        let starts: Vec<usize> = (0..bytes.len()).filter(is_start).collect();
        for (index, start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(bytes.len());
            let nal = &bytes[start + 3..end];
            // The next start code may have one more zero, and no NAL unit ends with one.
            let length = nal.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            slices.push(nal[..length].to_vec());
        }
    }
    slices.retain(|nal| matches!(nal[0] & 0x1F, 1..=5));
    slices
}

#[test]
fn a_clean_stream_passes_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &["--passthrough"]);
    let media = clean_media(10);
    let seen = relay.take("ann", &media);
    assert!(!seen.contains("cleaned"), "{seen}");
    let segments = relay.segments("ann");
    assert_eq!(segments.len(), 5);
    for segment in &segments {
        assert_eq!(segment.video.len(), 60);
        assert!(segment.video[0].is_key);
        for stream in ["h264 Constrained Baseline", "aac LC 48000 2"] {
            assert!(segment.streams.iter().any(|s| s == stream));
        }
    }
    let (sent, listed) = (sent_slices(&media), listed_slices(&segments));
    assert_eq!(sent.len(), listed.len());
    assert!(sent == listed, "a slice is not as it was sent");
    assert_plays(&relay.stream("ann"));
}

#[test]
fn a_stream_that_stops_being_clean_is_cleaned_from_there_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(folder.path(), &["--passthrough"]);
    // After four seconds frames come too late, from within a group on.
    let mut media = clean_media(10);
    for tag in &mut media {
        if tag.timestamp > 5000 {
            tag.timestamp += 300;
        }
    }
    let seen = relay.take("ann", &media);
    assert!(seen.contains("it is cleaned"), "{seen}");
    let segments = relay.segments("ann");
    // 10.3 s: the last segment is mostly filled up.
    assert_eq!(segments.len(), 6);
    assert!(segments.iter().all(|segment| segment.video.len() == 60));
    assert_clean(&segments[2..]);
    assert_eq!(listed_slices(&segments[..2]), sent_slices(&media)[..120]);
    let list = relay.playlist("ann");
    let marks: Vec<bool> = list.segments.iter().map(|s| s.discontinuity).collect();
    assert_eq!(marks, [false, true, false, false, false]);
    assert_plays(&relay.stream("ann"));
}
