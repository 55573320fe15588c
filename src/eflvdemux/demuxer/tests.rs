// SPDX-License-Identifier: MPL-2.0

use super::*;

const AVC_RECORD: &[u8] = &[
    1, 0x42, 0xC0, 0x1E, 0xFF, 0xE1, 0, 4, 0x67, 1, 2, 3, 1, 0, 2, 0x68, 4,
];

/// A demuxer, and the events of its last tag.
struct Fixture {
    demuxer: Demuxer,
    events: Vec<DemuxEvent>,
}

impl Fixture {
    fn new(is_timed: bool) -> Self {
        gst::init().unwrap();
        let mut demuxer = Demuxer::default();
        demuxer.start_segment(is_timed);
        Fixture {
            demuxer,
            events: Vec::new(),
        }
    }

    /// Handles a tag at so many milliseconds, of upstream too if that has times.
    fn tag(&mut self, kind: TagKind, millis: u32, body: &[u8]) -> &[DemuxEvent] {
        self.events.clear();
        let dts = ClockTime::from_mseconds(millis.into());
        let tag = FlvTag {
            kind,
            timestamp: millis,
            body,
            dts: self.demuxer.is_timed.then_some(dts),
        };
        self.demuxer.handle_tag(&tag, &mut self.events);
        &self.events
    }

    fn video_header(&mut self) -> &[DemuxEvent] {
        let body = [&[0x17, 0, 0, 0, 0], AVC_RECORD].concat();
        self.tag(TagKind::Video, 0, &body)
    }

    fn audio_header(&mut self) -> &[DemuxEvent] {
        self.tag(TagKind::Audio, 0, &[0xAF, 0, 0x11, 0x90])
    }

    fn keyframe(&mut self, millis: u32) -> &[DemuxEvent] {
        self.tag(TagKind::Video, millis, b"\x17\x01\0\0\0frame")
    }

    fn audio(&mut self, millis: u32) -> &[DemuxEvent] {
        self.tag(TagKind::Audio, millis, b"\xAF\x01sound")
    }
}

/// The events as short text: names of tracks that get a pad, times in milliseconds.
fn summary(events: &[DemuxEvent]) -> Vec<String> {
    let text = |event: &DemuxEvent| match event {
        DemuxEvent::Segment(start) => format!("segment {}", start.mseconds()),
        DemuxEvent::NewTracks(tracks) => {
            let names = tracks.iter().map(|t| format!("{:?} {}", t.kind, t.id));
            format!("new {}", names.collect::<Vec<_>>().join(", "))
        }
        DemuxEvent::Caps(index, caps) => {
            format!("caps {index} {}", caps.structure(0).unwrap().name())
        }
        DemuxEvent::Tags(index, _) => format!("tags {index}"),
        DemuxEvent::Packet(packet) => {
            let (index, dts) = (packet.index, packet.dts.mseconds());
            match &packet.payload {
                Payload::Part(part) => format!("packet {index} {dts} {part:?}"),
                Payload::Repaired(frame) => format!("packet {index} {dts} {frame:02x?}"),
            }
        }
        DemuxEvent::Gap(index, gap) => {
            let (start, end) = (gap.start.mseconds(), gap.end.mseconds());
            format!("gap {index} {start}..{end}")
        }
        DemuxEvent::Script(data) => {
            let time = data.time.mseconds();
            format!("script {} {time} {}", data.name, data.json)
        }
        DemuxEvent::Duration(duration) => format!("duration {duration:?}"),
        DemuxEvent::NoMoreTracks => "no more tracks".to_owned(),
        DemuxEvent::Problem(problem, _) => format!("{problem:?}"),
    };
    events.iter().map(text).collect()
}

#[test]
fn the_first_packet_announces_all_configured_tracks_video_first() {
    let mut fixture = Fixture::new(false);
    assert_eq!(summary(fixture.audio_header()), [""; 0]);
    assert_eq!(summary(fixture.video_header()), [""; 0]);
    let expected = [
        "segment 40",
        "new Video 0, Audio 0",
        "packet 0 40 2..7",
        "no more tracks",
    ];
    assert_eq!(summary(fixture.audio(40)), expected);
    assert_eq!(summary(fixture.keyframe(40)), ["packet 1 40 5..10"]);
}

#[test]
fn a_packet_without_a_needed_configuration_is_a_problem() {
    let mut fixture = Fixture::new(false);
    assert_eq!(summary(fixture.keyframe(0)), ["NoConfiguration"]);
    assert_eq!(summary(fixture.audio(0)), ["NoConfiguration"]);
    assert_eq!(summary(fixture.tag(TagKind::Audio, 0, b"")), ["Empty"]);
    assert_eq!(
        summary(fixture.tag(TagKind::Audio, 0, b"\xAF\0")),
        ["Empty"]
    );
    let script = fixture.tag(TagKind::Script, 0, b"\x02\0");
    assert_eq!(summary(script), ["BadScript"]);
}

#[test]
fn another_codec_of_a_track_changes_its_caps() {
    let mut fixture = Fixture::new(false);
    fixture.video_header();
    fixture.keyframe(0);
    let events = fixture.tag(TagKind::Video, 40, b"\x91vp09frame");
    let expected = ["caps 0 video/x-vp9", "packet 0 40 5..10"];
    assert_eq!(summary(events), expected);
}

#[test]
fn times_of_upstream_count_where_it_has_them() {
    let mut fixture = Fixture::new(true);
    fixture.video_header();
    let body = b"\x17\x01\0\0\x05frame";
    let tag = |timestamp, dts| FlvTag {
        kind: TagKind::Video,
        timestamp,
        body,
        dts,
    };
    let start = ClockTime::from_seconds(100);
    let mut events = Vec::new();
    fixture
        .demuxer
        .handle_tag(&tag(7, Some(start)), &mut events);
    // The second tag of the same buffer.
    fixture.demuxer.handle_tag(&tag(27, None), &mut events);
    let times = events.iter().filter_map(|event| match event {
        DemuxEvent::Packet(packet) => Some((packet.dts.mseconds(), packet.pts.mseconds())),
        _ => None,
    });
    let times: Vec<_> = times.collect();
    assert_eq!(times, [(100_000, 100_005), (100_020, 100_025)]);
}

#[test]
fn metadata_that_repeats_is_sent_once() {
    let mut fixture = Fixture::new(false);
    fixture.video_header();
    fixture.keyframe(0);
    let body = b"\x02\0\x0aonMetaData\x03\0\x07encoder\x02\0\x04test\0\0\x09";
    let events = fixture.tag(TagKind::Script, 0, body);
    assert_eq!(summary(events), ["duration None", "tags 0"]);
    assert_eq!(summary(fixture.tag(TagKind::Script, 0, body)), [""; 0]);
}

#[test]
fn colours_before_the_configuration_of_another_codec_hold() {
    let mut fixture = Fixture::new(true);
    fixture.video_header();
    fixture.keyframe(0);
    let colours = b"\xD4hvc1\x02\0\x09colorInfo\x03\0\x06hdrCll\x03\0\x06maxCLL\0\x40\x8F\x40\0\0\0\0\0\0\0\x09\0\0\x09";
    let mut record = [1; 23];
    record[22] = 0;
    let header = [b"\x90hvc1", &record[..]].concat();
    let tag = |body| FlvTag {
        kind: TagKind::Video,
        timestamp: 0,
        body,
        dts: None,
    };
    let tags = [tag(&colours[..]), tag(&header)];
    let mut events = Vec::new();
    fixture.demuxer.handle_stream_header(&tags, &mut events);
    assert_eq!(summary(&events), [""; 0]);
    let events = fixture.tag(TagKind::Video, 40, b"\x93hvc1frame");
    let Some(DemuxEvent::Caps(0, caps)) = events.first() else {
        panic!("{:?}", summary(events));
    };
    let caps = caps.structure(0).unwrap();
    assert_eq!(caps.name(), "video/x-h265");
    assert_eq!(caps.get("content-light-level"), Ok("1000:0"));
}
