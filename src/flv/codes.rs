// SPDX-License-Identifier: MPL-2.0

//! Numbers of the wire: one table for the tag header parser and the body parser.

/// Defines an enumeration of the known codes with a variant for all others, so that unknown codes
/// are values.
macro_rules! codes {
    (
        $(#[$meta:meta])*
        $name:ident: $code:ty {
            $($(#[$variant_meta:meta])* $variant:ident = $value:tt),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
            /// Any other code.
            Unknown($code),
        }

        impl $name {
            /// The known codes, in the order of the specification.
            pub const KNOWN: &'static [$name] = &[$($name::$variant),*];

            pub const fn from_code(code: $code) -> Self {
                match code {
                    $($value => $name::$variant,)*
                    unknown => $name::Unknown(unknown),
                }
            }

            pub const fn code(self) -> $code {
                match self {
                    $($name::$variant => $value,)*
                    $name::Unknown(code) => code,
                }
            }
        }
    };
}

codes! {
    /// Upper half of a video tag's first byte; three bits of it where there is an ex-header
    /// (E.4.3.1).
    FrameType: u8 {
        Key = 1,
        Inter = 2,
        /// H.263 only.
        DisposableInter = 3,
        /// Reserved for servers.
        GeneratedKey = 4,
        /// Not a frame: a command, or information.
        Command = 5,
    }
}

impl FrameType {
    /// Returns true if the publisher says that decoding can start with this frame.
    pub const fn is_key(self) -> bool {
        matches!(self, FrameType::Key | FrameType::GeneratedKey)
    }
}

codes! {
    /// Lower half of a legacy video tag's first byte (E.4.3.1, and what is in use beyond it).
    VideoCodecId: u8 {
        SorensonH263 = 2,
        Screen = 3,
        Vp6 = 4,
        Vp6Alpha = 5,
        Screen2 = 6,
        Avc = 7,
        /// Not in the specification; ffmpeg has it.
        H263 = 8,
        /// Not in the specification; ffmpeg has it.
        Mpeg4 = 9,
        /// Not in the specification: many encoders sent it before there was a FourCC.
        Hevc = 12,
    }
}

codes! {
    /// Second byte of a legacy AVC or HEVC tag (E.4.3.1).
    AvcPacketType: u8 {
        SequenceHeader = 0,
        CodedFrames = 1,
        EndOfSequence = 2,
    }
}

codes! {
    /// The byte of a video command frame.
    VideoCommand: u8 {
        StartSeek = 0,
        EndSeek = 1,
    }
}

codes! {
    /// Upper half of an audio tag's first byte (E.4.2.1).
    SoundFormat: u8 {
        /// In the byte order of the machine that made it, which in practice is little-endian.
        Pcm = 0,
        Adpcm = 1,
        Mp3 = 2,
        PcmLittleEndian = 3,
        Nellymoser16k = 4,
        Nellymoser8k = 5,
        Nellymoser = 6,
        ALaw = 7,
        MuLaw = 8,
        /// Not a format: an ex-header follows.
        ExHeader = 9,
        Aac = 10,
        Speex = 11,
        Mp3At8k = 14,
        DeviceSpecific = 15,
    }
}

codes! {
    /// Second byte of a legacy AAC tag (E.4.2.1).
    AacPacketType: u8 {
        SequenceHeader = 0,
        Raw = 1,
    }
}

codes! {
    /// Codecs of enhanced video.
    VideoFourCc: [u8; 4] {
        Vp8 = [b'v', b'p', b'0', b'8'],
        Vp9 = [b'v', b'p', b'0', b'9'],
        Av1 = [b'a', b'v', b'0', b'1'],
        Avc = [b'a', b'v', b'c', b'1'],
        Hevc = [b'h', b'v', b'c', b'1'],
        Vvc = [b'v', b'v', b'c', b'1'],
    }
}

impl VideoFourCc {
    /// Returns true if coded frames start with a composition time offset.
    pub const fn has_composition_time(self) -> bool {
        matches!(
            self,
            VideoFourCc::Avc | VideoFourCc::Hevc | VideoFourCc::Vvc
        )
    }
}

codes! {
    /// Codecs of enhanced audio.
    AudioFourCc: [u8; 4] {
        Ac3 = [b'a', b'c', b'-', b'3'],
        Eac3 = [b'e', b'c', b'-', b'3'],
        Opus = [b'O', b'p', b'u', b's'],
        Mp3 = [b'.', b'm', b'p', b'3'],
        Flac = [b'f', b'L', b'a', b'C'],
        Aac = [b'm', b'p', b'4', b'a'],
    }
}

impl AudioFourCc {
    /// Returns true if a sequence start must have a body. AC-3 and MP3 have no configuration, and
    /// their sequence start is empty.
    pub const fn has_configuration(self) -> bool {
        matches!(
            self,
            AudioFourCc::Opus | AudioFourCc::Flac | AudioFourCc::Aac
        )
    }
}

/// Packet types of an ex-header of video.
pub mod video_packet {
    pub const SEQUENCE_START: u8 = 0;
    pub const CODED_FRAMES: u8 = 1;
    pub const SEQUENCE_END: u8 = 2;
    pub const CODED_FRAMES_X: u8 = 3;
    pub const METADATA: u8 = 4;
    pub const MPEG2_TS_SEQUENCE_START: u8 = 5;
    pub const MULTITRACK: u8 = 6;
}

/// Packet types of an ex-header of audio.
pub mod audio_packet {
    pub const SEQUENCE_START: u8 = 0;
    pub const CODED_FRAMES: u8 = 1;
    pub const SEQUENCE_END: u8 = 2;
    pub const MULTICHANNEL_CONFIG: u8 = 4;
    pub const MULTITRACK: u8 = 5;
}

/// The packet type, of audio and of video, that puts a prefix before the real one.
pub const PACKET_MOD_EX: u8 = 7;

/// The kind of prefix that carries nanoseconds.
pub const MOD_EX_TIMESTAMP_OFFSET_NANO: u8 = 0;

/// Largest nanosecond offset: the next one is a millisecond.
pub const MAX_NANOSECONDS: u32 = 999_999;

pub mod multitrack {
    /// No size field: the track goes to the end of the tag.
    pub const ONE_TRACK: u8 = 0;
    pub const MANY_TRACKS: u8 = 1;
    pub const MANY_TRACKS_MANY_CODECS: u8 = 2;
}
