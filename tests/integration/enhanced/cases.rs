// SPDX-License-Identifier: MPL-2.0

//! Inputs that are not as the specifications have them, and what is right. The files are described
//! in tests/data/cases.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use gst::prelude::*;
use support::clients::NEW_FFMPEG;
use support::demuxer::{Demuxer, Packet};
use support::flv::{self, AUDIO, Tag, VIDEO};
use support::media::{made_by, small};
use support::raw::RawClient;
use support::recorder::Recorder;
use support::synthetic::{audio, audio_header, delta_frame, keyframe, video_header};
use support::{init, rendered, repository};

use super::broken::file;

const START: &[u8] = &[0, 0, 0, 1];

pub fn case(name: &str) -> PathBuf {
    repository().join("tests/data/cases").join(name)
}

/// Frames that a decoder makes of a file's video.
#[track_caller]
fn decoded(path: &Path, decoder: &str) -> u64 {
    init();
    let text = format!(
        "filesrc location={} ! eflvdemux name=d d.video_0 ! queue ! {decoder} ! fakesink name=sink",
        path.display()
    );
    rendered(&gst::parse::launch(&text).unwrap())
}

#[track_caller]
fn decoded_tags(tags: &[Tag], decoder: &str) -> u64 {
    let mut path = tempfile::Builder::new().suffix(".flv").tempfile().unwrap();
    std::io::Write::write_all(&mut path, &file(tags)).unwrap();
    decoded(path.path(), decoder)
}

#[test]
fn annexb_and_start_codes_within_records_decode() {
    for name in [
        "03-annexb-record-and-frames.flv",
        "05-startcodes-inside-avcc.flv",
    ] {
        let path = case(name);
        for decoder in ["h264parse ! avdec_h264", "avdec_h264", "decodebin3"] {
            assert_eq!(decoded(&path, decoder), 20, "{name} with {decoder}");
        }
        let tracks = support::demuxer::demux("eflvdemux", &std::fs::read(&path).unwrap(), 1000);
        let caps = tracks["video_0"].last_caps();
        assert_eq!(caps.get("stream-format"), Ok("avc"));
        assert!(caps.has_field("width") && caps.has_field("profile"));
        let record: gst::Buffer = caps.get("codec_data").unwrap();
        assert_eq!(record.map_readable().unwrap()[0], 1, "{name}");
        for packet in &tracks["video_0"].packets {
            assert!(!packet.data.starts_with(START), "{name}");
        }
    }
}

#[test]
fn annexb_of_a_publisher_decodes() {
    let tags = flv::read_file(&case("03-annexb-record-and-frames.flv"));
    let downstream = "eflvdemux name=d d.video_0 ! queue ! h264parse ! avdec_h264 ! \
                      fakesink name=frames sync=false async=false";
    let recorder = Recorder::start_into("", downstream);
    let mut client = RawClient::publish(recorder.port(), "live", "key");
    for tag in &tags {
        client.media(tag.kind, tag.timestamp, &tag.body, 128);
    }
    drop(client);
    recorder.wait_for(gst::MessageType::Eos);
    let sink = recorder.pipeline.by_name("frames").unwrap();
    let stats: gst::Structure = sink.property("stats");
    assert_eq!(stats.get("rendered"), Ok(20_u64));
}

/// The parameter sets in an AVC record.
fn sets_of_avc(record: &[u8]) -> Vec<Vec<u8>> {
    let sized = |at: usize| {
        let length = usize::from(u16::from_be_bytes([record[at], record[at + 1]]));
        record[at + 2..at + 2 + length].to_vec()
    };
    let sps = sized(6);
    let pps = sized(6 + 2 + sps.len() + 1);
    vec![sps, pps]
}

/// The parameter sets in an HEVC record with one set in each array.
fn sets_of_hevc(record: &[u8]) -> Vec<Vec<u8>> {
    let mut sets = Vec::new();
    let mut at = 23;
    for _ in 0..record[22] {
        let count = u16::from_be_bytes([record[at + 1], record[at + 2]]);
        at += 3;
        for _ in 0..count {
            let length = usize::from(u16::from_be_bytes([record[at], record[at + 1]]));
            sets.push(record[at + 2..at + 2 + length].to_vec());
            at += 2 + length;
        }
    }
    sets
}

/// Legacy video tags with another record, and with the parameter sets in each keyframe. The frames
/// are in Annex B if `annexb`.
fn in_band(tags: &[Tag], sets: &[Vec<u8>], record: Option<&[u8]>, annexb: bool) -> Vec<Tag> {
    let with_start = |nal: &[u8]| match annexb {
        true => [START, nal].concat(),
        false => [&(nal.len() as u32).to_be_bytes(), nal].concat(),
    };
    let changed = |tag: &Tag| {
        let (front, payload) = tag.body.split_at(5);
        if tag.is_sequence_header() {
            return record.map(|record| Tag::new(VIDEO, 0, [front, record].concat()));
        }
        let mut body = front.to_vec();
        if front[0] >> 4 == 1 {
            body.extend(sets.iter().flat_map(|set| with_start(set)));
        }
        let mut rest = payload;
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (nal, after) = after.split_at(u32::from_be_bytes(*length) as usize);
            body.extend(with_start(nal));
            rest = after;
        }
        Some(Tag::new(VIDEO, tag.timestamp, body))
    };
    let video = tags.iter().filter(|tag| tag.kind == VIDEO);
    video.filter_map(changed).collect()
}

#[test]
fn cut_and_missing_records_with_parameter_sets_in_band_decode() {
    let tags = flv::read_file(&small(2));
    let header = tags
        .iter()
        .find(|t| t.kind == VIDEO && t.is_sequence_header());
    let record = header.unwrap().body[5..].to_vec();
    let sets = sets_of_avc(&record);
    let sps_end = 8 + sets[0].len();
    let without_sets = [&record[..5], &[0xE0, 0]].concat();
    let records = [
        None,
        Some(&record[..3]),
        Some(&record[..sps_end - 2]),
        Some(&record[..sps_end]),
        Some(&record[..sps_end + 3]),
        Some(&without_sets[..]),
    ];
    for annexb in [false, true] {
        for record in records {
            let tags = in_band(&tags, &sets, record, annexb);
            let frames = decoded_tags(&tags, "h264parse ! avdec_h264");
            assert_eq!(frames, 60, "{record:02x?} {annexb}");
        }
    }
}

/// Returns video tags whose record states this size of lengths, and whose frames `written` writes.
fn rewritten(tags: &[Tag], size: u8, written: impl Fn(&[&[u8]]) -> Vec<u8>) -> Vec<Tag> {
    let changed = |tag: &Tag| {
        let (front, payload) = tag.body.split_at(5);
        let mut body = front.to_vec();
        if tag.is_sequence_header() {
            body.extend_from_slice(payload);
            body[5 + 4] = 0xFC | (size - 1);
        } else {
            let mut nals = Vec::new();
            let mut rest = payload;
            while let Some((length, after)) = rest.split_first_chunk::<4>() {
                let (nal, after) = after.split_at(u32::from_be_bytes(*length) as usize);
                nals.push(nal);
                rest = after;
            }
            body.extend(written(&nals));
        }
        Tag::new(VIDEO, tag.timestamp, body)
    };
    let video = tags.iter().filter(|tag| tag.kind == VIDEO);
    video.map(changed).collect()
}

#[test]
fn annexb_with_zeros_before_it_and_lengths_of_any_size_decode() {
    let tags = flv::read_file(&small(2));
    for (size, zeros) in [(4, 0), (4, 1), (4, 2), (4, 5), (2, 2), (1, 1), (3, 1)] {
        // Lengths of one byte are too short for these NAL units.
        let annexb = rewritten(&tags, size, |nals| {
            let start =
                |index| [&vec![0; if index == 0 { zeros } else { 1 }], &START[1..]].concat();
            let nals = nals.iter().enumerate();
            nals.flat_map(|(index, nal)| [&start(index), *nal].concat())
                .collect()
        });
        for decoder in ["avdec_h264", "h264parse ! avdec_h264"] {
            assert_eq!(
                decoded_tags(&annexb, decoder),
                60,
                "{size} {zeros} {decoder}"
            );
        }
    }
    for size in [2, 3, 4_u8] {
        let prefixed = rewritten(&tags, size, |nals| {
            let skipped = 4 - usize::from(size);
            let prefix = |nal: &[u8]| (nal.len() as u32).to_be_bytes()[skipped..].to_vec();
            let nals = nals.iter().flat_map(|nal| [&prefix(nal), *nal].concat());
            nals.collect()
        });
        for decoder in ["avdec_h264", "h264parse ! avdec_h264"] {
            assert_eq!(decoded_tags(&prefixed, decoder), 60, "{size} {decoder}");
        }
    }
}

#[test]
fn hevc_in_annexb_or_without_a_record_decodes() {
    let path = made_by(
        &*NEW_FFMPEG,
        "cases-hevc.hevc.flv",
        "-f lavfi -i testsrc2=size=320x240:rate=30 -t 1 -pix_fmt yuv420p -c:v libx265 \
         -preset ultrafast -x265-params log-level=none -f flv",
    );
    // With the codec id from before there was a FourCC.
    let legacy = |tag: &Tag| {
        let key = (tag.body[0] >> 4 & 7) << 4 | 12;
        match (tag.body[0] & 0x0F, &tag.body[5..]) {
            (0, record) => Some([&[key, 0, 0, 0, 0], record].concat()),
            (1, frame) => Some([&[key, 1], frame].concat()),
            (3, frame) => Some([&[key, 1, 0, 0, 0], frame].concat()),
            _ => None,
        }
    };
    let tags = flv::read_file(&path).into_iter();
    let tags = tags.filter(|tag| tag.kind == VIDEO);
    let tags: Vec<_> = tags
        .filter_map(|tag| Some(Tag::new(VIDEO, tag.timestamp, legacy(&tag)?)))
        .collect();
    let record = tags.iter().find(|tag| tag.is_sequence_header()).unwrap();
    let record = record.body[5..].to_vec();
    let sets = sets_of_hevc(&record);
    let annexb: Vec<u8> = sets.iter().flat_map(|set| [START, set].concat()).collect();
    for (record, in_annexb) in [
        (Some(&annexb[..]), true),
        (Some(&annexb[..]), false),
        (Some(&record[..30]), true),
        (None, true),
        (None, false),
    ] {
        let tags = in_band(&tags, &sets, record, in_annexb);
        let frames = decoded_tags(&tags, "h265parse ! avdec_h265");
        assert_eq!(frames, 30, "{record:02x?} {in_annexb}");
    }
}

#[test]
fn two_files_in_one_lose_no_whole_tag_and_stay_in_step() {
    let bytes = std::fs::read(case("11-two-files-first-cut-short.flv")).unwrap();
    let is_start = |at: &usize| bytes[*at..].starts_with(flv::FILE_HEADER);
    let second = (1..bytes.len()).find(is_start).unwrap();
    let second = flv::parse(&bytes[second..]).unwrap();
    for piece in [100, 4096, bytes.len()] {
        let demuxer = Demuxer::new("eflvdemux");
        for piece in bytes.chunks(piece) {
            demuxer.push(piece).unwrap();
        }
        let tracks = demuxer.finish();
        let mut shifts = Vec::new();
        for (name, kind) in [("video_0", VIDEO), ("audio_0", AUDIO)] {
            let track = &tracks[name];
            let expected = second.iter().filter(|t| t.kind == kind && t.is_coded());
            let expected: Vec<_> = expected.collect();
            // The first file has the same start.
            let first = track.packets.len() - expected.len();
            assert!(first > 15, "{name}: {first}");
            for (packet, tag) in track.packets[first..].iter().zip(expected) {
                assert!(tag.body.ends_with(&packet.data), "{name}");
                shifts.push(packet.dts_millis() - i64::from(tag.timestamp));
            }
            let times: Vec<_> = track.packets.iter().map(Packet::dts_millis).collect();
            assert!(times.is_sorted(), "{name}: {times:?}");
        }
        shifts.dedup();
        assert_eq!(shifts.len(), 1, "{shifts:?}");
        assert!(demuxer.count("lost-bytes") > 0);
    }
}

/// Types of the NAL units in a frame of AVC.
fn nal_types(frame: &[u8]) -> Vec<u8> {
    let mut types = Vec::new();
    let mut rest = frame;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        types.push(after[0] & 0x1F);
        rest = &after[u32::from_be_bytes(*length) as usize..];
    }
    types
}

#[test]
fn buffers_are_flagged_by_their_bitstream() {
    const IDR: u8 = 5;
    let flagged_inter = flv::read_file(&case("01-keyframes-flagged-inter.flv"));
    let mut flagged_key = flagged_inter.clone();
    let frames = flagged_key.iter_mut().filter(|tag| tag.is_frame());
    frames.for_each(|tag| tag.body[0] = 0x17);
    for tags in [flagged_inter, flagged_key] {
        let tracks = support::demuxer::demux("eflvdemux", &file(&tags), 4096);
        let packets = &tracks["video_0"].packets;
        for packet in packets {
            let is_idr = nal_types(&packet.data).contains(&IDR);
            assert_eq!(packet.is_delta, !is_idr, "{:?}", packet.dts);
        }
        assert!(packets.iter().any(|packet| !packet.is_delta));
        assert!(packets.iter().any(|packet| packet.is_delta));
    }
}

/// The field that says what holds in a stream.
pub fn stream_header(tags: &[Tag]) -> gst::Event {
    let header = [file(&[])].into_iter();
    let buffers = header.chain(tags.iter().map(Tag::to_bytes));
    let buffers = buffers.map(gst::Buffer::from_slice);
    let caps = gst::Caps::builder("video/x-flv")
        .field("streamheader", gst::Array::new(buffers))
        .build();
    gst::event::Caps::new(&caps)
}

pub fn live() -> Demuxer {
    init();
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    Demuxer::with_segment("eflvdemux", segment.upcast_ref())
}

pub fn push(demuxer: &Demuxer, tag: &Tag) {
    let mut buffer = gst::Buffer::from_slice(tag.to_bytes());
    let time = gst::ClockTime::from_mseconds(tag.timestamp.into());
    buffer.get_mut().unwrap().set_dts(time);
    demuxer.push_buffer(buffer).unwrap();
}

#[test]
fn a_demuxer_that_is_linked_late_is_configured_by_the_stream_header() {
    let demuxer = live();
    demuxer.event(stream_header(&[video_header(0), audio_header(0)]));
    push(&demuxer, &delta_frame(5_000, 10));
    push(&demuxer, &audio(5_007, 10));
    let tracks = demuxer.finish();
    assert_eq!(tracks["video_0"].packets.len(), 1);
    assert_eq!(tracks["audio_0"].packets.len(), 1);
    assert!(tracks["video_0"].last_caps().has_field("codec_data"));
    assert_eq!(demuxer.count("without-configuration"), 0);
}

#[test]
fn audio_leaves_where_announced_video_never_comes() {
    let tags = flv::read_file(&case("02-video-header-then-audio-only.flv"));
    let sent = tags.iter().filter(|t| t.kind == AUDIO && t.is_coded());
    let sent: Vec<_> = sent.map(|t| i64::from(t.timestamp)).collect();
    let demuxer = Demuxer::new("eflvdemux");
    demuxer.push(&file(&tags)).unwrap();
    let tracks = demuxer.tracks();
    let packets = tracks["audio_0"].packets.iter();
    assert_eq!(packets.map(Packet::dts_millis).collect::<Vec<_>>(), sent);
    // The announced track keeps no sink waiting.
    let video = &tracks["video_0"];
    assert!(video.packets.is_empty());
    let mut gaps = video.events.iter().filter_map(|event| match event.view() {
        gst::EventView::Gap(gap) => Some(gap.get().0 + gap.get().1.unwrap()),
        _ => None,
    });
    let end = gaps.next_back().unwrap().mseconds() as i64;
    assert!(sent.last().unwrap() - end < 3_200);
    // Video that comes after all.
    let end = *sent.last().unwrap() as u32;
    let late = [keyframe(end, 100), delta_frame(end + 40, 100)];
    for tag in late {
        demuxer.push(&tag.to_bytes()).unwrap();
    }
    let tracks = demuxer.finish();
    let packets = tracks["video_0"].packets.iter();
    let times: Vec<_> = packets.map(Packet::dts_millis).collect();
    assert_eq!(times, [i64::from(end), i64::from(end) + 40]);
}

/// The sink of announced video that never comes does not keep the audio from its start, and audio
/// that starts late does not keep the video.
#[test]
fn default_queues_play_a_track_that_is_late_or_missing() {
    init();
    let tags = flv::read_file(&case("07-audio-video-in-step.flv"));
    let late = tags.iter().filter(|tag| {
        let is_early = tag.kind == AUDIO && tag.is_coded() && tag.timestamp < 2_500;
        !is_early
    });
    let late: Vec<Tag> = late.cloned().collect();
    let mut late_file = tempfile::Builder::new().suffix(".flv").tempfile().unwrap();
    std::io::Write::write_all(&mut late_file, &file(&late)).unwrap();
    let missing = case("02-video-header-then-audio-only.flv");
    for (path, pad, tags) in [
        (missing.as_path(), "audio_0", flv::read_file(&missing)),
        (late_file.path(), "video_0", late.clone()),
        (late_file.path(), "audio_0", late),
    ] {
        let (other, kind) = match pad {
            "audio_0" => ("video_0", AUDIO),
            _ => ("audio_0", VIDEO),
        };
        let text = format!(
            "filesrc location={} ! eflvdemux name=d d.{pad} ! queue ! fakesink name=sink sync=false \
             d.{other} ! queue ! fakesink sync=false",
            path.display()
        );
        let sent = tags.iter().filter(|t| t.kind == kind && t.is_coded());
        let count = rendered(&gst::parse::launch(&text).unwrap());
        assert_eq!(count, sent.count() as u64, "{pad} of {}", path.display());
    }
}

#[test]
fn tracks_with_other_origins_keep_their_own_times() {
    const DAY: u32 = 24 * 3600 * 1000;
    let tags = flv::read_file(&case("08-video-5h-ahead-of-audio.flv"));
    let origin = |kind| {
        let mut coded = tags.iter().filter(|t| t.kind == kind && t.is_coded());
        coded.next().unwrap().timestamp
    };
    let origins = [(AUDIO, origin(AUDIO)), (VIDEO, origin(VIDEO))];
    for ahead in [AUDIO, VIDEO] {
        for distance in [1_000, 5 * 3_600_000, 3 * DAY, 24 * DAY, 25 * DAY, 40 * DAY] {
            let mut moved = tags.clone();
            for tag in moved.iter_mut().filter(|tag| tag.is_coded()) {
                let (_, origin) = origins.iter().find(|(kind, _)| *kind == tag.kind).unwrap();
                tag.timestamp -= origin;
                tag.timestamp += if tag.kind == ahead { distance } else { 0 };
            }
            let tracks = support::demuxer::demux("eflvdemux", &file(&moved), 4096);
            for (name, kind) in [("video_0", VIDEO), ("audio_0", AUDIO)] {
                let sent = moved.iter().filter(|t| t.kind == kind && t.is_coded());
                let sent: Vec<_> = sent.map(|t| i64::from(t.timestamp)).collect();
                let packets = tracks[name].packets.iter();
                let times: Vec<_> = packets.map(Packet::dts_millis).collect();
                let steps = |times: &[i64]| {
                    let pairs = times.windows(2);
                    pairs.map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()
                };
                assert_eq!(steps(&times), steps(&sent), "{name}, {ahead}, {distance}");
            }
        }
    }
}

/// Pushes all of a file at once, with one track so many milliseconds after its time, into a live
/// pipeline. Returns the GAPs and packets of the demuxer's pads, in order.
fn events_of_skewed(late: u8, skew: u32, latency: u64) -> Vec<(String, Option<u64>, u64)> {
    init();
    let text = format!(
        "appsrc name=source is-live=true format=time caps=video/x-flv min-latency={} ! \
         eflvdemux name=d d.video_0 ! queue max-size-time=0 ! fakesink sync=false async=false \
         d.audio_0 ! queue max-size-time=0 ! fakesink sync=false async=false",
        latency * 1_000_000
    );
    let pipeline = gst::parse::launch(&text).unwrap();
    let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    bin.by_name("d").unwrap().connect_pad_added(move |_, pad| {
        let kept = kept.clone();
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(kinds, move |pad, info| {
            let entry = match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => buffer.pts().map(|time| (None, time)),
                Some(gst::PadProbeData::Event(event)) => match event.view() {
                    gst::EventView::Gap(gap) => {
                        let (start, duration) = gap.get();
                        Some((Some(start.mseconds()), start + duration.unwrap()))
                    }
                    _ => None,
                },
                _ => None,
            };
            if let Some((start, time)) = entry {
                let name = pad.name().to_string();
                kept.lock().unwrap().push((name, start, time.mseconds()));
            }
            gst::PadProbeReturn::Ok
        });
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut tags = flv::read_file(&case("07-audio-video-in-step.flv"));
    let arrival = |tag: &Tag| {
        let skew = if tag.kind == late { skew } else { 0 };
        (
            tag.is_coded(),
            tag.timestamp + if tag.is_coded() { skew } else { 0 },
        )
    };
    tags.sort_by_key(arrival);
    let source = bin.by_name("source").unwrap();
    let flow = |buffer: gst::Buffer| {
        let flow: gst::FlowReturn = source.emit_by_name("push-buffer", &[&buffer]);
        assert_eq!(flow, gst::FlowReturn::Ok);
    };
    flow(gst::Buffer::from_slice(file(&[])));
    for tag in tags {
        let mut buffer = gst::Buffer::from_slice(tag.to_bytes());
        let time = gst::ClockTime::from_mseconds(tag.timestamp.into());
        buffer.get_mut().unwrap().set_dts(time);
        flow(buffer);
    }
    let _: gst::FlowReturn = source.emit_by_name("end-of-stream", &[]);
    let patience = gst::ClockTime::try_from(support::PATIENCE).unwrap();
    let bus = pipeline.bus().unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(patience, &kinds).expect("it ends");
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    let seen = seen.lock().unwrap();
    seen.clone()
}

/// Packets after a GAP that covers them.
fn covered(events: &[(String, Option<u64>, u64)]) -> usize {
    let is_covered = |(at, (name, gap, time)): (usize, &(String, Option<u64>, u64))| {
        let mut earlier = events[..at].iter();
        let covers = |(other, start, end): &(String, Option<u64>, u64)| {
            other == name && start.is_some() && end > time
        };
        gap.is_none() && earlier.any(covers)
    };
    events.iter().enumerate().filter(|e| is_covered(*e)).count()
}

#[test]
fn a_track_that_is_late_within_the_latency_of_the_pipeline_loses_nothing() {
    for late in [AUDIO, VIDEO] {
        for skew in [300, 600, 1_000, 1_400] {
            let events = events_of_skewed(late, skew, 1_500);
            let packets = events.iter().filter(|(_, gap, _)| gap.is_none());
            assert!(packets.count() > 50);
            assert_eq!(covered(&events), 0, "{late} {skew}");
        }
    }
}

#[test]
fn a_track_that_is_late_loses_nothing_once_it_has_proved_it() {
    for late in [AUDIO, VIDEO] {
        for skew in [600, 1_000] {
            let events = events_of_skewed(late, skew, 200);
            // The first GAP covers up to 0.4 s before the other track.
            let limit = (skew as usize - 400) / 20 + 2;
            let lost = covered(&events);
            assert!(lost <= limit, "{late} {skew}: {lost}");
        }
    }
}

#[test]
fn a_stream_collection_goes_only_to_a_bin_that_is_aware_of_streams() {
    let bytes = file(&[video_header(0), audio_header(0), keyframe(0, 10)]);
    for is_aware in [false, true] {
        let demuxer = Demuxer::new("eflvdemux");
        demuxer.set_streams_aware(is_aware);
        demuxer.push(&bytes).unwrap();
        let tracks = demuxer.finish();
        let posted = demuxer.messages(gst::MessageType::StreamCollection);
        assert_eq!(posted.len(), usize::from(is_aware));
        for track in tracks.values() {
            let mut events = track.events.iter();
            let is_collection = |e: &gst::Event| e.type_() == gst::EventType::StreamCollection;
            assert_eq!(events.any(is_collection), is_aware);
            let gst::EventView::StreamStart(start) = track.events[0].view() else {
                panic!("{:?}", track.events[0]);
            };
            assert_eq!(start.stream().is_some(), is_aware);
        }
    }
}

#[test]
fn one_track_alone_into_decodebin3_plays() {
    let path = small(2);
    for pad in ["audio_0", "video_0"] {
        let text = format!(
            "filesrc location={} ! eflvdemux name=d d.{pad} ! queue ! decodebin3 ! \
             fakesink name=sink",
            path.display()
        );
        init();
        assert!(rendered(&gst::parse::launch(&text).unwrap()) >= 60, "{pad}");
    }
}
