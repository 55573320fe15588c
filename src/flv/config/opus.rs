// SPDX-License-Identifier: MPL-2.0

/// A channel without a stream (RFC 7845, 5.1.1).
const SILENCE: u8 = 255;

/// Channel mapping family with a demixing matrix (RFC 8486, 3.2).
const PROJECTION: u8 = 3;

/// The identification header of Opus (RFC 7845, 5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpusHead {
    pub channels: u8,
    pub pre_skip: u16,
    pub input_rate: u32,
    pub family: u8,
    pub streams: u8,
    pub coupled: u8,
    /// The stream of each channel; empty in families 0 and 3.
    pub mapping: Vec<u8>,
}

impl OpusHead {
    pub fn parse(header: &[u8]) -> Option<Self> {
        let rest = header.strip_prefix(b"OpusHead")?;
        let &[
            version,
            channels,
            p0,
            p1,
            r0,
            r1,
            r2,
            r3,
            _,
            _,
            family,
            ref rest @ ..,
        ] = rest
        else {
            return None;
        };
        // The upper half of the version is the one that breaks.
        if version >> 4 != 0 || channels == 0 {
            return None;
        }
        let (streams, coupled, mapping) = match (family, rest) {
            (0, _) => (1, channels - 1, &[][..]),
            // A matrix follows in place of a mapping.
            (PROJECTION, &[streams, coupled, ..]) => (streams, coupled, &[][..]),
            (_, &[streams, coupled, ref mapping @ ..]) => {
                let mapping = mapping.get(..usize::from(channels))?;
                (streams, coupled, mapping)
            }
            _ => return None,
        };
        // Decoders refuse a channel of a stream that is not there. 255 is silence.
        let decoded = u16::from(streams) + u16::from(coupled);
        let is_decoded = |channel: &u8| u16::from(*channel) < decoded || *channel == SILENCE;
        let sane = streams > 0
            && coupled <= streams
            && decoded <= 255
            && mapping.iter().all(is_decoded)
            && (family != 0 || channels <= 2);
        sane.then(|| OpusHead {
            channels,
            pre_skip: u16::from_le_bytes([p0, p1]),
            input_rate: u32::from_le_bytes([r0, r1, r2, r3]),
            family,
            streams,
            coupled,
            mapping: mapping.to_vec(),
        })
    }

    /// Returns the header of a stream that has none: of one to eight channels as encoders have them
    /// (RFC 7845, 5.1.1.2), of more without an order.
    pub fn of_channels(channels: u8) -> Self {
        let channels = channels.max(1);
        let (family, coupled, mapping): (_, _, &[u8]) = match channels {
            1 | 2 => (0, channels - 1, &[]),
            3 => (1, 1, &[0, 2, 1]),
            4 => (1, 2, &[0, 1, 2, 3]),
            5 => (1, 2, &[0, 4, 1, 2, 3]),
            6 => (1, 2, &[0, 4, 1, 2, 3, 5]),
            7 => (1, 3, &[0, 4, 1, 2, 3, 5, 6]),
            8 => (1, 3, &[0, 6, 1, 2, 3, 4, 5, 7]),
            _ => (255, 0, &[]),
        };
        let mapping = match family {
            255 => (0..channels).collect(),
            _ => mapping.to_vec(),
        };
        OpusHead {
            channels,
            pre_skip: 0,
            input_rate: 48000,
            family,
            streams: channels - coupled,
            coupled,
            mapping,
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = b"OpusHead\x01".to_vec();
        bytes.push(self.channels);
        bytes.extend(self.pre_skip.to_le_bytes());
        bytes.extend(self.input_rate.to_le_bytes());
        bytes.extend([0, 0, self.family]);
        if self.family != 0 {
            bytes.extend([self.streams, self.coupled]);
            bytes.extend(&self.mapping);
        }
        bytes
    }
}
