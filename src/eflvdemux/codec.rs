// SPDX-License-Identifier: MPL-2.0

//! The codec of a track, whichever of its names it came under.

use crate::flv::PictureCodec;
use crate::flv::body::Sound;
use crate::flv::codes::{AudioFourCc, SoundFormat, VideoCodecId, VideoFourCc};
use crate::flv::config::{
    AudioSpecificConfig, Av1Config, AvcConfig, FlacConfig, HevcConfig, NalCodec, OpusHead,
    VpxConfig,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Avc,
    Hevc,
    Vvc,
    Av1,
    Vp8,
    Vp9,
    SorensonH263,
    H263,
    Mpeg4,
    Vp6,
    Vp6Alpha,
    Screen,
    Aac,
    Mp3,
    Opus,
    Flac,
    Ac3,
    Eac3,
    /// A codec that only the first byte of each tag describes.
    Plain(SoundFormat, Sound),
}

impl Codec {
    pub(super) fn of_video_id(id: VideoCodecId) -> Option<Self> {
        Some(match id {
            VideoCodecId::SorensonH263 => Codec::SorensonH263,
            VideoCodecId::Screen => Codec::Screen,
            VideoCodecId::Vp6 => Codec::Vp6,
            VideoCodecId::Vp6Alpha => Codec::Vp6Alpha,
            VideoCodecId::Avc => Codec::Avc,
            VideoCodecId::H263 => Codec::H263,
            VideoCodecId::Mpeg4 => Codec::Mpeg4,
            VideoCodecId::Hevc => Codec::Hevc,
            // GStreamer has no caps for the second version of screen video.
            VideoCodecId::Screen2 | VideoCodecId::Unknown(_) => return None,
        })
    }

    pub(super) fn of_video(four_cc: VideoFourCc) -> Option<Self> {
        Some(match four_cc {
            VideoFourCc::Vp8 => Codec::Vp8,
            VideoFourCc::Vp9 => Codec::Vp9,
            VideoFourCc::Av1 => Codec::Av1,
            VideoFourCc::Avc => Codec::Avc,
            VideoFourCc::Hevc => Codec::Hevc,
            VideoFourCc::Vvc => Codec::Vvc,
            VideoFourCc::Unknown(_) => return None,
        })
    }

    pub(super) fn of_sound(format: SoundFormat, sound: Sound) -> Option<Self> {
        match format {
            SoundFormat::Mp3 | SoundFormat::Mp3At8k => Some(Codec::Mp3),
            SoundFormat::Pcm
            | SoundFormat::PcmLittleEndian
            | SoundFormat::Adpcm
            | SoundFormat::Nellymoser16k
            | SoundFormat::Nellymoser8k
            | SoundFormat::Nellymoser
            | SoundFormat::ALaw
            | SoundFormat::MuLaw
            | SoundFormat::Speex => Some(Codec::Plain(format, sound)),
            SoundFormat::Aac => Some(Codec::Aac),
            SoundFormat::ExHeader | SoundFormat::DeviceSpecific | SoundFormat::Unknown(_) => None,
        }
    }

    pub(super) fn of_audio(four_cc: AudioFourCc) -> Option<Self> {
        Some(match four_cc {
            AudioFourCc::Ac3 => Codec::Ac3,
            AudioFourCc::Eac3 => Codec::Eac3,
            AudioFourCc::Opus => Codec::Opus,
            AudioFourCc::Mp3 => Codec::Mp3,
            AudioFourCc::Flac => Codec::Flac,
            AudioFourCc::Aac => Codec::Aac,
            AudioFourCc::Unknown(_) => return None,
        })
    }

    /// Returns true if packets can't be decoded without the configuration.
    pub(super) fn needs_configuration(self) -> bool {
        matches!(self, Codec::Avc | Codec::Hevc | Codec::Vvc | Codec::Aac)
    }

    /// Returns the codec of its configuration record and NAL units, if it has them.
    pub(super) fn nal_codec(self) -> Option<NalCodec> {
        match self {
            Codec::Avc => Some(NalCodec::Avc),
            Codec::Hevc => Some(NalCodec::Hevc),
            _ => None,
        }
    }

    /// Returns the codec by which pictures are classified, if they can be.
    pub(super) fn picture_codec(self) -> Option<PictureCodec> {
        Some(match self {
            Codec::Avc => PictureCodec::Avc,
            Codec::Hevc => PictureCodec::Hevc,
            Codec::Vvc => PictureCodec::Vvc,
            Codec::Av1 => PictureCodec::Av1,
            Codec::Vp8 => PictureCodec::Vp8,
            Codec::Vp9 => PictureCodec::Vp9,
            Codec::SorensonH263 => PictureCodec::SorensonH263,
            Codec::Vp6 | Codec::Vp6Alpha => PictureCodec::Vp6,
            _ => return None,
        })
    }

    /// Returns true if a decoder would accept this configuration.
    pub(super) fn accepts(self, configuration: &[u8]) -> bool {
        match self {
            Codec::Avc => AvcConfig::parse(configuration).is_some(),
            Codec::Hevc => HevcConfig::parse(configuration).is_some(),
            Codec::Vvc => !configuration.is_empty(),
            Codec::Av1 => Av1Config::parse(configuration).is_some(),
            Codec::Vp8 | Codec::Vp9 => VpxConfig::parse(configuration).is_some(),
            Codec::Aac => AudioSpecificConfig::parse(configuration).is_some(),
            Codec::Opus => OpusHead::parse(configuration).is_some(),
            Codec::Flac => FlacConfig::parse(configuration).is_some(),
            _ => false,
        }
    }

    /// Bytes of one sample of all channels, or 1 where packets are not made of samples.
    pub(super) fn sample_length(self) -> usize {
        let Codec::Plain(format, sound) = self else {
            return 1;
        };
        let channels = if sound.is_stereo { 2 } else { 1 };
        match format {
            SoundFormat::Pcm | SoundFormat::PcmLittleEndian if sound.is_16_bit => 2 * channels,
            SoundFormat::Pcm
            | SoundFormat::PcmLittleEndian
            | SoundFormat::ALaw
            | SoundFormat::MuLaw => channels,
            _ => 1,
        }
    }

    /// Returns true if sequence starts of this codec have a configuration.
    pub(super) fn has_configuration(self) -> bool {
        !matches!(self, Codec::Mp3 | Codec::Ac3 | Codec::Eac3)
    }
}
