// SPDX-License-Identifier: MPL-2.0

use super::*;
use crate::memory::Memory;

const IDR: &[u8] = &[0x65, 0x88, 0x84];
const I_SLICE: &[u8] = &[0x41, 0x88, 0x84];
const P_SLICE: &[u8] = &[0x41, 0x9A, 0x20];
const B_SLICE: &[u8] = &[0x01, 0x9E, 0x20];
const SPS: &[u8] = &[0x67, 0x42, 0xD0, 0x0B, 0xD9];
const PPS: &[u8] = &[0x68, 0xCB, 0x83, 0xCB];
/// A recovery point after unregistered user data.
const RECOVERY_SEI: &[u8] = &[6, 5, 3, 1, 2, 3, 6, 1, 0xC4, 0x80];
const OTHER_SEI: &[u8] = &[6, 1, 6, 6, 6, 6, 6, 6, 6, 0x80];

fn with_lengths(size: usize, nals: &[&[u8]]) -> Vec<u8> {
    let unit = |nal: &&[u8]| [&(nal.len() as u32).to_be_bytes()[4 - size..], nal].concat();
    nals.iter().flat_map(unit).collect()
}

fn with_start_codes(nals: &[&[u8]]) -> Vec<u8> {
    let mut data = vec![0];
    for nal in nals {
        data.extend([0, 0, 1]);
        data.extend_from_slice(nal);
    }
    data
}

#[track_caller]
fn assert_picture(codec: PictureCodec, nals: &[&[u8]], expected: Picture) {
    for size in [1, 2, 4] {
        let data = with_lengths(size, nals);
        let picture = Picture::classify(codec, size as u8, &data);
        assert_eq!(picture, expected, "lengths of {size} bytes");
    }
    let data = with_start_codes(nals);
    assert_eq!(Picture::classify(codec, 4, &data), expected, "start codes");
    let data = &data[1..];
    assert_eq!(Picture::classify(codec, 4, data), expected, "short codes");
}

#[test]
fn avc_pictures_are_classified_in_every_form() {
    let avc = |nals: &[&[u8]], expected| assert_picture(PictureCodec::Avc, nals, expected);
    avc(&[IDR], Picture::SyncPoint);
    avc(&[SPS, PPS, OTHER_SEI, IDR], Picture::SyncPoint);
    avc(&[RECOVERY_SEI, P_SLICE], Picture::SyncPoint);
    avc(&[OTHER_SEI, P_SLICE], Picture::Inter);
    avc(&[I_SLICE, I_SLICE], Picture::Intra);
    avc(&[I_SLICE, P_SLICE], Picture::Inter);
    avc(&[B_SLICE], Picture::Inter);
    avc(&[SPS, PPS], Picture::Unknown);
}

/// A length of 256 to 511 bytes looks like a start code.
#[test]
fn padded_pictures_are_classified() {
    let mut slice = P_SLICE.to_vec();
    for length in [250, 256, 0x165, 511] {
        slice.resize(length, 0x55);
        for padding in [&[][..], &[0], &[0; 3], &[0; 4], &[9, 9]] {
            let data = [&with_lengths(4, &[&slice])[..], padding].concat();
            let picture = Picture::classify(PictureCodec::Avc, 4, &data);
            assert_eq!(picture, Picture::Inter, "{length} {padding:?}");
        }
    }
}

#[test]
fn hevc_and_vvc_pictures_are_classified() {
    let hevc = |nals: &[&[u8]], expected| assert_picture(PictureCodec::Hevc, nals, expected);
    // IDR_W_RADL, CRA and BLA.
    for kind in [19_u8, 21, 16] {
        hevc(&[&[kind << 1, 1, 0xAF]], Picture::SyncPoint);
    }
    let recovery: &[u8] = &[39 << 1, 1, 6, 1, 0xC4, 0x80];
    let p_slice: &[u8] = &[1 << 1, 1, 0b1101_0000];
    let i_slice: &[u8] = &[1 << 1, 1, 0b1101_1000];
    hevc(&[recovery, p_slice], Picture::SyncPoint);
    hevc(&[p_slice], Picture::Inter);
    hevc(&[i_slice], Picture::Intra);
    hevc(&[&[32 << 1, 1, 0]], Picture::Unknown);
    let vvc = |nals: &[&[u8]], expected| assert_picture(PictureCodec::Vvc, nals, expected);
    for kind in [7_u8, 8, 9, 10] {
        vvc(
            &[&[0, 15 << 3 | 1], &[0, kind << 3 | 1, 9]],
            Picture::SyncPoint,
        );
    }
    vvc(&[&[0, 1, 9]], Picture::Inter);
    vvc(&[&[0, 15 << 3 | 1, 9]], Picture::Unknown);
}

#[test]
fn frames_of_other_codecs_are_classified() {
    use PictureCodec::{Av1, SorensonH263, Vp6, Vp8, Vp9};
    let classify = |codec, data: &[u8]| Picture::classify(codec, 4, data);
    // A temporal delimiter and a sequence header before the frame.
    let front: &[u8] = &[0x12, 0, 0x0A, 2, 0, 0];
    let av1 = |first: u8| classify(Av1, &[front, &[0x32, 2, first, 0]].concat());
    assert_eq!(av1(0x10), Picture::SyncPoint);
    assert_eq!(av1(0x30), Picture::Inter);
    assert_eq!(av1(0x50), Picture::Intra);
    assert_eq!(av1(0x80), Picture::Unknown);
    assert_eq!(classify(Av1, front), Picture::Unknown);
    let vp8 = classify(Vp8, &[0x10, 0, 0, 0x9D, 1, 0x2A, 0, 0]);
    assert_eq!(vp8, Picture::SyncPoint);
    assert_eq!(classify(Vp8, &[0x11, 0, 0, 0]), Picture::Inter);
    assert_eq!(classify(Vp8, &[0x10, 0, 0, 0]), Picture::Unknown);
    assert_eq!(classify(Vp9, &[0x82, 0x49]), Picture::SyncPoint);
    assert_eq!(classify(Vp9, &[0x86, 0]), Picture::Inter);
    assert_eq!(classify(Vp9, &[0x84, 0x80]), Picture::Intra);
    assert_eq!(classify(Vp9, &[0x88, 0]), Picture::Unknown);
    assert_eq!(classify(Vp9, &[0x42, 0]), Picture::Unknown);
    let h263 = |kind: u8| classify(SorensonH263, &[0, 0, 0x80, 0x01, kind << 5]);
    assert_eq!(h263(0), Picture::SyncPoint);
    assert_eq!(h263(1), Picture::Inter);
    assert_eq!(classify(Vp6, &[0x00]), Picture::SyncPoint);
    assert_eq!(classify(Vp6, &[0x80]), Picture::Inter);
    assert_eq!(classify(Vp6, &[]), Picture::Unknown);
}

/// The contents of tags as flagged, each as its bitstream is: a letter for each.
fn corrected(detector: &mut KeyframeDetector, pictures: &[(u8, &[u8])]) -> String {
    let content = |(front, nal): &(u8, &[u8])| {
        let body = [&[*front, 1, 0, 0, 0], &with_lengths(4, &[*nal])[..]].concat();
        let body = Memory::from_vec(body, 0);
        let mut tag = Tag::new(TagKind::Video, 0, body).unwrap();
        detector.correct(&mut tag);
        match tag.info.content {
            Content::Keyframe => 'K',
            _ => '-',
        }
    };
    pictures.iter().map(content).collect()
}

const KEY: u8 = 0x17;
const INTER: u8 = 0x27;

#[test]
fn keyframes_flagged_as_inter_are_keyframes() {
    let mut detector = KeyframeDetector::default();
    let group = [(INTER, P_SLICE), (INTER, IDR), (INTER, P_SLICE)];
    let groups = [group, group, group].concat();
    assert_eq!(corrected(&mut detector, &groups), "-K--K--K-");
}

#[test]
fn p_frames_flagged_as_key_are_none() {
    let mut detector = KeyframeDetector::default();
    let frames = [(KEY, P_SLICE), (KEY, IDR), (KEY, P_SLICE), (KEY, P_SLICE)];
    assert_eq!(corrected(&mut detector, &frames), "-K--");
}

#[test]
fn right_flags_and_unreadable_pictures_are_left_alone() {
    let mut detector = KeyframeDetector::default();
    let frames = [(KEY, IDR), (INTER, P_SLICE), (KEY, I_SLICE), (KEY, SPS)];
    assert_eq!(corrected(&mut detector, &frames), "K-KK");
    let noise: &[(u8, &[u8])] = &[(KEY, &[0xFF; 40]), (INTER, &[0xFF; 40])];
    assert_eq!(corrected(&mut detector, noise), "K-");
}

/// Some encoders flag their first keyframe, and no other.
#[test]
fn flags_that_stop_are_noticed() {
    let mut detector = KeyframeDetector::default();
    assert_eq!(corrected(&mut detector, &[(KEY, IDR)]), "K");
    let mut frames = vec![(INTER, P_SLICE); MAX_UNCHECKED_FRAMES as usize];
    frames.extend([(INTER, IDR), (INTER, P_SLICE), (INTER, IDR)]);
    assert!(corrected(&mut detector, &frames).ends_with("-K-K"));
}

#[test]
fn hevc_with_the_codec_id_of_avc_is_classified_as_hevc() {
    let mut record = vec![0; 23];
    (record[0], record[21], record[22]) = (1, 3, 2);
    for kind in [33_u8, 34] {
        record.extend([kind, 0, 1, 0, 3, kind << 1, 1, 0]);
    }
    let header = [&[0x17, 0, 0, 0, 0], &record[..]].concat();
    let header = Memory::from_vec(header, 0);
    let mut header = Tag::new(TagKind::Video, 0, header).unwrap();
    let mut detector = KeyframeDetector::default();
    detector.correct(&mut header);
    let idr: &[u8] = &[19 << 1, 1, 0xAF];
    let p_slice: &[u8] = &[1 << 1, 1, 0b1101_0000];
    let frames = [(INTER, p_slice), (INTER, idr), (KEY, p_slice)];
    assert_eq!(corrected(&mut detector, &frames), "-K-");
}

/// The lowest track counts, which players show, wherever it is in the tag.
#[test]
fn tag_of_several_tracks_is_what_its_lowest_track_is() {
    let track = |id: u8, nal: &[u8]| {
        let data = with_lengths(4, &[nal]);
        let size = (data.len() as u32).to_be_bytes();
        [&[id], &size[1..], &data].concat()
    };
    let content = |flags: u8, tracks: &[Vec<u8>]| {
        let body = [&[flags, 0x13][..], b"avc1", &tracks.concat()].concat();
        let mut tag = Tag::new(TagKind::Video, 0, Memory::from_vec(body, 0)).unwrap();
        KeyframeDetector::default().correct(&mut tag);
        tag.info.content
    };
    let empty = || vec![0, 0, 0, 0];
    let both = [track(1, P_SLICE), track(0, IDR)];
    assert_eq!(content(0xA6, &both), Content::Keyframe);
    let both = [track(1, IDR), track(0, P_SLICE)];
    assert_eq!(content(0x96, &both), Content::Frame);
    let with_empty = [empty(), track(2, IDR), track(1, P_SLICE)];
    assert_eq!(content(0x96, &with_empty), Content::Frame);
    let with_empty = [empty(), track(1, IDR)];
    assert_eq!(content(0xA6, &with_empty), Content::Keyframe);
}

/// One sequence header configures all of its tracks.
#[test]
fn length_sizes_of_several_tracks_are_those_of_their_records() {
    let mut detector = KeyframeDetector::default();
    let mut content = |body: Vec<u8>| {
        let mut tag = Tag::new(TagKind::Video, 0, Memory::from_vec(body, 0)).unwrap();
        detector.correct(&mut tag);
        tag.info.content
    };
    let record = |size: u8| {
        let front = [1, 0x42, 0, 30, 0xFC | (size - 1), 0xE1];
        let sets = [
            &[0, SPS.len() as u8][..],
            SPS,
            &[1, 0, PPS.len() as u8],
            PPS,
        ];
        [&front[..], &sets.concat()].concat()
    };
    let header = |id: u8, size: u8| {
        let record = record(size);
        [&[id, 0, 0, record.len() as u8][..], &record].concat()
    };
    let headers = [&b"\x96\x10avc1"[..], &header(0, 4), &header(1, 2)].concat();
    assert_eq!(content(headers), Content::SequenceHeader);
    for (id, size) in [(0, 4), (1, 2)] {
        let frame = with_lengths(size, &[IDR]);
        let body = [&b"\xA6\x03avc1"[..], &[id], &frame].concat();
        assert_eq!(content(body), Content::Keyframe, "{id}");
    }
}
