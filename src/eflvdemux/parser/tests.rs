// SPDX-License-Identifier: MPL-2.0

use std::convert::Infallible;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::*;

const FILE_HEADER: &[u8] = b"FLV\x01\x05\0\0\0\x09\0\0\0\0";

/// Repeatable random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

/// Numbers of a tag that may be odd.
#[derive(Debug, Clone, Copy)]
struct Form {
    stream_id: u32,
    /// Added to the back pointer.
    back: u32,
}

const USUAL: Form = Form {
    stream_id: 0,
    back: 0,
};

fn tag(kind: u8, timestamp: u32, body: &[u8], form: Form) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    let time = timestamp.to_be_bytes();
    let id = form.stream_id.to_be_bytes();
    let back = (body.len() as u32 + 11).wrapping_add(form.back);
    [
        &[kind, length[1], length[2], length[3]],
        &[time[1], time[2], time[3], time[0]][..],
        &id[1..],
        body,
        &back.to_be_bytes(),
    ]
    .concat()
}

/// Audio and video tags with bodies of any bytes.
fn tags(random: &mut Random, count: u32, form: impl Fn(u8) -> Form) -> Vec<Vec<u8>> {
    let mut tag_at = |index| {
        let kind = if index % 3 == 0 { 9 } else { 8 };
        let length = random.below(2_000) + 1;
        tag(kind, index * 20, &random.bytes(length), form(kind))
    };
    (0..count).map(&mut tag_at).collect()
}

#[derive(Debug, Default, PartialEq)]
struct Found {
    files: usize,
    /// Timestamps and bodies.
    tags: Vec<(u32, Vec<u8>)>,
    lost: usize,
    is_cut: bool,
}

impl Found {
    fn add(&mut self, parsed: Parsed<'_>) -> Result<(), Infallible> {
        match parsed {
            Parsed::FileHeader => self.files += 1,
            Parsed::Tag {
                tag,
                buffer,
                offset,
            } => {
                let map = buffer.map_readable().unwrap();
                assert_eq!(&map[offset..offset + tag.body.len()], tag.body);
                self.tags.push((tag.timestamp, tag.body.to_vec()));
            }
            Parsed::UnknownTag(_) => {}
            Parsed::Lost(count) => self.lost += count,
            Parsed::CutShort => self.is_cut = true,
        }
        Ok(())
    }
}

fn parse(bytes: &[u8], mut piece: impl FnMut() -> usize) -> Found {
    gst::init().unwrap();
    let mut parser = FlvParser::default();
    let mut found = Found::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
        let buffer = gst::Buffer::from_slice(now.to_vec());
        let Ok(()) = parser.push(buffer, |parsed| found.add(parsed));
        rest = later;
    }
    let Ok(()) = parser.finish(|parsed| found.add(parsed));
    found
}

fn bodies(tags: &[Vec<u8>]) -> Vec<Vec<u8>> {
    tags.iter()
        .map(|tag| tag[11..tag.len() - 4].to_vec())
        .collect()
}

fn found_bodies(found: &Found) -> Vec<Vec<u8>> {
    found.tags.iter().map(|(_, body)| body.clone()).collect()
}

#[test]
fn any_split_has_the_same_tags() {
    let mut random = Random(7);
    for round in 0..40 {
        let tags = tags(&mut random, 30, |_| USUAL);
        let mut bytes = [FILE_HEADER, &tags.concat()].concat();
        if round % 2 == 1 {
            let at = random.below(bytes.len());
            let length = random.below(3_000);
            bytes.splice(at..at, random.bytes(length));
        }
        let whole = parse(&bytes, || bytes.len());
        for limit in [1, 10, 100, 5_000] {
            assert_eq!(parse(&bytes, || 1 + random.below(limit)), whole);
        }
    }
}

#[test]
fn all_whole_tags_of_two_files_are_found_wherever_the_first_is_cut() {
    let mut random = Random(3);
    let first = tags(&mut random, 5, |_| USUAL);
    let second = tags(&mut random, 6, |_| USUAL);
    let start = [FILE_HEADER, &first[..4].concat()].concat();
    let last = &first[4];
    for cut in (0..last.len())
        .step_by(13)
        .chain(last.len() - 6..last.len())
    {
        let bytes = [&start, &last[..cut], FILE_HEADER, &second.concat()].concat();
        for piece in [usize::MAX, 100] {
            let found = parse(&bytes, || piece);
            let mut expected = [bodies(&first[..4]), bodies(&second)].concat();
            // All but the back pointer is there.
            if cut >= last.len() - 4 {
                expected.insert(4, bodies(&first)[4].clone());
            }
            assert_eq!(found_bodies(&found), expected, "cut at {cut}");
            assert_eq!(found.files, 2, "cut at {cut}");
        }
    }
}

#[test]
fn the_second_file_is_found_in_a_claim_beyond_the_end() {
    let mut random = Random(5);
    let first = tags(&mut random, 3, |_| USUAL);
    let second = tags(&mut random, 4, |_| USUAL);
    let claim = &tag(9, 60, &[7; 100_000], USUAL)[..500];
    let bytes = [
        FILE_HEADER,
        &first.concat(),
        claim,
        FILE_HEADER,
        &second.concat(),
    ]
    .concat();
    for piece in [usize::MAX, 100] {
        let found = parse(&bytes, || piece);
        let expected = [bodies(&first), bodies(&second)].concat();
        assert_eq!(found_bodies(&found), expected);
        assert_eq!((found.files, found.lost, found.is_cut), (2, 500, false));
    }
}

#[test]
fn a_candidate_that_needs_more_than_is_left_is_given_up_at_the_end() {
    let mut random = Random(9);
    let tags = tags(&mut random, 4, |_| USUAL);
    let candidate = &tag(8, 0, &[0; 500_000], USUAL)[..20];
    let bytes = [FILE_HEADER, &[0x55; 50], candidate, &tags.concat()].concat();
    for piece in [usize::MAX, 100] {
        let found = parse(&bytes, || piece);
        assert_eq!(found_bodies(&found), bodies(&tags));
        assert_eq!((found.lost, found.is_cut), (70, false));
    }
}

#[test]
fn odd_stream_ids_and_back_pointers_lose_nothing() {
    let mut random = Random(11);
    let backs = [0, 4, -11_i32 as u32, 0x0100_0000];
    for stream_id in [0, 1, 77, 0x0012_3456] {
        for back in backs {
            let tags = tags(&mut random, 12, |_| Form { stream_id, back });
            let bytes = [FILE_HEADER, &tags.concat()].concat();
            for piece in [usize::MAX, 100] {
                let found = parse(&bytes, || piece);
                assert_eq!(found_bodies(&found), bodies(&tags), "{stream_id} {back}");
                assert_eq!((found.lost, found.is_cut), (0, false));
            }
        }
    }
    // An id for each kind.
    let form = |kind| Form {
        stream_id: u32::from(kind),
        back: 4,
    };
    let tags = tags(&mut random, 12, form);
    let bytes = [FILE_HEADER, &tags.concat()].concat();
    assert_eq!(found_bodies(&parse(&bytes, || 100)), bodies(&tags));
}

#[test]
fn odd_tags_are_found_again_after_other_bytes() {
    let mut random = Random(13);
    for form in [
        USUAL,
        Form {
            stream_id: 1,
            back: 4,
        },
        Form {
            stream_id: 0x0012_3456,
            back: 0,
        },
        Form {
            stream_id: 0x0012_3456,
            back: 4,
        },
    ] {
        let tags = tags(&mut random, 12, |_| form);
        let noise = [0x55; 333];
        let bytes = [
            FILE_HEADER,
            &tags[..4].concat(),
            &noise,
            &tags[4..].concat(),
        ]
        .concat();
        for piece in [usize::MAX, 100] {
            let found = parse(&bytes, || piece);
            let mut expected = bodies(&tags);
            if form.back != 0 {
                // Nothing proves the tag before the noise.
                expected.remove(3);
            }
            assert_eq!(found_bodies(&found), expected, "{form:?}");
        }
    }
}

#[test]
fn a_tag_in_one_buffer_does_not_wait_for_its_back_pointer() {
    gst::init().unwrap();
    let whole = tag(8, 5, b"body", USUAL);
    let mut parser = FlvParser::default();
    let mut found = Found::default();
    for piece in [FILE_HEADER, &whole[..whole.len() - 4]] {
        let buffer = gst::Buffer::from_slice(piece.to_vec());
        let Ok(()) = parser.push(buffer, |parsed| found.add(parsed));
    }
    assert_eq!(found.tags.len(), 1);
}

#[test]
fn a_tag_before_missing_bytes_is_kept_and_a_part_of_one_is_lost() {
    gst::init().unwrap();
    let whole = tag(8, 5, b"body", USUAL);
    let mut parser = FlvParser::default();
    let mut found = Found::default();
    let bytes = [FILE_HEADER, &whole, &whole[..9]].concat();
    let buffer = gst::Buffer::from_slice(bytes);
    let Ok(()) = parser.push(buffer, |parsed| found.add(parsed));
    let Ok(()) = parser.handle_discontinuity(|parsed| found.add(parsed));
    let buffer = gst::Buffer::from_slice(whole);
    let Ok(()) = parser.push(buffer, |parsed| found.add(parsed));
    assert_eq!((found.tags.len(), found.lost, found.is_cut), (2, 9, false));
}

/// Bytes that make a search as slow as it gets.
fn hostile_bytes(length: usize) -> Vec<(&'static str, Vec<u8>)> {
    let mut random = Random(17);
    let repeat = |unit: &[u8]| unit.iter().copied().cycle().take(length).collect();
    let small = tag(8, 0, b"x", USUAL);
    let claim = |kind, size: u32| {
        let size = size.to_be_bytes();
        [kind, size[1], size[2], size[3], 0, 0, 0, 0, 0, 0, 0]
    };
    vec![
        ("random", random.bytes(length)),
        ("zeros", vec![0; length]),
        ("eights", vec![8; length]),
        ("file headers", repeat(b"FLV\x01\x05\0\0\0\x09")),
        ("signatures", repeat(b"FLV")),
        ("claims of 1 MiB", repeat(&claim(9, 1 << 20))),
        ("claims of 900 kB", repeat(&[9, 0x0D, 0xBB, 0xA0])),
        ("claims of 16 MiB", repeat(&claim(9, 0xFF_FFFF))),
        (
            "tags and claims of 1 MiB",
            repeat(&[&small[..], &[0x55], &claim(9, 1 << 20)].concat()),
        ),
        (
            "tags and claims of 3 MiB",
            repeat(&[&small[..], &claim(9, 3 << 20)].concat()),
        ),
        (
            "tags and unknown claims",
            repeat(&[&small[..], &claim(0x20, 3 << 20)].concat()),
        ),
    ]
}

/// Returns the CPU time of this thread, which other work of the machine does not count in.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .unwrap()
        .into()
}

#[test]
fn any_bytes_are_parsed_at_20_megabytes_a_second() {
    gst::init().unwrap();
    let length = 8 << 20;
    for (name, bytes) in hostile_bytes(length) {
        for piece in [4 << 10, 256 << 10] {
            // Other work of the machine slows memory down.
            let mut speed = 0.0_f64;
            for _ in 0..3 {
                let start = cpu_time();
                let mut parser = FlvParser::default();
                let mut lost = 0;
                let mut each = |parsed: Parsed<'_>| -> Result<(), Infallible> {
                    lost += usize::from(matches!(parsed, Parsed::Lost(_)));
                    Ok(())
                };
                for piece in bytes.chunks(piece) {
                    let buffer = gst::Buffer::from_slice(piece.to_vec());
                    let Ok(()) = parser.push(buffer, &mut each);
                }
                let Ok(()) = parser.finish(&mut each);
                speed = speed.max(length as f64 / (cpu_time() - start).as_secs_f64() / 1e6);
            }
            assert!(speed > 20.0, "{name} in pieces of {piece}: {speed:.1} MB/s");
        }
    }
}
