// SPDX-License-Identifier: MPL-2.0

//! Any bytes as the body of a tag. The first byte selects the kind; the next two are a timestamp
//! and the free bytes before the body.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtmp2server_core::flv::{Content, FRONT_LENGTH, TRAILER_LENGTH, Tag, TagInfo, TagKind};
use rtmp2server_core::memory::Memory;
use rtmp2server_core::meter;

/// Composition times have 24 bits of milliseconds, and up to 999,999 ns more.
const MAX_COMPOSITION_TIME: i64 = (1 << 23) * 1_000_000 + 999_999;

fn check_info(kind: TagKind, info: &TagInfo) {
    assert!(info.composition_time.abs() <= MAX_COMPOSITION_TIME);
    let possible = match kind {
        TagKind::Audio => !matches!(
            info.content,
            Content::Keyframe | Content::OnMetaData | Content::Script | Content::Command
        ),
        TagKind::Video => !matches!(info.content, Content::OnMetaData | Content::Script),
        TagKind::Script => matches!(info.content, Content::OnMetaData | Content::Script),
    };
    assert!(possible, "{:?} in {kind:?}", info.content);
}

fuzz_target!(|data: &[u8]| {
    let [kind, time, room, body @ ..] = data else {
        return;
    };
    let kind = match kind % 3 {
        0 => TagKind::Audio,
        1 => TagKind::Video,
        _ => TagKind::Script,
    };
    let timestamp = u32::from(*time) * 0x0101_0101;
    let start = usize::from(*room % 32);

    let (info, held) = meter::peak(|| TagInfo::of(kind, body));
    assert_eq!(held, 0, "parsing a header takes no memory");

    let mut bytes = vec![0; start];
    bytes.extend_from_slice(body);
    let tag = Tag::new(kind, timestamp, Memory::from_vec(bytes, start));
    let (tag, info) = match (tag, info) {
        (Ok(tag), Ok(info)) => (tag, info),
        (tag, info) => {
            assert_eq!(tag.err(), info.err());
            return;
        }
    };
    assert_eq!(tag.info, info);
    assert_eq!(tag.body(), body);
    assert!(tag.memory() >= body.len());
    check_info(kind, &info);

    let framed = tag.into_bytes(timestamp);
    assert_eq!(framed.len(), FRONT_LENGTH + body.len() + TRAILER_LENGTH);
    assert_eq!(framed[0], kind as u8);
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
    assert_eq!(number(&framed[1..4]), body.len());
    assert_eq!(
        number(&framed[4..7]) | number(&framed[7..8]) << 24,
        timestamp as usize
    );
    assert_eq!(framed[8..11], [0; 3]);
    assert_eq!(framed[FRONT_LENGTH..][..body.len()], *body);
    assert_eq!(
        number(&framed[FRONT_LENGTH + body.len()..]),
        FRONT_LENGTH + body.len()
    );
});
