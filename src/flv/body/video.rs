// SPDX-License-Identifier: MPL-2.0

//! Video tag bodies (E.4.3; Enhanced RTMP v2, "Enhanced Video").

use bytes::BufMut;
use nom::number::complete::{be_i24, be_u8};

use super::ex::{self, Coded, ModEx, Tracks};
use super::{BodyError, put_u24};
use crate::flv::codec::CodecName;
use crate::flv::codes::{
    AvcPacketType, FrameType, VideoCodecId, VideoCommand, VideoFourCc, video_packet,
};

/// The body of a video tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoBody<'a> {
    /// A legacy command frame: a seek mark of old players.
    Command {
        codec: VideoCodecId,
        command: VideoCommand,
    },
    /// A codec with nothing between the first byte and its payload.
    Plain {
        frame_type: FrameType,
        codec: VideoCodecId,
        payload: &'a [u8],
    },
    /// VP6, with or without alpha.
    Vp6 {
        frame_type: FrameType,
        codec: VideoCodecId,
        /// Pixels to crop from the decoded picture: right in the upper half, bottom in the lower.
        adjustment: u8,
        /// With alpha it starts with the offset of the alpha picture, in 24 bits.
        payload: &'a [u8],
    },
    /// AVC, and HEVC as it was sent before there was a FourCC.
    Avc {
        frame_type: FrameType,
        codec: VideoCodecId,
        packet_type: AvcPacketType,
        /// Milliseconds, 24 bits with a sign.
        composition_time: i32,
        payload: &'a [u8],
    },
    Ex(ExVideo<'a>),
}

/// A video tag with an ex-header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExVideo<'a> {
    /// Three bits.
    pub frame_type: FrameType,
    pub mod_ex: Vec<ModEx<'a>>,
    pub content: ExVideoContent<'a>,
}

impl ExVideo<'_> {
    /// Returns the nanoseconds to add to presentation times.
    pub fn nanoseconds(&self) -> u32 {
        let mut offsets = self.mod_ex.iter().filter_map(ModEx::nanoseconds);
        offsets.next_back().unwrap_or(0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExVideoContent<'a> {
    /// A command frame, without FourCC and body. Its packet type means nothing.
    Command {
        packet_type: u8,
        command: VideoCommand,
    },
    Tracks(Tracks<VideoTrack<'a>>),
}

/// The part of a tag that belongs to one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoTrack<'a> {
    pub four_cc: VideoFourCc,
    pub packet: VideoPacket<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoPacket<'a> {
    /// The codec's configuration record.
    SequenceStart(&'a [u8]),
    CodedFrames {
        /// Milliseconds, 24 bits with a sign. `None` for codecs without one.
        composition_time: Option<i32>,
        payload: &'a [u8],
    },
    SequenceEnd,
    /// Coded frames with a composition time of 0.
    CodedFramesX(&'a [u8]),
    /// AMF: see [`super::ColorInfo`].
    Metadata(&'a [u8]),
    /// AV1 only: the video descriptor of MPEG-2 TS.
    Mpeg2TsSequenceStart(&'a [u8]),
    Unknown {
        packet_type: u8,
        body: &'a [u8],
    },
}

impl<'a> VideoBody<'a> {
    /// Returns the codec of a body without an ex-header. The tracks of other ones have their own.
    pub fn codec(&self) -> Option<CodecName> {
        match self {
            VideoBody::Command { codec, .. }
            | VideoBody::Plain { codec, .. }
            | VideoBody::Vp6 { codec, .. }
            | VideoBody::Avc { codec, .. } => Some(codec.name()),
            VideoBody::Ex(_) => None,
        }
    }

    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let (&first, rest) = body.split_first().ok_or(BodyError::Empty)?;
        if first & 0x80 != 0 {
            return ExVideo::parse(first, rest).map(VideoBody::Ex);
        }
        let frame_type = FrameType::from_code(first >> 4);
        let codec = VideoCodecId::from_code(first & 0x0F);
        if frame_type == FrameType::Command {
            let (_, command) = be_u8::<_, ()>(rest)?;
            let command = VideoCommand::from_code(command);
            return Ok(VideoBody::Command { codec, command });
        }
        match codec {
            VideoCodecId::Avc | VideoCodecId::Hevc => {
                let (rest, packet_type) = be_u8::<_, ()>(rest)?;
                let (payload, composition_time) = be_i24::<_, ()>(rest)?;
                Ok(VideoBody::Avc {
                    frame_type,
                    codec,
                    packet_type: AvcPacketType::from_code(packet_type),
                    composition_time,
                    payload,
                })
            }
            VideoCodecId::Vp6 | VideoCodecId::Vp6Alpha => {
                let (payload, adjustment) = be_u8::<_, ()>(rest)?;
                Ok(VideoBody::Vp6 {
                    frame_type,
                    codec,
                    adjustment,
                    payload,
                })
            }
            _ => Ok(VideoBody::Plain {
                frame_type,
                codec,
                payload: rest,
            }),
        }
    }

    pub fn write(&self, out: &mut impl BufMut) {
        let front = |out: &mut dyn BufMut, frame_type: FrameType, codec: VideoCodecId| {
            out.put_u8(frame_type.code() << 4 | codec.code());
        };
        match self {
            VideoBody::Command { codec, command } => {
                front(out, FrameType::Command, *codec);
                out.put_u8(command.code());
            }
            VideoBody::Plain {
                frame_type,
                codec,
                payload,
            } => {
                front(out, *frame_type, *codec);
                out.put_slice(payload);
            }
            VideoBody::Vp6 {
                frame_type,
                codec,
                adjustment,
                payload,
            } => {
                front(out, *frame_type, *codec);
                out.put_u8(*adjustment);
                out.put_slice(payload);
            }
            VideoBody::Avc {
                frame_type,
                codec,
                packet_type,
                composition_time,
                payload,
            } => {
                front(out, *frame_type, *codec);
                out.put_u8(packet_type.code());
                put_u24(out, *composition_time as u32);
                out.put_slice(payload);
            }
            VideoBody::Ex(ex) => ex.write(out),
        }
    }
}

impl<'a> ExVideo<'a> {
    fn parse(first: u8, rest: &'a [u8]) -> Result<Self, BodyError> {
        let frame_type = FrameType::from_code(first >> 4 & 0x07);
        let (rest, (packet_type, mod_ex)) = ex::mod_ex(rest, first & 0x0F)?;
        // Metadata is metadata whatever the frame type.
        let content = if frame_type == FrameType::Command && packet_type != video_packet::METADATA {
            let (_, command) = be_u8::<_, ()>(rest)?;
            let command = VideoCommand::from_code(command);
            ExVideoContent::Command {
                packet_type,
                command,
            }
        } else {
            ExVideoContent::Tracks(ex::tracks(rest, packet_type)?)
        };
        Ok(ExVideo {
            frame_type,
            mod_ex,
            content,
        })
    }

    fn write(&self, out: &mut impl BufMut) {
        let upper = 0x80 | (self.frame_type.code() & 0x07) << 4;
        match &self.content {
            ExVideoContent::Command {
                packet_type,
                command,
            } => {
                ex::write_front(out, upper, &self.mod_ex, *packet_type);
                out.put_u8(command.code());
            }
            ExVideoContent::Tracks(tracks) => {
                ex::write_front(out, upper, &self.mod_ex, ex::outer_packet_type(tracks));
                ex::write_tracks(out, tracks);
            }
        }
    }
}

impl<'a> Coded<'a> for VideoTrack<'a> {
    const MULTITRACK: u8 = video_packet::MULTITRACK;

    fn parse(four_cc: [u8; 4], packet_type: u8, body: &'a [u8]) -> Result<Self, BodyError> {
        let four_cc = VideoFourCc::from_code(four_cc);
        let packet = match packet_type {
            video_packet::SEQUENCE_START => VideoPacket::SequenceStart(body),
            // Encoders send empty frames, with or without their composition time.
            video_packet::CODED_FRAMES if four_cc.has_composition_time() && !body.is_empty() => {
                let (payload, composition_time) = be_i24::<_, ()>(body)?;
                VideoPacket::CodedFrames {
                    composition_time: Some(composition_time),
                    payload,
                }
            }
            video_packet::CODED_FRAMES => VideoPacket::CodedFrames {
                composition_time: None,
                payload: body,
            },
            video_packet::SEQUENCE_END => VideoPacket::SequenceEnd,
            video_packet::CODED_FRAMES_X => VideoPacket::CodedFramesX(body),
            video_packet::METADATA => VideoPacket::Metadata(body),
            video_packet::MPEG2_TS_SEQUENCE_START => VideoPacket::Mpeg2TsSequenceStart(body),
            packet_type => VideoPacket::Unknown { packet_type, body },
        };
        Ok(VideoTrack { four_cc, packet })
    }

    fn unknown(four_cc: [u8; 4], packet_type: u8, body: &'a [u8]) -> Self {
        let four_cc = VideoFourCc::from_code(four_cc);
        let packet = VideoPacket::Unknown { packet_type, body };
        VideoTrack { four_cc, packet }
    }

    fn four_cc(&self) -> [u8; 4] {
        self.four_cc.code()
    }

    fn packet_type(&self) -> u8 {
        match self.packet {
            VideoPacket::SequenceStart(_) => video_packet::SEQUENCE_START,
            VideoPacket::CodedFrames { .. } => video_packet::CODED_FRAMES,
            VideoPacket::SequenceEnd => video_packet::SEQUENCE_END,
            VideoPacket::CodedFramesX(_) => video_packet::CODED_FRAMES_X,
            VideoPacket::Metadata(_) => video_packet::METADATA,
            VideoPacket::Mpeg2TsSequenceStart(_) => video_packet::MPEG2_TS_SEQUENCE_START,
            VideoPacket::Unknown { packet_type, .. } => packet_type,
        }
    }

    fn write_body(&self, out: &mut impl BufMut) {
        match self.packet {
            VideoPacket::CodedFrames {
                composition_time,
                payload,
            } => {
                if let Some(composition_time) = composition_time {
                    put_u24(out, composition_time as u32);
                }
                out.put_slice(payload);
            }
            VideoPacket::SequenceEnd => {}
            VideoPacket::SequenceStart(body)
            | VideoPacket::CodedFramesX(body)
            | VideoPacket::Metadata(body)
            | VideoPacket::Mpeg2TsSequenceStart(body)
            | VideoPacket::Unknown { body, .. } => out.put_slice(body),
        }
    }
}
