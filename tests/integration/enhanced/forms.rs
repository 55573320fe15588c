// SPDX-License-Identifier: MPL-2.0

//! Forms of Enhanced FLV that no available encoder sends, and changes of live streams over time.

use gst::prelude::*;
use gstrtmp2server::internal::flv::body::Tracks as TrackList;
use gstrtmp2server::internal::flv::body::{
    AudioBody, AudioPacket, AudioTrack, ColorConfig, ColorInfo, ContentLight, ExAudio, ExVideo,
    ExVideoContent, ModEx, VideoBody, VideoPacket, VideoTrack,
};
use gstrtmp2server::internal::flv::codes::*;

use super::broken::file;
use support::clients::{NEW_FFMPEG, ffmpeg};
use support::demuxer::{Demuxer, Track, Tracks};
use support::flv::{self, AUDIO, Tag, VIDEO};
use support::media::small;
use support::recorder::{Recorder, epoch_of};
use support::synthetic::{
    audio, audio_header, delta_frame, end_of_sequence, keyframe, metadata, stream, video_header,
};

fn ex_video(
    time: u32,
    frame_type: FrameType,
    mod_ex: Vec<ModEx<'_>>,
    tracks: TrackList<VideoTrack<'_>>,
) -> Tag {
    let mut body = Vec::new();
    VideoBody::Ex(ExVideo {
        frame_type,
        mod_ex,
        content: ExVideoContent::Tracks(tracks),
    })
    .write(&mut body);
    Tag::new(VIDEO, time, body)
}

fn opus(time: u32, tracks: TrackList<AudioTrack<'_>>, mod_ex: Vec<ModEx<'_>>) -> Tag {
    let mut body = Vec::new();
    AudioBody::Ex(ExAudio { mod_ex, tracks }).write(&mut body);
    Tag::new(AUDIO, time, body)
}

fn coded_opus(payload: &[u8]) -> AudioTrack<'_> {
    AudioTrack {
        four_cc: AudioFourCc::Opus,
        packet: AudioPacket::CodedFrames(payload),
    }
}

#[track_caller]
fn demux(tags: &[Tag]) -> Tracks {
    support::demuxer::demux("eflvdemux", &file(tags), 4096)
}

fn payloads(track: &Track) -> Vec<&[u8]> {
    track
        .packets
        .iter()
        .map(|packet| &packet.data[..])
        .collect()
}

#[test]
fn nanoseconds_are_in_presentation_times() {
    let nano = |data| vec![ModEx { kind: 0, data }];
    let other = ModEx {
        kind: 5,
        data: &[1; 300],
    };
    let frames = |payload, time| VideoTrack {
        four_cc: VideoFourCc::Av1,
        packet: if time {
            VideoPacket::CodedFrames {
                composition_time: None,
                payload,
            }
        } else {
            VideoPacket::CodedFramesX(payload)
        },
    };
    let tags = [
        ex_video(
            40,
            FrameType::Key,
            nano(&[0, 0, 7]),
            TrackList::Unwrapped(frames(b"a", true)),
        ),
        ex_video(
            80,
            FrameType::Inter,
            vec![other, nano(&[0x0F, 0x42, 0x3F])[0]],
            TrackList::OneTrack(0, frames(b"b", false)),
        ),
        opus(
            80,
            TrackList::Unwrapped(coded_opus(b"c")),
            nano(&[0xFF, 0xFF, 0xFF]),
        ),
    ];
    let tracks = demux(&tags);
    let times: Vec<_> = tracks["video_0"]
        .packets
        .iter()
        .map(|p| (p.dts, p.pts))
        .collect();
    let milli = 1_000_000;
    assert_eq!(
        times,
        [
            (Some(40 * milli), Some(40 * milli + 7)),
            (Some(80 * milli), Some(80 * milli + 999_999)),
        ]
    );
    assert_eq!(tracks["audio_0"].packets[0].pts, Some(80 * milli + 999_999));
}

#[test]
fn composition_times_have_a_sign() {
    let frame = |time, offset: i32| {
        let mut tag = delta_frame(time, 50);
        tag.body[2..5].copy_from_slice(&offset.to_be_bytes()[1..]);
        tag
    };
    let tags = [
        video_header(0),
        keyframe(0, 50),
        frame(40, 80),
        frame(80, -40),
        frame(120, -200),
    ];
    let tracks = demux(&tags);
    let times: Vec<_> = tracks["video_0"]
        .packets
        .iter()
        .map(|p| (p.dts_millis(), p.pts_millis()))
        .collect();
    assert_eq!(times, [(0, 0), (40, 120), (80, 40), (120, 0)]);
}

#[test]
fn every_kind_of_multitrack_is_parsed() {
    let hevc = |payload| VideoTrack {
        four_cc: VideoFourCc::Vp9,
        packet: VideoPacket::CodedFrames {
            composition_time: None,
            payload,
        },
    };
    let av1 = |payload| VideoTrack {
        four_cc: VideoFourCc::Av1,
        ..hevc(payload)
    };
    let key = FrameType::Key;
    let tags = [
        ex_video(0, key, vec![], TrackList::OneTrack(3, hevc(b"one"))),
        ex_video(
            40,
            key,
            vec![],
            TrackList::ManyTracks(vec![(3, hevc(b"two")), (255, hevc(b"far"))]),
        ),
        ex_video(
            80,
            key,
            vec![],
            TrackList::ManyTracksManyCodecs(vec![
                (1, av1(b"other")),
                (3, hevc(b"")),
                (255, hevc(b"again")),
            ]),
        ),
    ];
    let tracks = demux(&tags);
    let names: Vec<_> = tracks.keys().collect();
    assert_eq!(names, ["video_1", "video_255", "video_3"]);
    assert_eq!(payloads(&tracks["video_3"]), [b"one", b"two"]);
    assert_eq!(payloads(&tracks["video_255"]), [&b"far"[..], b"again"]);
    assert_eq!(payloads(&tracks["video_1"]), [b"other"]);
    assert_eq!(tracks["video_1"].last_caps().name(), "video/x-av1");
}

#[test]
fn empty_starts_and_frames_change_nothing() {
    let tags = [
        Tag::new(VIDEO, 0, *b"\x90hvc1"),
        Tag::new(AUDIO, 0, [0xAF, 0]),
        Tag::new(VIDEO, 0, [0x17, 0, 0, 0, 0]),
        audio(0, 10),
        video_header(0),
        audio_header(0),
        keyframe(0, 10),
        Tag::new(VIDEO, 10, [0x27, 1, 0, 0, 0]),
        Tag::new(VIDEO, 10, *b"\xA1avc1"),
        end_of_sequence(20),
        audio(20, 10),
        delta_frame(40, 10),
    ];
    let tracks = demux(&tags);
    assert_eq!(tracks["video_0"].packets.len(), 2);
    assert_eq!(tracks["audio_0"].packets.len(), 1);
}

#[test]
fn caps_change_with_the_configuration_alone() {
    let mut other = video_header(80);
    other.body[8] ^= 1;
    let tags = [
        metadata(0),
        video_header(0),
        keyframe(0, 10),
        metadata(10),
        video_header(40),
        delta_frame(40, 10),
        other,
        keyframe(80, 10),
        metadata(90),
        delta_frame(120, 10),
    ];
    let track = &demux(&tags)["video_0"];
    assert_eq!(track.caps.len(), 2);
    assert_ne!(track.caps[0], track.caps[1]);
    assert_eq!(track.packets.len(), 4);
}

#[test]
fn colours_appear_and_disappear_in_caps() {
    let color = |info: &ColorInfo| {
        let mut body = Vec::new();
        info.write(&mut body);
        body
    };
    let info = ColorInfo {
        config: Some(ColorConfig {
            bit_depth: Some(10.0),
            primaries: Some(9.0),
            transfer: Some(18.0),
            matrix: Some(9.0),
        }),
        light: Some(ContentLight {
            max_average: Some(400.0),
            max: Some(1000.0),
        }),
        mastering: None,
    };
    let (set, reset) = (color(&info), color(&ColorInfo::default()));
    let metadata = |time, body, four_cc| {
        let packet = VideoPacket::Metadata(body);
        let track = VideoTrack { four_cc, packet };
        ex_video(
            time,
            FrameType::Command,
            vec![],
            TrackList::Unwrapped(track),
        )
    };
    let frame = |time| {
        let packet = VideoPacket::CodedFramesX(b"frame");
        let track = VideoTrack {
            four_cc: VideoFourCc::Vp9,
            packet,
        };
        ex_video(time, FrameType::Key, vec![], TrackList::Unwrapped(track))
    };
    let tags = [
        metadata(0, &set, VideoFourCc::Vp9),
        frame(0),
        // For another codec, and therefore for another track.
        metadata(10, &reset, VideoFourCc::Hevc),
        frame(40),
        metadata(50, &set, VideoFourCc::Vp9),
        frame(80),
        metadata(90, &reset, VideoFourCc::Vp9),
        frame(120),
    ];
    let track = &demux(&tags)["video_0"];
    assert_eq!(track.caps.len(), 2);
    let first = track.caps[0].structure(0).unwrap();
    // BT.2100 with HLG, without a colour range.
    assert_eq!(first.get::<&str>("colorimetry"), Ok("0:6:15:7"));
    assert_eq!(first.get::<&str>("content-light-level"), Ok("1000:400"));
    assert!(!track.last_caps().has_field("colorimetry"));
}

#[test]
fn hevc_under_legacy_codec_ids_is_recognized() {
    let file = support::media::made_by(
        &*NEW_FFMPEG,
        "enhanced-plain-hevc.flv",
        "-f lavfi -i testsrc2=size=320x240:rate=30 -t 1 -pix_fmt yuv420p -c:v libx265 \
         -preset ultrafast -x265-params log-level=none -f flv",
    );
    let tags = flv::media(&flv::read_file(&file));
    let expected = &demux(&tags)["video_0"].packets.clone();
    for codec_id in [7, 12] {
        let legacy = tags.iter().filter_map(|tag| {
            let VideoBody::Ex(ex) = VideoBody::parse(&tag.body).unwrap() else {
                return None;
            };
            let ExVideoContent::Tracks(TrackList::Unwrapped(track)) = ex.content else {
                return None;
            };
            let (kind, time, payload) = match track.packet {
                VideoPacket::SequenceStart(record) => (AvcPacketType::SequenceHeader, 0, record),
                VideoPacket::CodedFrames {
                    composition_time,
                    payload,
                } => (
                    AvcPacketType::CodedFrames,
                    composition_time.unwrap(),
                    payload,
                ),
                VideoPacket::CodedFramesX(payload) => (AvcPacketType::CodedFrames, 0, payload),
                _ => return None,
            };
            let mut body = Vec::new();
            VideoBody::Avc {
                frame_type: ex.frame_type,
                codec: VideoCodecId::from_code(codec_id),
                packet_type: kind,
                composition_time: time,
                payload,
            }
            .write(&mut body);
            Some(Tag::new(VIDEO, tag.timestamp, body))
        });
        let tracks = demux(&legacy.collect::<Vec<_>>());
        assert!(&tracks["video_0"].packets == expected);
        assert_eq!(tracks["video_0"].last_caps().name(), "video/x-h265");
    }
}

#[test]
fn adts_becomes_raw_aac() {
    let frame = [0xFF, 0xF1, 0x4C, 0x80, 0x01, 0x5F, 0xFC, 0x21, 0x22, 0x23];
    let tag = |time| Tag::new(AUDIO, time, [&[0xAF, 1], &frame[..]].concat());
    let tracks = demux(&[tag(0), tag(20)]);
    assert_eq!(payloads(&tracks["audio_0"]), [b"\x21\x22\x23"; 2]);
    let caps = tracks["audio_0"].last_caps();
    assert_eq!((caps.get("rate"), caps.get("channels")), (Ok(48000), Ok(2)));
    let data: gst::Buffer = caps.get("codec_data").unwrap();
    assert_eq!(data.map_readable().unwrap().as_slice(), [0x11, 0x90]);
}

/// The first collection has all tracks that are known when media starts. A later track makes
/// another collection.
#[test]
fn late_tracks_make_another_collection() {
    let demuxer = Demuxer::new("eflvdemux");
    demuxer.set_streams_aware(true);
    demuxer
        .push(&file(&[video_header(0), audio_header(0)]))
        .unwrap();
    assert_eq!(demuxer.element.num_src_pads(), 0);
    demuxer.push(&audio(0, 10).to_bytes()).unwrap();
    assert_eq!(demuxer.element.num_src_pads(), 2);
    for n in 1..20 {
        demuxer.push(&audio(n * 1000, 10).to_bytes()).unwrap();
    }
    let late = opus(20_000, TrackList::OneTrack(7, coded_opus(b"late")), vec![]);
    demuxer.push(&late.to_bytes()).unwrap();
    let tracks = demuxer.finish();
    assert_eq!(payloads(&tracks["audio_7"]), [b"late"]);
    let messages = demuxer.messages(gst::MessageType::StreamCollection);
    let sizes: Vec<_> = messages
        .iter()
        .map(|message| match message.view() {
            gst::MessageView::StreamCollection(message) => message.stream_collection().len(),
            _ => 0,
        })
        .collect();
    assert_eq!(sizes, [2, 3]);
    // Video that never came is not awaited.
    let gaps = |name: &str| {
        let events = tracks[name].events.iter();
        events
            .filter(|event| event.type_() == gst::EventType::Gap)
            .count()
    };
    assert!(gaps("video_0") > 10);
    assert_eq!(gaps("audio_0"), 0);
    for (name, track) in &tracks {
        let order: Vec<_> = track
            .events
            .iter()
            .map(|event| event.type_())
            .take(4)
            .collect();
        assert_eq!(order[0], gst::EventType::StreamStart, "{name}");
        let start = track.events[0].view();
        let gst::EventView::StreamStart(start) = start else {
            panic!("{name}");
        };
        assert!(start.stream().is_some() && start.group_id().is_some());
        for kind in [
            gst::EventType::StreamCollection,
            gst::EventType::Caps,
            gst::EventType::Segment,
        ] {
            assert!(order.contains(&kind), "{name}: {order:?}");
        }
    }
}

/// Times of upstream buffers are used, and the upstream segment passes.
#[test]
fn upstream_times_are_kept() {
    let second = 1_000_000_000;
    let mut segment = gst::FormattedSegment::<gst::ClockTime>::new();
    segment.set_base(gst::ClockTime::from_seconds(5));
    segment.set_start(gst::ClockTime::from_seconds(100));
    let demuxer = Demuxer::with_segment("eflvdemux", segment.upcast_ref());
    let push = |tag: Tag, dts: u64| {
        let mut buffer = gst::Buffer::from_slice(tag.to_bytes());
        let clock_time = gst::ClockTime::from_nseconds(dts);
        buffer.get_mut().unwrap().set_dts(clock_time);
        buffer.get_mut().unwrap().set_pts(clock_time);
        demuxer.push_buffer(buffer).unwrap();
    };
    demuxer.push(b"FLV\x01\x05\0\0\0\x09\0\0\0\0").unwrap();
    push(video_header(7777), 100 * second);
    let mut frame = keyframe(7777, 100);
    frame.body[2..5].copy_from_slice(&[0, 0, 80]);
    push(frame, 100 * second + 3);
    // The publisher's clock restarts, the upstream times continue.
    push(delta_frame(0, 100), 101 * second);
    let tracks = demuxer.finish();
    let track = &tracks["video_0"];
    let times: Vec<_> = track
        .packets
        .iter()
        .map(|p| (p.dts.unwrap(), p.pts.unwrap()))
        .collect();
    assert_eq!(
        times,
        [
            (100 * second + 3, 100 * second + 80_000_003),
            (101 * second, 101 * second)
        ]
    );
    let segments = track.events.iter().filter_map(|event| match event.view() {
        gst::EventView::Segment(event) => Some(event.segment().to_owned()),
        _ => None,
    });
    assert_eq!(segments.collect::<Vec<_>>(), [segment.upcast()]);
}

/// Output buffers share the memory of the input.
#[test]
fn payloads_are_not_copied() {
    let bytes = file(&stream(0, 3));
    support::init();
    assert_not_copied(gst::Buffer::from_slice(bytes.clone()));
    // Writable memory, as the source makes it.
    assert_not_copied(gst::Buffer::from_mut_slice(bytes));
}

#[track_caller]
fn assert_not_copied(mut buffer: gst::Buffer) {
    let demuxer = Demuxer::new("eflvdemux");
    let reference = gst::Caps::builder("timestamp/x-rtmp")
        .field("epoch", 7u64)
        .build();
    let time = gst::ClockTime::from_seconds(5);
    gst::ReferenceTimestampMeta::add(
        buffer.get_mut().unwrap(),
        &reference,
        time,
        gst::ClockTime::NONE,
    );
    let range = {
        let map = buffer.map_readable().unwrap();
        map.as_ptr_range()
    };
    demuxer.push_buffer(buffer.clone()).unwrap();
    let tracks = demuxer.finish();
    let mut count = 0;
    for track in tracks.values() {
        for buffer in &track.buffers {
            let map = buffer.map_readable().unwrap();
            assert!(range.contains(&map.as_ptr()));
            // Parts of a buffer have its metadata.
            let meta = buffer.meta::<gst::ReferenceTimestampMeta>().unwrap();
            assert_eq!(meta.timestamp(), time);
            assert_eq!(epoch_of(buffer), 7);
            count += 1;
        }
    }
    assert_eq!(count, 6);
}

#[test]
fn the_stream_continues_after_a_flush_and_a_restart() {
    let demuxer = Demuxer::new("eflvdemux");
    let tags = stream(0, 20);
    let bytes = file(&tags);
    demuxer.push(&bytes[..bytes.len() / 2]).unwrap();
    assert!(demuxer.event(gst::event::FlushStart::new()));
    assert!(demuxer.event(gst::event::FlushStop::new(true)));
    let bytes_segment = gst::FormattedSegment::<gst::format::Bytes>::new();
    demuxer.event(gst::event::Segment::new(&bytes_segment));
    let again: Vec<u8> = tags[23..].iter().flat_map(Tag::to_bytes).collect();
    demuxer.push(&again).unwrap();
    let tracks = demuxer.finish();
    let track = &tracks["video_0"];
    let segments = track
        .events
        .iter()
        .filter(|event| event.type_() == gst::EventType::Segment);
    assert_eq!(segments.count(), 2);
    let last = track.packets.last().unwrap();
    assert_eq!(last.dts_millis(), 19 * 40);
    assert!(track.is_ended());
    // The same element starts again.
    let element = demuxer.element.clone();
    element.set_state(gst::State::Ready).unwrap();
    assert_eq!(element.num_src_pads(), 0);
    element.set_state(gst::State::Paused).unwrap();
    assert_eq!(demuxer.count("tags"), 0);
}

#[test]
fn duration_and_position_are_known() {
    let bytes = std::fs::read(small(2)).unwrap();
    let demuxer = Demuxer::new("eflvdemux");
    demuxer.push(&bytes).unwrap();
    let pad = demuxer.element.static_pad("video_0").unwrap();
    let duration = pad.query_duration::<gst::ClockTime>().unwrap();
    assert!((1900..2200).contains(&duration.mseconds()), "{duration}");
    let position = pad.query_position::<gst::ClockTime>().unwrap();
    assert!(position.mseconds() > 1800, "{position}");
    let tags = demuxer.finish()["video_0"]
        .events
        .iter()
        .any(|event| match event.view() {
            gst::EventView::Tag(event) => event.tag().get::<gst::tags::Encoder>().is_some(),
            _ => false,
        });
    assert!(tags);
}

/// A publisher with two video and two audio tracks, through both elements.
#[test]
fn a_live_publisher_with_several_tracks() {
    let file = support::media::made_by(
        &*NEW_FFMPEG,
        "enhanced-live.mkv",
        "-f lavfi -i testsrc2=size=320x240:rate=30 -f lavfi -i testsrc2=size=160x120:rate=30 \
         -f lavfi -i sine -f lavfi -i sine -t 2 -map 0 -map 1 -map 2 -map 3 -pix_fmt yuv420p \
         -c:v libx264 -preset ultrafast -g 15 -c:a aac",
    );
    let sinks = ["video_0", "video_1", "audio_0", "audio_1"]
        .map(|pad| format!("d.{pad} ! queue ! fakesink name={pad} async=false sync=false"))
        .join(" ");
    let recorder = Recorder::start_into("", &format!("eflvdemux name=d {sinks}"));
    let arguments = format!(
        "-i {} -map 0 -c copy -f flv {}",
        file.display(),
        recorder.url("live/key")
    );
    ffmpeg(&*NEW_FFMPEG, &arguments).succeed();
    recorder.wait_for(gst::MessageType::Eos);
    for name in ["video_0", "video_1", "audio_0", "audio_1"] {
        let sink = recorder.pipeline.by_name(name).unwrap();
        let stats: gst::Structure = sink.property("stats");
        let rendered: u64 = stats.get("rendered").unwrap();
        assert!(rendered >= 60, "{name}: {rendered}");
    }
}
