// SPDX-License-Identifier: MPL-2.0

//! Arbitrary bytes: the demuxer does not panic, posts no error, continues to the end, and keeps at
//! most one tag of its input.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::sample::Index;

use super::broken::file;
use super::codecs::{hdr10, new_file};
use properties::cases;
use support::demuxer::Demuxer;
use support::flv::{self, AUDIO, SCRIPT, Tag, VIDEO};
use support::media::{SMALL_VIDEO, TONE, small};

/// Size of the longest tag, and of the buffer that completes it.
const MOST_KEPT: usize = (1 << 24) + (1 << 20);

/// Bytes that are counted as long as a buffer refers to them.
struct Counted {
    bytes: Vec<u8>,
    kept: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.kept.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Form of the input.
#[derive(Debug, Clone, Copy)]
enum Delivery {
    /// Buffers of this length, as from a file or from HTTP.
    Pieces(usize),
    /// A buffer with a time for each tag, as from rtmp2serversrc. Other bytes are one buffer too.
    Live,
}

fn delivery() -> impl Strategy<Value = Delivery> {
    prop_oneof![
        (1..64usize).prop_map(Delivery::Pieces),
        (1..20_000usize).prop_map(Delivery::Pieces),
        Just(Delivery::Pieces(usize::MAX)),
        Just(Delivery::Live),
    ]
}

/// Returns the ends of a live source's buffers: after each tag that can be recognized.
fn ends_of_tags(bytes: &[u8]) -> Vec<usize> {
    let mut ends = vec![13.min(bytes.len())];
    loop {
        let at = ends[ends.len() - 1];
        let Some(front) = bytes.get(at..at + 4) else {
            ends.push(bytes.len());
            return ends;
        };
        let length = u32::from_be_bytes([0, front[1], front[2], front[3]]) as usize;
        ends.push((at + 15 + length).min(bytes.len()));
    }
}

fn survive(bytes: &[u8], delivery: Delivery) -> Result<(), TestCaseError> {
    let kept = Arc::new(AtomicUsize::new(0));
    let (ends, demuxer) = match delivery {
        Delivery::Pieces(length) => {
            let count = bytes.len() / length.max(1);
            let ends: Vec<usize> = (1..=count).map(|n| n * length).collect();
            let segment = gst::FormattedSegment::<gst::format::Bytes>::new();
            (
                ends,
                Demuxer::keeping_nothing("eflvdemux", segment.upcast_ref()),
            )
        }
        Delivery::Live => {
            let segment = gst::FormattedSegment::<gst::ClockTime>::new();
            let demuxer = Demuxer::keeping_nothing("eflvdemux", segment.upcast_ref());
            (ends_of_tags(bytes), demuxer)
        }
    };
    let mut start = 0;
    for end in ends.into_iter().chain([bytes.len()]) {
        let piece = &bytes[start..end.clamp(start, bytes.len())];
        start += piece.len();
        if piece.is_empty() {
            continue;
        }
        kept.fetch_add(piece.len(), Ordering::Relaxed);
        let mut buffer = gst::Buffer::from_slice(Counted {
            bytes: piece.to_vec(),
            kept: kept.clone(),
        });
        if matches!(delivery, Delivery::Live) {
            let time = gst::ClockTime::from_mseconds(start as u64 / 100);
            buffer.get_mut().unwrap().set_dts(time);
        }
        prop_assert!(demuxer.push_buffer(buffer).is_ok());
        let kept = kept.load(Ordering::Relaxed);
        prop_assert!(kept <= MOST_KEPT, "{kept} bytes are kept");
    }
    let tracks = demuxer.finish();
    for (name, track) in &tracks {
        prop_assert!(track.is_ended(), "{name} has no end");
    }
    let errors = demuxer.messages(gst::MessageType::Error);
    // It is due: no pad exists for the end of stream.
    prop_assert_eq!(errors.len(), usize::from(tracks.is_empty()), "{:?}", errors);
    let warnings = demuxer.messages(gst::MessageType::Warning);
    prop_assert!(warnings.len() <= 10, "one of each kind: {warnings:?}");
    drop(demuxer);
    prop_assert_eq!(kept.load(Ordering::Relaxed), 0);
    Ok(())
}

/// A change of a stream.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(Index, u8),
    Set(Index, u8),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    /// Copies a range to another place, over the bytes there or between them.
    Splice(Index, usize, Index, bool),
    /// Changes the length field of a tag: by a little, or to any value.
    Length(Index, i32),
    LengthTo(Index, u32),
    /// Changes one of the first bytes of a tag's body, which describe the rest.
    Head(Index, usize, u8),
    Cut(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => (at(), 1..500usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..300))
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (at(), 1..5000usize, at(), any::<bool>())
            .prop_map(|(from, length, to, over)| Mutation::Splice(from, length, to, over)),
        2 => (at(), -20..20i32).prop_map(|(tag, by)| Mutation::Length(tag, by)),
        1 => (at(), 0..1u32 << 24).prop_map(|(tag, to)| Mutation::LengthTo(tag, to)),
        3 => (at(), 0..40usize, any::<u8>())
            .prop_map(|(tag, at, byte)| Mutation::Head(tag, at, byte)),
        1 => at().prop_map(Mutation::Cut),
    ]
}

fn set_length(front: &mut [u8], length: u32) {
    front[1..4].copy_from_slice(&length.to_be_bytes()[1..]);
}

/// Applies a mutation. `starts` are the offsets of the tags in the original.
fn apply(bytes: &mut Vec<u8>, starts: &[usize], mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    let tag = |index: &Index| *index.get(starts);
    match mutation {
        Mutation::Flip(at, bit) => *at.get_mut(bytes) ^= 1 << bit,
        Mutation::Set(at, byte) => *at.get_mut(bytes) = *byte,
        Mutation::Remove(at, length) => {
            let start = at.index(bytes.len());
            bytes.drain(start..(start + length).min(bytes.len()));
        }
        Mutation::Insert(at, new) => {
            let start = at.index(bytes.len());
            bytes.splice(start..start, new.iter().copied());
        }
        Mutation::Splice(from, length, to, over) => {
            let from = from.index(bytes.len());
            let piece = bytes[from..(from + length).min(bytes.len())].to_vec();
            let to = to.index(bytes.len());
            let end = if *over {
                (to + piece.len()).min(bytes.len())
            } else {
                to
            };
            bytes.splice(to..end, piece);
        }
        Mutation::Length(index, by) => {
            if let Some(front) = bytes.get_mut(tag(index)..).filter(|front| front.len() > 4) {
                let length = u32::from_be_bytes([0, front[1], front[2], front[3]]);
                set_length(front, length.wrapping_add_signed(*by));
            }
        }
        Mutation::LengthTo(index, to) => {
            if let Some(front) = bytes.get_mut(tag(index)..).filter(|front| front.len() > 4) {
                set_length(front, *to);
            }
        }
        Mutation::Head(index, at, new) => {
            if let Some(byte) = bytes.get_mut(tag(index) + 11 + at) {
                *byte = *new;
            }
        }
        Mutation::Cut(at) => bytes.truncate(at.index(bytes.len())),
    }
}

/// Returns files of every kind, each with the offsets of its tags.
fn samples() -> Vec<(Vec<u8>, Vec<usize>)> {
    let mixed = new_file(
        "mutated-mixed",
        &format!(
            "{SMALL_VIDEO} {SMALL_VIDEO} {TONE} {TONE} -pix_fmt yuv420p -t 1 -map 0 -map 1 -map 2 -map 3 \
             -c:v:0 libx264 -preset:v:0 ultrafast -c:v:1 libx265 -preset:v:1 ultrafast \
             -x265-params log-level=none -c:a:0 aac -c:a:1 libopus"
        ),
    );
    let av1 = new_file(
        "mutated-av1",
        &format!("{SMALL_VIDEO} {TONE} -t 1 -pix_fmt yuv420p -c:v libsvtav1 -preset 12 -c:a flac"),
    );
    let legacy = new_file(
        "mutated-legacy",
        &format!("{SMALL_VIDEO} {TONE} -t 1 -c:v flv -c:a adpcm_swf -ar 22050 -ac 1"),
    );
    let files = [mixed, av1, legacy, hdr10(), small(2)];
    let with_starts = files.iter().map(|path| {
        let bytes = std::fs::read(path).unwrap();
        let mut starts = Vec::new();
        let mut at = 13;
        for tag in flv::parse(&bytes).unwrap() {
            starts.push(at);
            at += 15 + tag.body.len();
        }
        (bytes, starts)
    });
    with_starts.collect()
}

/// Tags with nearly valid headers and arbitrary bodies.
fn tag() -> impl Strategy<Value = Tag> {
    let four_cc = prop_oneof![
        prop::sample::select(vec![
            *b"vp08", *b"vp09", *b"av01", *b"avc1", *b"hvc1", *b"vvc1", *b"ac-3", *b"ec-3",
            *b"Opus", *b".mp3", *b"fLaC", *b"mp4a",
        ]),
        any::<[u8; 4]>(),
    ];
    let rest = prop::collection::vec(any::<u8>(), 0..80);
    let ex = (
        any::<bool>(),
        0..16u8,
        0..8u8,
        prop::option::of(any::<u8>()),
        four_cc,
        rest.clone(),
    );
    let ex = ex.prop_map(|(is_video, packet, frame, multitrack, four_cc, rest)| {
        let (kind, upper, multi) = match is_video {
            true => (VIDEO, 0x80 | frame << 4, 6),
            false => (AUDIO, 0x90, 5),
        };
        let front = match multitrack {
            Some(kinds) => vec![upper | multi, kinds],
            None => vec![upper | packet],
        };
        (kind, [front, four_cc.to_vec(), rest].concat())
    });
    let legacy = (prop::sample::select(vec![AUDIO, VIDEO, SCRIPT, 15]), rest);
    let body = prop_oneof![3 => ex, 1 => legacy];
    let time = prop_oneof![0..10_000u32, any::<u32>()];
    (body, time).prop_map(|((kind, body), time)| Tag::new(kind, time, body))
}

#[test]
fn mutated_files_cause_no_error() {
    support::init();
    let samples = samples();
    proptest!(cases(400), |(
        sample in any::<Index>(),
        mutations in prop::collection::vec(mutation(), 0..30),
        delivery in delivery(),
    )| {
        let (bytes, starts) = sample.get(&samples);
        let mut bytes = bytes.clone();
        for mutation in &mutations {
            apply(&mut bytes, starts, mutation);
        }
        survive(&bytes, delivery)?;
    });
}

#[test]
fn arbitrary_tags_cause_no_error() {
    support::init();
    proptest!(cases(600), |(
        tags in prop::collection::vec(tag(), 0..60),
        delivery in delivery(),
    )| {
        survive(&file(&tags), delivery)?;
    });
}

#[test]
fn arbitrary_bytes_cause_no_error() {
    support::init();
    proptest!(cases(200), |(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        has_header in any::<bool>(),
        delivery in delivery(),
    )| {
        let header = if has_header { file(&[]) } else { Vec::new() };
        survive(&[header, bytes].concat(), delivery)?;
    });
}

/// The stream is long enough to exceed the bound.
#[test]
fn memory_is_bounded_by_one_tag() {
    support::init();
    let samples = samples();
    proptest!(cases(12), |(
        sample in any::<Index>(),
        mutations in prop::collection::vec(mutation(), 1..20),
        length in prop_oneof![1_000..100_000usize, Just(1 << 20)],
    )| {
        let (bytes, starts) = sample.get(&samples);
        let mut bytes = bytes.clone();
        for mutation in &mutations {
            apply(&mut bytes, starts, mutation);
        }
        let bytes = bytes.repeat((40 << 20) / bytes.len().max(1));
        survive(&bytes, Delivery::Pieces(length))?;
    });
}
