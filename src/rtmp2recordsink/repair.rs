// SPDX-License-Identifier: MPL-2.0

//! The whole part of a file whose writer was killed, or ran out of space.

use std::io::{self, Read, Seek, SeekFrom};

use super::location::Container;

/// Bytes of a packet of MPEG-TS.
const TS_PACKET: u64 = 188;

const FLV_HEADER: u64 = 13;
const FLV_TAG_HEADER: u64 = 11;
const FLV_BACK_POINTER: u64 = 4;

/// Returns the length of the part of a file that a player needs no repair for. 0 where there is no
/// media in it.
pub(super) fn whole_length(container: Container, file: &mut (impl Read + Seek)) -> io::Result<u64> {
    let length = file.seek(SeekFrom::End(0))?;
    match container {
        Container::Mp4 => mp4(file, length),
        // Elements of an unknown size are part of the format: players read up to the end.
        Container::Matroska => Ok(length),
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

/// Tags with their back pointers.
fn flv(file: &mut (impl Read + Seek), length: u64) -> io::Result<u64> {
    let mut whole = FLV_HEADER;
    loop {
        let left = length.saturating_sub(whole);
        if left < FLV_TAG_HEADER {
            break;
        }
        file.seek(SeekFrom::Start(whole))?;
        let mut header = [0; 4];
        file.read_exact(&mut header)?;
        let [_, a, b, c] = header;
        let body = u64::from(u32::from_be_bytes([0, a, b, c]));
        let size = FLV_TAG_HEADER + body + FLV_BACK_POINTER;
        if size > left {
            break;
        }
        whole += size;
    }
    Ok(if whole > FLV_HEADER { whole } else { 0 })
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
