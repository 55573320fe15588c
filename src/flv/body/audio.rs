// SPDX-License-Identifier: MPL-2.0

//! Audio tag bodies (E.4.2; Enhanced RTMP v2, "Enhanced Audio").

use bytes::BufMut;
use nom::bytes::complete::take;
use nom::number::complete::{be_u8, be_u32};

use super::BodyError;
use super::ex::{self, Coded, ModEx, Tracks};
use crate::flv::codec::CodecName;
use crate::flv::codes::{AacPacketType, AudioFourCc, SoundFormat, audio_packet};

/// The body of an audio tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioBody<'a> {
    Legacy {
        format: SoundFormat,
        sound: Sound,
        payload: &'a [u8],
    },
    Aac {
        /// Meaningless: the configuration counts.
        sound: Sound,
        packet_type: AacPacketType,
        payload: &'a [u8],
    },
    Ex(ExAudio<'a>),
}

/// The lower half of a legacy tag's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sound {
    /// Two bits for 5.5, 11, 22 and 44 kHz.
    pub rate_code: u8,
    pub is_16_bit: bool,
    pub is_stereo: bool,
}

impl Sound {
    pub fn rate(self) -> u32 {
        match self.rate_code & 3 {
            0 => 5512,
            1 => 11025,
            2 => 22050,
            _ => 44100,
        }
    }

    fn from_code(code: u8) -> Self {
        Sound {
            rate_code: code >> 2 & 3,
            is_16_bit: code & 2 != 0,
            is_stereo: code & 1 != 0,
        }
    }

    fn code(self) -> u8 {
        (self.rate_code & 3) << 2 | u8::from(self.is_16_bit) << 1 | u8::from(self.is_stereo)
    }
}

/// An audio tag with an ex-header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExAudio<'a> {
    pub mod_ex: Vec<ModEx<'a>>,
    pub tracks: Tracks<AudioTrack<'a>>,
}

impl ExAudio<'_> {
    /// Returns the nanoseconds to add to presentation times.
    pub fn nanoseconds(&self) -> u32 {
        let mut offsets = self.mod_ex.iter().filter_map(ModEx::nanoseconds);
        offsets.next_back().unwrap_or(0)
    }
}

/// The part of a tag that belongs to one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioTrack<'a> {
    pub four_cc: AudioFourCc,
    pub packet: AudioPacket<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioPacket<'a> {
    /// The codec's configuration; empty for codecs without one.
    SequenceStart(&'a [u8]),
    CodedFrames(&'a [u8]),
    SequenceEnd,
    MultichannelConfig(MultichannelConfig<'a>),
    Unknown {
        packet_type: u8,
        body: &'a [u8],
    },
}

/// The loudspeakers of the channels, for codecs that do not say them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultichannelConfig<'a> {
    pub channels: u8,
    pub order: ChannelOrder<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelOrder<'a> {
    Unspecified,
    /// A bit for each loudspeaker, in the order of WAVEFORMATEXTENSIBLE.
    Native(u32),
    /// A loudspeaker for each channel.
    Custom(&'a [u8]),
    Unknown(u8),
}

mod order {
    pub(super) const UNSPECIFIED: u8 = 0;
    pub(super) const NATIVE: u8 = 1;
    pub(super) const CUSTOM: u8 = 2;
}

impl<'a> AudioBody<'a> {
    /// Returns the codec of a body without an ex-header. The tracks of other ones have their own.
    pub fn codec(&self) -> Option<CodecName> {
        match self {
            AudioBody::Legacy { format, .. } => Some(format.name()),
            AudioBody::Aac { .. } => Some(SoundFormat::Aac.name()),
            AudioBody::Ex(_) => None,
        }
    }

    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let (&first, rest) = body.split_first().ok_or(BodyError::Empty)?;
        let sound = Sound::from_code(first);
        match SoundFormat::from_code(first >> 4) {
            SoundFormat::ExHeader => {
                let (rest, (packet_type, mod_ex)) = ex::mod_ex(rest, first & 0x0F)?;
                let tracks = ex::tracks(rest, packet_type)?;
                Ok(AudioBody::Ex(ExAudio { mod_ex, tracks }))
            }
            SoundFormat::Aac => {
                let (payload, packet_type) = be_u8::<_, ()>(rest)?;
                Ok(AudioBody::Aac {
                    sound,
                    packet_type: AacPacketType::from_code(packet_type),
                    payload,
                })
            }
            format => Ok(AudioBody::Legacy {
                format,
                sound,
                payload: rest,
            }),
        }
    }

    pub fn write(&self, out: &mut impl BufMut) {
        match self {
            AudioBody::Legacy {
                format,
                sound,
                payload,
            } => {
                out.put_u8(format.code() << 4 | sound.code());
                out.put_slice(payload);
            }
            AudioBody::Aac {
                sound,
                packet_type,
                payload,
            } => {
                out.put_u8(SoundFormat::Aac.code() << 4 | sound.code());
                out.put_u8(packet_type.code());
                out.put_slice(payload);
            }
            AudioBody::Ex(ExAudio { mod_ex, tracks }) => {
                let upper = SoundFormat::ExHeader.code() << 4;
                ex::write_front(out, upper, mod_ex, ex::outer_packet_type(tracks));
                ex::write_tracks(out, tracks);
            }
        }
    }
}

impl<'a> MultichannelConfig<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let (rest, kind) = be_u8::<_, ()>(body)?;
        let (rest, channels) = be_u8::<_, ()>(rest)?;
        let order = match kind {
            order::UNSPECIFIED => ChannelOrder::Unspecified,
            order::NATIVE => ChannelOrder::Native(be_u32::<_, ()>(rest)?.1),
            order::CUSTOM => ChannelOrder::Custom(take::<_, _, ()>(channels)(rest)?.1),
            unknown => ChannelOrder::Unknown(unknown),
        };
        Ok(MultichannelConfig { channels, order })
    }

    fn write(&self, out: &mut impl BufMut) {
        out.put_u8(match self.order {
            ChannelOrder::Unspecified => order::UNSPECIFIED,
            ChannelOrder::Native(_) => order::NATIVE,
            ChannelOrder::Custom(_) => order::CUSTOM,
            ChannelOrder::Unknown(kind) => kind,
        });
        out.put_u8(self.channels);
        match self.order {
            ChannelOrder::Native(mask) => out.put_u32(mask),
            ChannelOrder::Custom(speakers) => out.put_slice(speakers),
            ChannelOrder::Unspecified | ChannelOrder::Unknown(_) => {}
        }
    }
}

impl<'a> Coded<'a> for AudioTrack<'a> {
    const MULTITRACK: u8 = audio_packet::MULTITRACK;

    fn parse(four_cc: [u8; 4], packet_type: u8, body: &'a [u8]) -> Result<Self, BodyError> {
        let packet = match packet_type {
            audio_packet::SEQUENCE_START => AudioPacket::SequenceStart(body),
            audio_packet::CODED_FRAMES => AudioPacket::CodedFrames(body),
            audio_packet::SEQUENCE_END => AudioPacket::SequenceEnd,
            audio_packet::MULTICHANNEL_CONFIG => {
                AudioPacket::MultichannelConfig(MultichannelConfig::parse(body)?)
            }
            packet_type => AudioPacket::Unknown { packet_type, body },
        };
        let four_cc = AudioFourCc::from_code(four_cc);
        Ok(AudioTrack { four_cc, packet })
    }

    fn unknown(four_cc: [u8; 4], packet_type: u8, body: &'a [u8]) -> Self {
        let four_cc = AudioFourCc::from_code(four_cc);
        let packet = AudioPacket::Unknown { packet_type, body };
        AudioTrack { four_cc, packet }
    }

    fn four_cc(&self) -> [u8; 4] {
        self.four_cc.code()
    }

    fn packet_type(&self) -> u8 {
        match self.packet {
            AudioPacket::SequenceStart(_) => audio_packet::SEQUENCE_START,
            AudioPacket::CodedFrames(_) => audio_packet::CODED_FRAMES,
            AudioPacket::SequenceEnd => audio_packet::SEQUENCE_END,
            AudioPacket::MultichannelConfig(_) => audio_packet::MULTICHANNEL_CONFIG,
            AudioPacket::Unknown { packet_type, .. } => packet_type,
        }
    }

    fn write_body(&self, out: &mut impl BufMut) {
        match self.packet {
            AudioPacket::SequenceStart(body)
            | AudioPacket::CodedFrames(body)
            | AudioPacket::Unknown { body, .. } => out.put_slice(body),
            AudioPacket::SequenceEnd => {}
            AudioPacket::MultichannelConfig(config) => config.write(out),
        }
    }
}
