// SPDX-License-Identifier: MPL-2.0

//! The whole part of a file whose writer was killed, or ran out of space.

use std::io::{self, Read, Seek, SeekFrom};

use super::block_flags::{BLOCK_GROUP, CLUSTER, SEGMENT, SIMPLE_BLOCK, element};
use super::location::Container;

/// Bytes of a packet of MPEG-TS.
const TS_PACKET: u64 = 188;

const FLV_HEADER: u64 = 13;
const FLV_TAG_HEADER: u64 = 11;
const FLV_BACK_POINTER: u64 = 4;
const FLV_AUDIO: u8 = 8;
const FLV_VIDEO: u8 = 9;

/// An id and a size of Matroska.
const MAX_ELEMENT_HEADER: usize = 12;

/// Returns the length of the part of a file that a player needs no repair for. 0 where there is no
/// media in it.
pub(super) fn whole_length(container: Container, file: &mut (impl Read + Seek)) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    match container {
        Container::Mp4 => mp4(file, length),
        Container::Matroska => matroska(file, length),
        Container::MpegTs => Ok(length - length % TS_PACKET),
        Container::Flv => flv(file, length),
    }
}

/// Boxes up to the last fragment that is whole, which is a `moof` with its `mdat`.
fn mp4(file: &mut (impl Read + Seek), length: u64) -> io::Result<u64> {
    let (mut at, mut whole, mut has_media) = (0, 0, false);
    while let Some((kind, size)) = mp4_box(file, at, length)? {
        at += size;
        if &kind != b"moof" {
            whole = at;
        }
        has_media |= &kind == b"mdat";
    }
    Ok(if has_media { whole } else { 0 })
}

/// Returns kind and size of the box at an offset, if it is whole.
fn mp4_box(
    file: &mut (impl Read + Seek),
    at: u64,
    length: u64,
) -> io::Result<Option<([u8; 4], u64)>> {
    let left = length.saturating_sub(at);
    if left < 8 {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(at))?;
    let mut header = [0; 8];
    file.read_exact(&mut header)?;
    let [a, b, c, d, kind @ ..] = header;
    let mut size = u64::from(u32::from_be_bytes([a, b, c, d]));
    if size == 1 && left >= 16 {
        let mut large = [0; 8];
        file.read_exact(&mut large)?;
        size = u64::from_be_bytes(large);
    }
    Ok((size >= 8 && size <= left).then_some((kind, size)))
}

/// Elements up to the last one that is whole. Segments and clusters have no size while they are
/// written, which is part of the format.
fn matroska(file: &mut (impl Read + Seek), length: u64) -> io::Result<u64> {
    let (mut whole, mut has_media) = (0, false);
    while whole < length {
        file.seek(SeekFrom::Start(whole))?;
        let mut header = Vec::with_capacity(MAX_ELEMENT_HEADER);
        let mut next = file.by_ref().take(MAX_ELEMENT_HEADER as u64);
        next.read_to_end(&mut header)?;
        let Some((id, size, body)) = element(&header, 0) else {
            break;
        };
        let start = whole + body as u64;
        let end = match id {
            SEGMENT | CLUSTER => start,
            _ => start.saturating_add(size),
        };
        if end > length {
            break;
        }
        whole = end;
        has_media |= matches!(id, SIMPLE_BLOCK | BLOCK_GROUP);
    }
    Ok(if has_media { whole } else { 0 })
}

/// Tags with their back pointers. A disk that lost its power may have zeros at the end.
fn flv(file: &mut (impl Read + Seek), length: u64) -> io::Result<u64> {
    let (mut whole, mut has_media) = (FLV_HEADER, false);
    loop {
        let left = length.saturating_sub(whole);
        if left < FLV_TAG_HEADER {
            break;
        }
        file.seek(SeekFrom::Start(whole))?;
        let mut header = [0; FLV_TAG_HEADER as usize + FLV_BACK_POINTER as usize];
        let present = header
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        file.read_exact(&mut header[..present])?;
        let [kind, a, b, c, _, _, _, _, _, _, _, codec, packet, ..] = header;
        let body = u64::from(u32::from_be_bytes([0, a, b, c]));
        let size = FLV_TAG_HEADER + body + FLV_BACK_POINTER;
        if kind == 0 || size > left {
            break;
        }
        whole += size;
        // The configurations of AAC and H.264 are none.
        has_media |= match (kind, codec >> 4, codec & 0x0F) {
            (FLV_AUDIO, 10, _) | (FLV_VIDEO, _, 7) => packet != 0,
            (FLV_AUDIO | FLV_VIDEO, ..) => true,
            _ => false,
        };
    }
    Ok(if has_media { whole } else { 0 })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn mp4_box(kind: &[u8; 4], body: usize) -> Vec<u8> {
        let mut bytes = (body as u32 + 8).to_be_bytes().to_vec();
        bytes.extend(kind);
        bytes.resize(body + 8, 7);
        bytes
    }

    fn fragmented() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = [mp4_box(b"ftyp", 12), mp4_box(b"moov", 100)].concat();
        let mut ends = Vec::new();
        for size in [50, 0, 333] {
            bytes.extend(mp4_box(b"moof", 40));
            bytes.extend(mp4_box(b"mdat", size));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn length(container: Container, bytes: &[u8]) -> u64 {
        whole_length(container, &mut Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn an_mp4_ends_with_a_whole_fragment() {
        let (bytes, ends) = fragmented();
        for cut in 0..=bytes.len() {
            let whole = ends.iter().rfind(|end| **end <= cut);
            let expected = *whole.unwrap_or(&0) as u64;
            assert_eq!(length(Container::Mp4, &bytes[..cut]), expected, "{cut}");
        }
    }

    #[test]
    fn a_large_box_has_a_size_of_its_own() {
        let mut bytes = mp4_box(b"moof", 8);
        bytes.extend([0, 0, 0, 1]);
        bytes.extend(b"mdat");
        bytes.extend(20u64.to_be_bytes());
        bytes.extend([0; 4]);
        assert_eq!(length(Container::Mp4, &bytes), 36);
        assert_eq!(length(Container::Mp4, &bytes[..35]), 0);
    }

    #[test]
    fn an_flv_ends_with_a_whole_tag() {
        let mut bytes = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        let mut ends = vec![];
        for body in [5u8, 0, 200] {
            bytes.extend([9, 0, 0, body, 0, 0, 0, 0, 0, 0, 0]);
            bytes.resize(bytes.len() + usize::from(body) + 4, 1);
            ends.push(bytes.len());
        }
        for cut in 0..=bytes.len() {
            let whole = ends.iter().rfind(|end| **end <= cut);
            let expected = *whole.unwrap_or(&0) as u64;
            assert_eq!(length(Container::Flv, &bytes[..cut]), expected, "{cut}");
        }
    }

    #[test]
    fn an_flv_without_media_and_zeros_at_its_end_are_not_whole() {
        let mut bytes = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
        bytes.extend([18, 0, 0, 1]);
        bytes.resize(bytes.len() + 12, 1);
        assert_eq!(length(Container::Flv, &bytes), 0);
        bytes.extend([9, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x17, 0]);
        bytes.resize(bytes.len() + 4, 1);
        assert_eq!(length(Container::Flv, &bytes), 0);
        bytes.extend([9, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x17, 1]);
        bytes.resize(bytes.len() + 4, 1);
        let whole = bytes.len() as u64;
        assert_eq!(length(Container::Flv, &bytes), whole);
        bytes.resize(bytes.len() + 200, 0);
        assert_eq!(length(Container::Flv, &bytes), whole);
    }

    #[test]
    fn a_matroska_file_ends_with_a_whole_block() {
        const UNKNOWN: [u8; 8] = [1, 255, 255, 255, 255, 255, 255, 255];
        let mut bytes = [&[0x1A, 0x45, 0xDF, 0xA3, 0x84, 1, 2, 3, 4][..]].concat();
        bytes.extend([&[0x18, 0x53, 0x80, 0x67][..], &UNKNOWN].concat());
        bytes.extend([0x16, 0x54, 0xAE, 0x6B, 0x82, 0xAE, 0x80]);
        let mut ends = Vec::new();
        for size in [5u8, 100] {
            bytes.extend([&[0x1F, 0x43, 0xB6, 0x75][..], &UNKNOWN, &[0xE7, 0x81, 0]].concat());
            for kind in [0xA3, 0xA0] {
                bytes.extend([kind, 0x80 | size]);
                bytes.resize(bytes.len() + usize::from(size), 7);
                ends.push(bytes.len());
            }
        }
        for cut in 0..=bytes.len() {
            let whole = length(Container::Matroska, &bytes[..cut]) as usize;
            let expected = ends.iter().rfind(|end| **end <= cut);
            // The next cluster may have begun.
            let is_right = expected.map_or(whole == 0, |end| (*end..end + 16).contains(&whole));
            assert!(is_right && whole <= cut, "{cut}: {whole}");
        }
        // Zeros after a loss of power.
        bytes.resize(bytes.len() + 100, 0);
        let end = ends.last().copied().unwrap_or(0) as u64;
        assert_eq!(length(Container::Matroska, &bytes), end);
    }

    #[test]
    fn a_transport_stream_ends_with_a_whole_packet() {
        assert_eq!(length(Container::MpegTs, &[0x47; 188 * 3 + 100]), 188 * 3);
    }

    proptest! {
        #![proptest_config(properties::cases(256))]

        #[test]
        fn any_bytes_have_a_length_within_the_file(bytes in any::<Vec<u8>>()) {
            for container in [Container::Mp4, Container::Matroska, Container::MpegTs, Container::Flv] {
                prop_assert!(length(container, &bytes) <= bytes.len() as u64);
            }
        }
    }
}
