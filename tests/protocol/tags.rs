// SPDX-License-Identifier: MPL-2.0

//! Tag bodies: a written body parses as itself, and no input does harm.

use gstrtmp2server::internal::amf0::Value;
use gstrtmp2server::internal::flv::body::*;
use gstrtmp2server::internal::flv::codes::*;
use gstrtmp2server::internal::flv::{Content, TagInfo, TagKind, config};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::never_panics::value;

/// Returns bytes that live for ever, as bodies are slices.
fn bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), length).prop_map(|bytes| &*bytes.leak())
}

fn mod_ex() -> impl Strategy<Value = Vec<ModEx<'static>>> {
    let data = prop_oneof![8 => bytes(1..6), 1 => bytes(253..260)];
    let prefix = (0_u8..16, data).prop_map(|(kind, data)| ModEx { kind, data });
    prop_oneof![2 => Just(Vec::new()), 1 => vec(prefix, 0..4)]
}

/// Returns tracks of one packet type: `track` makes one from that type and a FourCC.
fn tracks<C, T>(
    four_cc: impl Strategy<Value = C> + Clone + 'static,
    packet_types: Vec<u8>,
    track: impl Fn(u8, C) -> BoxedStrategy<T> + Clone + 'static,
) -> impl Strategy<Value = Tracks<T>>
where
    C: Clone + std::fmt::Debug + 'static,
    T: Clone + std::fmt::Debug + 'static,
{
    (select(packet_types), 0..4).prop_flat_map(move |(packet_type, kind)| {
        let (each, of_one) = (track.clone(), track.clone());
        let one = four_cc
            .clone()
            .prop_flat_map(move |code| each(packet_type, code));
        let same = four_cc
            .clone()
            .prop_flat_map(move |code| vec((any::<u8>(), of_one(packet_type, code)), 1..5));
        match kind {
            0 => one.prop_map(Tracks::Unwrapped).boxed(),
            1 => (any::<u8>(), one)
                .prop_map(|(id, track)| Tracks::OneTrack(id, track))
                .boxed(),
            2 => same.prop_map(Tracks::ManyTracks).boxed(),
            _ => vec((any::<u8>(), one), 1..5)
                .prop_map(Tracks::ManyTracksManyCodecs)
                .boxed(),
        }
    })
}

fn video_four_cc() -> impl Strategy<Value = VideoFourCc> + Clone {
    prop_oneof![
        4 => select(VideoFourCc::KNOWN),
        1 => any::<[u8; 4]>().prop_map(VideoFourCc::from_code),
    ]
}

fn video_track(packet_type: u8, four_cc: VideoFourCc) -> BoxedStrategy<VideoTrack<'static>> {
    let body = bytes(0..20);
    let packet = match packet_type {
        video_packet::SEQUENCE_START => body.prop_map(VideoPacket::SequenceStart).boxed(),
        video_packet::CODED_FRAMES if four_cc.has_composition_time() => {
            let coded = (-0x80_0000..0x80_0000, body).prop_map(|(time, payload)| {
                let composition_time = Some(time);
                VideoPacket::CodedFrames {
                    composition_time,
                    payload,
                }
            });
            let empty = VideoPacket::CodedFrames {
                composition_time: None,
                payload: &[],
            };
            prop_oneof![9 => coded, 1 => Just(empty)].boxed()
        }
        video_packet::CODED_FRAMES => body
            .prop_map(|payload| VideoPacket::CodedFrames {
                composition_time: None,
                payload,
            })
            .boxed(),
        video_packet::SEQUENCE_END => Just(VideoPacket::SequenceEnd).boxed(),
        video_packet::CODED_FRAMES_X => body.prop_map(VideoPacket::CodedFramesX).boxed(),
        video_packet::METADATA => body.prop_map(VideoPacket::Metadata).boxed(),
        video_packet::MPEG2_TS_SEQUENCE_START => {
            body.prop_map(VideoPacket::Mpeg2TsSequenceStart).boxed()
        }
        packet_type => body
            .prop_map(move |body| VideoPacket::Unknown { packet_type, body })
            .boxed(),
    };
    packet
        .prop_map(move |packet| VideoTrack { four_cc, packet })
        .boxed()
}

fn video() -> impl Strategy<Value = VideoBody<'static>> {
    let frame_type = || select(vec![0, 1, 2, 3, 4, 6, 7]).prop_map(FrameType::from_code);
    let codec = |codes: Vec<u8>| select(codes).prop_map(VideoCodecId::from_code);
    let command = || any::<u8>().prop_map(VideoCommand::from_code);
    let plain = codec(vec![0, 1, 2, 3, 6, 8, 9, 10, 11, 13, 14, 15]);
    let avc = (
        frame_type(),
        codec(vec![7, 12]),
        any::<u8>().prop_map(AvcPacketType::from_code),
        -0x80_0000..0x80_0000,
        bytes(0..20),
    );
    let types = vec![0, 1, 2, 3, 4, 5, 8, 15];
    let ex_tracks = tracks(video_four_cc(), types, video_track).prop_map(ExVideoContent::Tracks);
    let ex_command =
        (select(vec![0, 1, 2, 3, 5, 6, 8, 15]), command()).prop_map(|(packet_type, command)| {
            ExVideoContent::Command {
                packet_type,
                command,
            }
        });
    let metadata = video_four_cc()
        .prop_flat_map(|code| video_track(video_packet::METADATA, code))
        .prop_map(|track| ExVideoContent::Tracks(Tracks::Unwrapped(track)));
    let ex = prop_oneof![
        8 => (frame_type(), mod_ex(), ex_tracks),
        1 => (Just(FrameType::Command), mod_ex(), ex_command),
        1 => (Just(FrameType::Command), mod_ex(), metadata),
    ];
    prop_oneof![
        1 => (any::<u8>(), command()).prop_map(|(codec, command)| VideoBody::Command {
            codec: VideoCodecId::from_code(codec & 0x0F),
            command,
        }),
        2 => (frame_type(), plain, bytes(0..20)).prop_map(|(frame_type, codec, payload)| {
            VideoBody::Plain { frame_type, codec, payload }
        }),
        1 => (frame_type(), codec(vec![4, 5]), any::<u8>(), bytes(0..20)).prop_map(
            |(frame_type, codec, adjustment, payload)| VideoBody::Vp6 {
                frame_type,
                codec,
                adjustment,
                payload,
            }
        ),
        2 => avc.prop_map(|(frame_type, codec, packet_type, composition_time, payload)| {
            VideoBody::Avc { frame_type, codec, packet_type, composition_time, payload }
        }),
        6 => ex.prop_map(|(frame_type, mod_ex, content)| {
            VideoBody::Ex(ExVideo { frame_type, mod_ex, content })
        }),
    ]
}

fn is_empty(packet: &VideoPacket<'_>) -> bool {
    match packet {
        VideoPacket::CodedFrames {
            composition_time,
            payload,
        } => composition_time.is_none() && payload.is_empty(),
        VideoPacket::SequenceEnd => true,
        VideoPacket::SequenceStart(body)
        | VideoPacket::CodedFramesX(body)
        | VideoPacket::Metadata(body)
        | VideoPacket::Mpeg2TsSequenceStart(body)
        | VideoPacket::Unknown { body, .. } => body.is_empty(),
    }
}

fn audio_track(packet_type: u8, four_cc: AudioFourCc) -> BoxedStrategy<AudioTrack<'static>> {
    let body = bytes(0..20);
    let packet = match packet_type {
        audio_packet::SEQUENCE_START => body.prop_map(AudioPacket::SequenceStart).boxed(),
        audio_packet::CODED_FRAMES => body.prop_map(AudioPacket::CodedFrames).boxed(),
        audio_packet::SEQUENCE_END => Just(AudioPacket::SequenceEnd).boxed(),
        audio_packet::MULTICHANNEL_CONFIG => {
            let config = |(channels, order)| {
                AudioPacket::MultichannelConfig(MultichannelConfig { channels, order })
            };
            prop_oneof![
                any::<u8>().prop_map(|channels| (channels, ChannelOrder::Unspecified)),
                any::<(u8, u32)>()
                    .prop_map(|(channels, mask)| { (channels, ChannelOrder::Native(mask)) }),
                bytes(0..30).prop_map(|map| (map.len() as u8, ChannelOrder::Custom(map))),
                (any::<u8>(), 3..=u8::MAX)
                    .prop_map(|(channels, kind)| { (channels, ChannelOrder::Unknown(kind)) }),
            ]
            .prop_map(config)
            .boxed()
        }
        packet_type => body
            .prop_map(move |body| AudioPacket::Unknown { packet_type, body })
            .boxed(),
    };
    packet
        .prop_map(move |packet| AudioTrack { four_cc, packet })
        .boxed()
}

fn audio() -> impl Strategy<Value = AudioBody<'static>> {
    let four_cc = prop_oneof![
        4 => select(AudioFourCc::KNOWN),
        1 => any::<[u8; 4]>().prop_map(AudioFourCc::from_code),
    ];
    let sound = || {
        (0_u8..4, any::<bool>(), any::<bool>()).prop_map(|(rate_code, is_16_bit, is_stereo)| {
            Sound {
                rate_code,
                is_16_bit,
                is_stereo,
            }
        })
    };
    let format = select(vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15]);
    let types = vec![0, 1, 2, 3, 4, 6, 8, 15];
    prop_oneof![
        1 => (format, sound(), bytes(0..20)).prop_map(|(format, sound, payload)| {
            AudioBody::Legacy { format: SoundFormat::from_code(format), sound, payload }
        }),
        1 => (sound(), any::<u8>(), bytes(0..20)).prop_map(|(sound, kind, payload)| {
            AudioBody::Aac { sound, packet_type: AacPacketType::from_code(kind), payload }
        }),
        3 => (mod_ex(), tracks(four_cc, types, audio_track)).prop_map(|(mod_ex, tracks)| {
            AudioBody::Ex(ExAudio { mod_ex, tracks })
        }),
    ]
}

fn color() -> impl Strategy<Value = ColorInfo> {
    let number = || option::of(-1e6..1e6);
    let point = || (0.0..1.0, 0.0..1.0);
    let config =
        (number(), number(), number(), number()).prop_map(|(depth, p, t, m)| ColorConfig {
            bit_depth: depth,
            primaries: p,
            transfer: t,
            matrix: m,
        });
    let light =
        (number(), number()).prop_map(|(max_average, max)| ContentLight { max_average, max });
    let primaries = (point(), point(), point(), point()).prop_map(|(red, green, blue, white)| {
        DisplayPrimaries {
            red,
            green,
            blue,
            white,
        }
    });
    let mastering = (option::of(primaries), number(), number()).prop_map(
        |(primaries, max_luminance, min_luminance)| MasteringDisplay {
            primaries,
            max_luminance,
            min_luminance,
        },
    );
    (option::of(config), option::of(light), option::of(mastering)).prop_map(
        |(config, light, mastering)| ColorInfo {
            config,
            light,
            mastering,
        },
    )
}

proptest! {
    #![proptest_config(properties::cases(1000))]

    #[test]
    fn video_bodies_survive_a_round_trip(body in video()) {
        let mut bytes = Vec::new();
        body.write(&mut bytes);
        prop_assert_eq!(VideoBody::parse(&bytes), Ok(body));
    }

    #[test]
    fn audio_bodies_survive_a_round_trip(body in audio()) {
        let mut bytes = Vec::new();
        body.write(&mut bytes);
        prop_assert_eq!(AudioBody::parse(&bytes), Ok(body));
    }

    #[test]
    fn script_bodies_survive_a_round_trip(
        name in "[a-zA-Z|]{0,20}",
        values in vec(value(), 0..5),
    ) {
        let script = Script { name, values };
        let mut bytes = Vec::new();
        script.write(&mut bytes);
        prop_assert_eq!(Script::parse(&bytes), Ok(script));
    }

    #[test]
    fn colours_survive_a_round_trip(info in color()) {
        let mut bytes = Vec::new();
        info.write(&mut bytes);
        prop_assert_eq!(ColorInfo::parse(&bytes), Ok(Some(info)));
    }

    /// The header parser and the body parser agree about the first track.
    #[test]
    fn the_header_and_the_body_parser_agree(body in video()) {
        let mut bytes = Vec::new();
        body.write(&mut bytes);
        let Ok(info) = TagInfo::of(TagKind::Video, &bytes) else {
            return Ok(());
        };
        let milliseconds = match &body {
            VideoBody::Avc { composition_time, .. } if info.is_coded() => *composition_time,
            VideoBody::Ex(ExVideo { content: ExVideoContent::Tracks(tracks), .. }) => {
                // Empty tracks are skipped, unless all are empty.
                let described = tracks.iter().find(|(_, track)| !is_empty(&track.packet));
                let (id, track) = described.or(tracks.iter().last()).unwrap();
                prop_assert_eq!(info.track, id);
                prop_assert_eq!(
                    info.content == Content::SequenceHeader,
                    matches!(
                        track.packet,
                        VideoPacket::SequenceStart(_) | VideoPacket::Mpeg2TsSequenceStart(_)
                    )
                );
                match track.packet {
                    VideoPacket::CodedFrames { composition_time, .. } => {
                        composition_time.unwrap_or(0)
                    }
                    _ => 0,
                }
            }
            _ => 0,
        };
        let nanoseconds = match &body {
            VideoBody::Ex(ex) if info.content != Content::Command => ex.nanoseconds(),
            _ => 0,
        };
        let expected = i64::from(milliseconds) * 1_000_000 + i64::from(nanoseconds);
        if info.is_coded() {
            prop_assert_eq!(info.composition_time, expected);
        }
    }

    #[test]
    fn no_body_panics(bytes in vec(any::<u8>(), 0..400), front in any::<(u8, u8)>()) {
        let with_front = [&[front.0, front.1][..], &bytes].concat();
        for bytes in [&bytes, &with_front] {
            let _ = VideoBody::parse(bytes);
            let _ = AudioBody::parse(bytes);
            let _ = Script::parse(bytes).ok().and_then(Metadata::of);
            let _ = ColorInfo::parse(bytes);
            let _ = config::AvcConfig::parse(bytes);
            let _ = config::HevcConfig::parse(bytes);
            let _ = config::Av1Config::parse(bytes);
            let _ = config::Av1Config::record_of_descriptor(bytes);
            let _ = config::VpxConfig::parse(bytes);
            let _ = config::AudioSpecificConfig::parse(bytes);
            let _ = config::AdtsHeader::parse(bytes);
            let _ = config::OpusHead::parse(bytes);
            let _ = config::FlacConfig::parse(bytes);
            let _ = config::Ac3Header::parse(bytes);
            let _ = config::Mp3Header::parse(bytes);
        }
    }

    /// Nearly correct configurations reach further than noise.
    #[test]
    fn no_configuration_panics(
        bits in vec(any::<u8>(), 0..120),
        cut in 0..150_usize,
    ) {
        let length = (bits.len() as u16 + 1).to_be_bytes();
        let pps = [1, 0, 1, 0x68];
        let avc = [&[1, 100, 0, 10, 255, 0xE1][..], &length, &[0x67], &bits, &pps].concat();
        let _ = config::AvcConfig::parse(&avc[..cut.min(avc.len())]);
        let _ = config::AvcConfig::parse(&avc);
        let mut hevc = [0; 23];
        hevc[0] = 1;
        hevc[22] = 1;
        let hevc = [&hevc[..], &[33, 0, 1], &length, &[66], &bits].concat();
        let _ = config::HevcConfig::parse(&hevc);
        let av1 = [&[0x81, 0, 0, 0, 0x0A, bits.len() as u8][..], &bits].concat();
        let _ = config::Av1Config::parse(&av1);
        let _ = config::AudioSpecificConfig::parse(&[&[0x12, 0x00], &bits[..]].concat());
        let _ = config::Ac3Header::parse(&[&[0x0B, 0x77], &bits[..]].concat());
        let _ = config::OpusHead::parse(&[b"OpusHead\x01", &bits[..]].concat());
    }
}

#[test]
fn metadata_with_a_large_index_of_keyframes_is_parsed() {
    let times = Value::StrictArray((0..20_000).map(|n| Value::Number(f64::from(n))).collect());
    let keyframes = Value::Object(vec![("times".to_owned(), times)]);
    let script = Script {
        name: "onMetaData".to_owned(),
        values: vec![Value::EcmaArray(vec![("keyframes".to_owned(), keyframes)])],
    };
    let mut bytes = Vec::new();
    script.write(&mut bytes);
    assert_eq!(Script::parse(&bytes), Ok(script));
}
