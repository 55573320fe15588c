// SPDX-License-Identifier: MPL-2.0

//! Keyframe flags of audio in Matroska.
//!
//! matroskamux sets the flag in blocks of video only. A program that copies streams may begin each
//! of them with a keyframe, as ffmpeg does since AAC has frames that depend on others (xHE-AAC), and
//! then copies no audio at all. This finds the flags that are missing.

pub(super) const SEGMENT: u32 = 0x1853_8067;
const TRACKS: u32 = 0x1654_AE6B;
const TRACK_ENTRY: u32 = 0xAE;
const TRACK_NUMBER: u32 = 0xD7;
const TRACK_TYPE: u32 = 0x83;
pub(super) const CLUSTER: u32 = 0x1F43_B675;
pub(super) const BLOCK_GROUP: u32 = 0xA0;
pub(super) const SIMPLE_BLOCK: u32 = 0xA3;

/// The type of an audio track.
const AUDIO: u64 = 2;

/// The flag in the last byte of a block's header.
pub(super) const KEYFRAME: u8 = 0x80;

/// Bytes between the track number and the flags of a block: its time.
const BLOCK_TIME: usize = 2;

/// Follows the elements that a muxer writes.
#[derive(Debug, Default)]
pub(super) struct BlockFlags {
    /// Numbers of the audio tracks.
    audio: Vec<u64>,
    /// The track entry that is being read.
    number: Option<u64>,
    is_audio: bool,
    /// Bytes of the last element that are still to come.
    rest: u64,
}

impl BlockFlags {
    /// The muxer goes on at another place of the file.
    pub(super) fn seek(&mut self) {
        self.rest = 0;
    }

    /// Handles the next bytes of the muxer, which writes the header of a block at once. Returns the
    /// place of the flags in it, if it is of audio.
    pub(super) fn handle(&mut self, bytes: &[u8]) -> Option<usize> {
        let skipped = usize::try_from(self.rest).map_or(bytes.len(), |rest| rest.min(bytes.len()));
        self.rest -= skipped as u64;
        let mut at = skipped;
        let mut found = None;
        while let Some((id, size, body)) = element(bytes, at) {
            at = body;
            let content = bytes.get(body..).unwrap_or_default();
            match id {
                SEGMENT | TRACKS | CLUSTER | BLOCK_GROUP => continue,
                TRACK_ENTRY => {
                    (self.number, self.is_audio) = (None, false);
                    continue;
                }
                TRACK_NUMBER => self.number = unsigned(content, size),
                TRACK_TYPE => self.is_audio = unsigned(content, size) == Some(AUDIO),
                SIMPLE_BLOCK => found = self.flags_in(content).map(|flags| body + flags),
                _ => {}
            }
            if matches!(id, TRACK_NUMBER | TRACK_TYPE)
                && self.is_audio
                && let Some(number) = self.number.take()
            {
                self.audio.push(number);
            }
            let present = content.len() as u64;
            if size > present {
                self.rest = size - present;
                break;
            }
            at += size as usize;
        }
        found
    }

    /// Returns the place of the flags in a block of audio.
    fn flags_in(&self, block: &[u8]) -> Option<usize> {
        let (number, length) = vint(block, 0)?;
        let flags = length + BLOCK_TIME;
        (self.audio.contains(&number) && flags < block.len()).then_some(flags)
    }
}

/// Returns id, size and place of the body of the element at a place.
pub(super) fn element(bytes: &[u8], at: usize) -> Option<(u32, u64, usize)> {
    let length = bytes.get(at)?.leading_zeros() as usize + 1;
    if length > 4 {
        return None;
    }
    let id = bytes.get(at..at + length)?;
    let id = id.iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
    let (size, size_length) = vint(bytes, at + length)?;
    Some((id, size, at + length + size_length))
}

/// Returns a number of variable length, and that length.
fn vint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let first = *bytes.get(at)?;
    let length = first.leading_zeros() as usize + 1;
    if length > 8 {
        return None;
    }
    let bytes = bytes.get(at..at + length)?;
    let number = bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte));
    Some((number & !(1 << (7 * length)), length))
}

fn unsigned(content: &[u8], size: u64) -> Option<u64> {
    let size = usize::try_from(size).ok().filter(|size| *size <= 8)?;
    let bytes = content.get(..size)?;
    Some(
        bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte)),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn element(id: &[u8], body: &[u8]) -> Vec<u8> {
        [id, &[0x40, body.len() as u8], body].concat()
    }

    fn entry(number: u8, kind: u8) -> Vec<u8> {
        let fields = [
            element(&[0xD7], &[number]),
            element(&[0x83], &[kind]),
            element(&[0xE1], &[1, 2, 3]),
        ];
        element(&[0xAE], &fields.concat())
    }

    /// Flags after the header of a file with video and audio.
    fn flags() -> BlockFlags {
        let unknown = [0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
        let header = [
            element(&[0x1A, 0x45, 0xDF, 0xA3], &[7; 20]),
            [&[0x18, 0x53, 0x80, 0x67], &unknown[..]].concat(),
            element(
                &[0x16, 0x54, 0xAE, 0x6B],
                &[entry(1, 1), entry(2, 2)].concat(),
            ),
        ];
        let mut flags = BlockFlags::default();
        assert_eq!(flags.handle(&header.concat()), None);
        assert_eq!(flags.audio, [2]);
        let cluster = [&[0x1F, 0x43, 0xB6, 0x75], &unknown[..], &[0xE7, 0x81, 0]].concat();
        assert_eq!(flags.handle(&cluster), None);
        flags
    }

    /// The header of a block with so many bytes of media.
    fn block(track: u8, media: u8) -> Vec<u8> {
        vec![0xA3, 0x40, media + 4, 0x80 | track, 0, 40, 0]
    }

    #[test]
    fn flags_of_audio_are_found_and_those_of_video_are_left_alone() {
        let mut flags = flags();
        for _ in 0..2 {
            assert_eq!(flags.handle(&block(2, 9)), Some(6));
            assert_eq!(flags.handle(&[0; 9]), None);
            assert_eq!(flags.handle(&block(1, 9)), None);
            assert_eq!(flags.handle(&[0; 9]), None);
        }
    }

    #[test]
    fn media_that_looks_like_a_block_is_none() {
        let mut flags = flags();
        assert_eq!(flags.handle(&block(2, 14)), Some(6));
        assert_eq!(flags.handle(&block(2, 9)), None);
        assert_eq!(flags.handle(&block(2, 9)), None);
        // A block with a duration is in a group, and needs no flag.
        let group = [&[0xA0, 0x40, 20][..], &[0xA1, 0x40, 11, 0x82, 0, 40, 0]].concat();
        assert_eq!(flags.handle(&group), None);
        assert_eq!(flags.handle(&block(2, 9)), None);
        assert_eq!(flags.handle(&block(2, 9)), Some(6));
        flags.seek();
        assert_eq!(flags.handle(&block(2, 9)), Some(6));
    }

    proptest! {
        #![proptest_config(properties::cases(256))]

        #[test]
        fn any_bytes_are_handled(pieces in any::<Vec<Vec<u8>>>()) {
            let mut flags = BlockFlags { audio: (0..=255).collect(), ..BlockFlags::default() };
            for bytes in pieces {
                if let Some(at) = flags.handle(&bytes) {
                    prop_assert!(at < bytes.len());
                }
            }
        }
    }
}
