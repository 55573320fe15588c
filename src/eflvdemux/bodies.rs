// SPDX-License-Identifier: MPL-2.0

//! Tag bodies -> configurations and packets of tracks, without state.

use std::borrow::Cow;

use super::codec::Codec;
use super::problem::Problem;
use crate::flv::body::{
    AudioBody, AudioPacket, AudioTrack, ColorInfo, ExVideoContent, VideoBody, VideoPacket,
    VideoTrack,
};
use crate::flv::codes::{AacPacketType, AvcPacketType, FrameType, audio_packet, video_packet};
use crate::flv::config::Av1Config;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// One thing that a tag says about one track.
#[derive(Debug, PartialEq)]
pub(super) enum TrackItem<'a> {
    Configuration(Codec, Cow<'a, [u8]>),
    Packet(CodedPacket<'a>),
    /// Boxed, since it is large and rare.
    Color(Codec, Box<ColorInfo>),
    /// Number of channels, 1 to 255.
    Channels(Codec, u8),
}

/// A packet of a track, as its tag has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CodedPacket<'a> {
    pub(super) codec: Codec,
    pub(super) payload: &'a [u8],
    pub(super) is_key: bool,
    /// PTS - DTS in nanoseconds.
    pub(super) composition_time: i64,
}

/// A problem with a part of a tag, and its detail for logs and messages.
pub(super) type Skipped = (Problem, String);

/// One item of the track with this id, or the reason why it is skipped.
pub(super) type TrackResult<'a> = (u8, Result<TrackItem<'a>, Skipped>);

fn skipped(problem: Problem, detail: String) -> Result<TrackItem<'static>, Skipped> {
    Err((problem, detail))
}

/// Calls `each` for all items of a video tag.
pub(super) fn parse_video<'a>(body: &'a [u8], mut each: impl FnMut(TrackResult<'a>)) {
    let video = match VideoBody::parse(body) {
        Ok(video) => video,
        Err(error) => return each((0, skipped(Problem::BadTag, format!("Video: {error}")))),
    };
    let (frame_type, codec_id, payload, milliseconds) = match video {
        VideoBody::Command { .. } => return,
        VideoBody::Ex(ex) => {
            if let ExVideoContent::Tracks(tracks) = &ex.content {
                let nanoseconds = ex.nanoseconds();
                for (id, track) in tracks.iter() {
                    if let Some(item) = ex_video(track, ex.frame_type, nanoseconds).transpose() {
                        each((id, item));
                    }
                }
            }
            return;
        }
        VideoBody::Avc {
            frame_type,
            codec,
            packet_type,
            composition_time,
            payload,
        } => match packet_type {
            AvcPacketType::CodedFrames => (frame_type, codec, payload, composition_time),
            AvcPacketType::EndOfSequence => return,
            AvcPacketType::SequenceHeader => {
                if let Some(codec) = Codec::of_video_id(codec) {
                    each((0, Ok(TrackItem::Configuration(codec, payload.into()))));
                }
                return;
            }
            AvcPacketType::Unknown(code) => {
                let detail = format!("AVC packet type {code}");
                return each((0, skipped(Problem::UnknownPacket, detail)));
            }
        },
        VideoBody::Plain {
            frame_type,
            codec,
            payload,
        }
        | VideoBody::Vp6 {
            frame_type,
            codec,
            payload,
            ..
        } => (frame_type, codec, payload, 0),
    };
    let item = match Codec::of_video_id(codec_id) {
        Some(codec) => Ok(TrackItem::Packet(CodedPacket {
            codec,
            payload,
            is_key: frame_type.is_key(),
            composition_time: i64::from(milliseconds) * NANOS_PER_MILLI,
        })),
        None => skipped(
            Problem::UnknownCodec,
            format!("Video codec id {}", codec_id.code()),
        ),
    };
    each((0, item));
}

/// Returns None for what needs no action.
fn ex_video<'a>(
    track: &VideoTrack<'a>,
    frame_type: FrameType,
    nanoseconds: u32,
) -> Result<Option<TrackItem<'a>>, Skipped> {
    let Some(codec) = Codec::of_video(track.four_cc) else {
        return Err(unknown_four_cc(track.four_cc.code()));
    };
    let (payload, milliseconds) = match track.packet {
        VideoPacket::SequenceStart(record) => {
            return Ok(Some(TrackItem::Configuration(codec, record.into())));
        }
        VideoPacket::Mpeg2TsSequenceStart(descriptor) => {
            let record = Av1Config::record_of_descriptor(descriptor);
            let Some(record) = record.filter(|_| codec == Codec::Av1) else {
                let detail = "MPEG-2 TS sequence start".to_owned();
                return Err((Problem::BadConfiguration, detail));
            };
            let record = record.to_vec().into();
            return Ok(Some(TrackItem::Configuration(codec, record)));
        }
        VideoPacket::SequenceEnd => return Ok(None),
        VideoPacket::Metadata(body) => {
            let color = ColorInfo::parse(body);
            let color = color.map_err(|error| (Problem::BadScript, error.to_string()))?;
            return Ok(color.map(|color| TrackItem::Color(codec, color.into())));
        }
        VideoPacket::Unknown { packet_type, body } => {
            let is_known = packet_type <= video_packet::MPEG2_TS_SEQUENCE_START;
            return Err(unknown_packet("Video", packet_type, body, is_known));
        }
        VideoPacket::CodedFramesX(payload) => (payload, 0),
        VideoPacket::CodedFrames {
            composition_time,
            payload,
        } => (payload, composition_time.unwrap_or(0)),
    };
    Ok(Some(TrackItem::Packet(CodedPacket {
        codec,
        payload,
        is_key: frame_type.is_key(),
        composition_time: i64::from(milliseconds) * NANOS_PER_MILLI + i64::from(nanoseconds),
    })))
}

/// Calls `each` for all items of an audio tag.
pub(super) fn parse_audio<'a>(body: &'a [u8], mut each: impl FnMut(TrackResult<'a>)) {
    let audio = match AudioBody::parse(body) {
        Ok(audio) => audio,
        Err(error) => return each((0, skipped(Problem::BadTag, format!("Audio: {error}")))),
    };
    let item = match audio {
        AudioBody::Aac {
            packet_type,
            payload,
            ..
        } => match packet_type {
            AacPacketType::SequenceHeader => {
                Ok(TrackItem::Configuration(Codec::Aac, payload.into()))
            }
            AacPacketType::Raw => Ok(audio_packet(Codec::Aac, payload, 0)),
            AacPacketType::Unknown(code) => {
                skipped(Problem::UnknownPacket, format!("AAC packet type {code}"))
            }
        },
        AudioBody::Legacy {
            format,
            sound,
            payload,
        } => match Codec::of_sound(format, sound) {
            Some(codec) => Ok(audio_packet(codec, payload, 0)),
            None => skipped(
                Problem::UnknownCodec,
                format!("Sound format {}", format.code()),
            ),
        },
        AudioBody::Ex(ex) => {
            let nanoseconds = ex.nanoseconds();
            for (id, track) in ex.tracks.iter() {
                if let Some(item) = ex_audio(track, nanoseconds).transpose() {
                    each((id, item));
                }
            }
            return;
        }
    };
    each((0, item));
}

/// Returns None for what needs no action.
fn ex_audio<'a>(
    track: &AudioTrack<'a>,
    nanoseconds: u32,
) -> Result<Option<TrackItem<'a>>, Skipped> {
    let Some(codec) = Codec::of_audio(track.four_cc) else {
        return Err(unknown_four_cc(track.four_cc.code()));
    };
    match track.packet {
        AudioPacket::SequenceStart(configuration) => Ok(codec
            .has_configuration()
            .then_some(TrackItem::Configuration(codec, configuration.into()))),
        AudioPacket::SequenceEnd => Ok(None),
        AudioPacket::MultichannelConfig(config) => {
            Ok(Some(TrackItem::Channels(codec, config.channels)))
        }
        AudioPacket::CodedFrames(payload) => Ok(Some(audio_packet(codec, payload, nanoseconds))),
        AudioPacket::Unknown { packet_type, body } => {
            let is_known = packet_type == audio_packet::MULTICHANNEL_CONFIG;
            Err(unknown_packet("Audio", packet_type, body, is_known))
        }
    }
}

fn audio_packet(codec: Codec, payload: &[u8], nanoseconds: u32) -> TrackItem<'_> {
    TrackItem::Packet(CodedPacket {
        codec,
        // A part of a sample is of use to nobody.
        payload: &payload[..payload.len() - payload.len() % codec.sample_length()],
        is_key: true,
        composition_time: i64::from(nanoseconds),
    })
}

/// `is_known`: the packet is cut short, or empty.
fn unknown_packet(kind: &str, packet_type: u8, body: &[u8], is_known: bool) -> Skipped {
    let problem = match (is_known, body.is_empty()) {
        (true, true) => Problem::Empty,
        (true, false) => Problem::BadTag,
        (false, _) => Problem::UnknownPacket,
    };
    (problem, format!("{kind} packet type {packet_type}"))
}

fn unknown_four_cc(code: [u8; 4]) -> Skipped {
    (Problem::UnknownCodec, code.escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(body: &[u8]) -> Vec<TrackResult<'_>> {
        let mut items = Vec::new();
        parse_video(body, |item| items.push(item));
        items
    }

    fn audio(body: &[u8]) -> Vec<TrackResult<'_>> {
        let mut items = Vec::new();
        parse_audio(body, |item| items.push(item));
        items
    }

    fn payloads<'a>(items: &[TrackResult<'a>]) -> Vec<(u8, &'a [u8])> {
        let payload = |(id, item): &TrackResult<'a>| match item {
            Ok(TrackItem::Packet(packet)) => Some((*id, packet.payload)),
            _ => None,
        };
        items.iter().filter_map(payload).collect()
    }

    #[test]
    fn a_tag_of_several_tracks_has_an_item_for_each() {
        let items = video(b"\x96\x11vp09\x03\0\0\x01a\x07\0\0\x02bc");
        assert_eq!(payloads(&items), [(3, &b"a"[..]), (7, b"bc")]);
    }

    #[test]
    fn an_empty_or_cut_track_loses_no_other() {
        let items = video(b"\x96\x11avc1\x03\0\0\0\x04\0\0\x02\0\0\x07\0\0\x04\0\0\0a");
        assert_eq!(payloads(&items), [(3, &b""[..]), (7, b"a")]);
        let (4, Err((problem, _))) = &items[1] else {
            panic!("{items:?}");
        };
        assert_eq!(*problem, Problem::BadTag);
    }

    #[test]
    fn composition_times_are_in_nanoseconds() {
        // ModEx of 5 ns, then coded frames 2 ms before their DTS.
        let items = video(b"\xA7\x02\0\0\x05\x01avc1\xFF\xFF\xFEx");
        let [(0, Ok(TrackItem::Packet(packet)))] = &items[..] else {
            panic!("{items:?}");
        };
        assert!(!packet.is_key);
        assert_eq!(packet.composition_time, -1_999_995);
    }

    #[test]
    fn samples_are_never_cut() {
        // PCM of 16 bits and two channels.
        assert_eq!(payloads(&audio(b"\x3F12345678ab")), [(0, &b"12345678"[..])]);
    }

    #[test]
    fn commands_and_ends_of_sequences_need_no_action() {
        for body in [&b"\x57\0"[..], b"\x17\x02\0\0\0", b"\x92avc1"] {
            assert_eq!(video(body), []);
        }
        assert_eq!(audio(b"\x92Opus"), []);
        assert_eq!(audio(b"\x90ac-3"), []);
    }

    #[test]
    fn skipped_parts_have_their_problem() {
        let problems = [
            (video(b"\x17\x01"), Problem::BadTag),
            (video(b"\x16\x01\x02"), Problem::UnknownCodec),
            (video(b"\x17\x09\0\0\0a"), Problem::UnknownPacket),
            (video(b"\x91xxxxabc"), Problem::UnknownCodec),
            (video(b"\x98hvc1abc"), Problem::UnknownPacket),
            (video(b"\x95hvc1abc"), Problem::BadConfiguration),
            (audio(b"\xD0\x01"), Problem::UnknownCodec),
            (audio(b"\xAF\x05a"), Problem::UnknownPacket),
            (audio(b"\x99Opusabc"), Problem::UnknownPacket),
        ];
        for (items, expected) in problems {
            let [(0, Err((problem, _)))] = &items[..] else {
                panic!("{items:?}");
            };
            assert_eq!(*problem, expected);
        }
    }
}
