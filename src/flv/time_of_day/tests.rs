// SPDX-License-Identifier: MPL-2.0

use proptest::prelude::*;

use super::*;
use crate::amf0::{SET_DATA_FRAME, Value, write_all};
use crate::flv::{CodedPicture, PictureCodec};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// 2024-05-31T12:26:03.591Z.
const STATED: u64 = 1_717_158_363_591_000_000;

/// Messages of OBS, written from the format: times at 12:26:03.591, .600, .612 and .640, and counters.
const TIMES: &[u8] = b"\x0a\xec\xff\xe7\x52\x72\x4e\x2f\xa6\x2f\xd1\x9c\xd6\x1a\x93\xb5\x03\
    \x01\x012024-05-31T12:26:03.591Z\0\x01\x022024-05-31T12:26:03.600Z\0\
    \x01\x032024-05-31T12:26:03.612Z\0\x01\x042024-05-31T12:26:03.640Z\0";
const SESSION: &[u8] = b"\xca\x60\xe7\x1c\x6a\x8b\x43\x88\xa3\x77\x15\x1d\xf7\xbf\x8a\xc2\x00\
    \x01\x042024-05-31T12:26:03.640Z\0\x03\
    \x01\0\0\0\x78\x02\0\0\0\x03\x03\0\0\x01\x00\x04\0\0\0\x77";
const RENDITION: &[u8] = b"\xf1\xfb\xc1\xd5\x10\x1e\x4f\xb5\xa6\x1e\xb8\xce\x3c\x07\xb8\xc0\x00\
    \x01\x042024-05-31T12:26:03.640Z\0\x02\x01\0\0\0\x78\x02\0\0\0\x05\x03\0\0\0\x73";

const SLICE: &[u8] = &[0x65, 0x88, 0x84];

fn expected() -> BroadcastMetrics {
    let millis = |millis: u64| Some(STATED + millis * 1_000_000);
    BroadcastMetrics {
        composed: millis(0),
        encode_requested: millis(9),
        encoded: millis(21),
        interleaved: millis(49),
        session: Some(SessionFrames {
            counted: millis(49),
            rendered: 120,
            lagged: 3,
            dropped: 256,
            output: 119,
        }),
        rendition: Some(RenditionFrames {
            counted: millis(49),
            input: 120,
            skipped: 5,
            output: 115,
        }),
    }
}

/// An SEI NAL unit with this header and these messages of user data.
fn sei(header: &[u8], messages: &[&[u8]]) -> Vec<u8> {
    let mut nal = header.to_vec();
    let mut zeros = 0;
    let mut put = |byte: u8| {
        if zeros >= 2 && byte <= 3 {
            nal.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        nal.push(byte);
    };
    for message in messages {
        put(5);
        (0..message.len() / 255).for_each(|_| put(255));
        put((message.len() % 255) as u8);
        message.iter().for_each(|byte| put(*byte));
    }
    put(0x80);
    nal
}

fn with_lengths(nals: &[&[u8]]) -> Vec<u8> {
    let unit = |nal: &&[u8]| [&(nal.len() as u32).to_be_bytes(), *nal].concat();
    nals.iter().flat_map(unit).collect()
}

fn find(codec: PictureCodec, data: &[u8]) -> Option<BroadcastMetrics> {
    BroadcastMetrics::find(&CodedPicture {
        codec,
        nal_length_size: 4,
        data,
    })
}

fn metadata_obu(kind: u8, message: &[u8]) -> Vec<u8> {
    let size = message.len() + 2;
    let size = [size as u8 | 0x80, (size >> 7) as u8];
    [&[0x2A], &size[..], &[kind], message, &[0x80]].concat()
}

#[test]
fn metrics_are_read_from_every_codec() {
    let single = [TIMES, SESSION, RENDITION].map(|message| sei(&[6], &[message]));
    let avc = with_lengths(&[&single[0], &single[1], &single[2], SLICE]);
    assert_eq!(find(PictureCodec::Avc, &avc), Some(expected()));
    // The counter of 256 dropped frames has bytes that would be a start code.
    assert!(single[1].windows(4).any(|bytes| bytes == [0, 0, 3, 1]));

    let all = sei(&[6], &[b"other", TIMES, SESSION, RENDITION]);
    let annex_b = [&[0, 0, 0, 1][..], &all, &[0, 0, 1], SLICE].concat();
    assert_eq!(find(PictureCodec::Avc, &annex_b), Some(expected()));

    let slice = [0x26, 1, 0xAF];
    for header in [[39 << 1, 1], [40 << 1, 1]] {
        let all = sei(&header, &[TIMES, SESSION, RENDITION]);
        let hevc = with_lengths(&[&slice, &all]);
        assert_eq!(find(PictureCodec::Hevc, &hevc), Some(expected()));
        assert_eq!(find(PictureCodec::Avc, &hevc), None);
    }
    let all = sei(&[0, 24 << 3 | 1], &[TIMES, SESSION, RENDITION]);
    assert_eq!(
        find(PictureCodec::Vvc, &with_lengths(&[&all])),
        Some(expected())
    );

    let frame = [0x32, 3, 0x10, 1, 2];
    let av1 = [TIMES, SESSION, RENDITION].map(|message| metadata_obu(6, message));
    let av1 = [&[0x12, 0][..], &frame, &av1.concat()].concat();
    assert_eq!(find(PictureCodec::Av1, &av1), Some(expected()));
    // Metadata of the standard, and a codec without any.
    assert_eq!(find(PictureCodec::Av1, &metadata_obu(4, TIMES)), None);
    assert_eq!(find(PictureCodec::Vp9, TIMES), None);
}

#[test]
fn first_message_of_a_kind_counts() {
    let later: Vec<u8> = TIMES
        .iter()
        .map(|b| if *b == b'2' { b'1' } else { *b })
        .collect();
    let data = with_lengths(&[&sei(&[6], &[TIMES, &later]), &sei(&[6], &[&later]), SLICE]);
    let found = find(PictureCodec::Avc, &data).unwrap();
    assert_eq!((found.composed, found.session), (Some(STATED), None));
}

#[test]
fn message_that_is_cut_short_counts_up_to_there() {
    let whole = expected();
    for length in 0..TIMES.len() {
        let found = find(PictureCodec::Av1, &metadata_obu(31, &TIMES[..length]));
        let found = found.unwrap_or_default();
        assert!(found.composed.is_none() || found.composed == whole.composed);
        // A time of 27 bytes after the UUID and the count.
        assert_eq!(found.composed.is_some(), length >= 17 + 27, "{length}");
        assert_eq!(found.interleaved, None);
    }
    // The size of the SEI message reaches beyond its NAL unit.
    let nal = sei(&[6], &[TIMES]);
    let data = with_lengths(&[&nal[..nal.len() - 9], SLICE]);
    assert_eq!(find(PictureCodec::Avc, &data), None);
}

#[test]
fn other_forms_of_time_are_read_or_skipped() {
    let millis = (STATED / 1_000_000).to_be_bytes();
    let times =
        |parts: &[&[u8]]| [&TIMES[..16], &[parts.len() as u8 - 1], &parts.concat()].concat();
    let delta = [&[3, 1][..], &[9; 8]].concat();
    let unknown_event = [&[2, 9][..], &millis].concat();
    let since_epoch = [&[2, 4][..], &millis].concat();
    let message = times(&[&delta, &unknown_event, &since_epoch]);
    let found = find(PictureCodec::Av1, &metadata_obu(6, &message)).unwrap();
    assert_eq!(found.captured(), Some(STATED));
    assert_eq!(found.composed, None);
    // Nothing is known of what follows an unknown type.
    let unknown_type = [&[7, 1][..], &millis].concat();
    let message = times(&[&unknown_type, &since_epoch]);
    assert_eq!(find(PictureCodec::Av1, &metadata_obu(6, &message)), None);
    let nonsense: [&[u8]; 3] = [
        b"\x01\x012024-05-31T12:26:03.591Z and so on\0",
        b"\x01\x01\xFF\xFF\xFF\xFF\0",
        b"\x02\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
    ];
    for part in nonsense {
        assert_eq!(
            find(PictureCodec::Av1, &metadata_obu(6, &times(&[part]))),
            None
        );
    }
}

#[test]
fn thousands_of_messages_are_bounded() {
    let empty = sei(&[6], &[&[][..]; 100]);
    let last = sei(&[6], &[TIMES]);
    let mut nals = vec![&empty[..]; 5];
    nals.push(&last);
    assert!(find(PictureCodec::Avc, &with_lengths(&nals)).is_some());
    nals.splice(0..0, vec![&empty[..]; 5000]);
    assert_eq!(find(PictureCodec::Avc, &with_lengths(&nals)), None);
    let mut nals = vec![SLICE; 5000];
    nals.push(&last);
    assert_eq!(find(PictureCodec::Avc, &with_lengths(&nals)), None);
}

#[test]
fn times_of_rfc_3339_are_read() {
    let nanos = |text| StatedTime::parse(text).map(StatedTime::nanos);
    for text in [
        "2024-05-31T12:26:03.591Z",
        "2024-05-31t12:26:03.591z",
        " 2024-05-31 12:26:03,591000000000 ",
        "2024-05-31T12:26:03.5910000000000000000000000000000000000009Z",
        "2024-05-31T14:56:03.591+02:30",
        "2024-05-30T23:26:03.591-1300",
    ] {
        assert_eq!(nanos(text), Some(STATED), "{text}");
    }
    let day = |text| nanos(text).map(|nanos| (nanos / SECOND / 86_400, nanos / SECOND % 86_400));
    assert_eq!(day("2000-01-01T00:00:00Z"), Some((10_957, 0)));
    assert_eq!(day("2024-02-29T23:59:59Z"), Some((19_782, 86_399)));
    assert_eq!(day("2016-12-31T23:59:60Z"), Some((17_167, 0)));
    assert_eq!(day("2100-03-01T00:00:00Z"), Some((47_541, 0)));
    for text in [
        "",
        "2024-05-31",
        "2024-05-31T12:26",
        "2024-13-31T12:26:03Z",
        "2024-04-31T12:26:03Z",
        "2023-02-29T12:26:03Z",
        "2100-02-29T12:26:03Z",
        "2024-05-31T24:26:03Z",
        "2024-05-31T12:60:03Z",
        "2024-05-31T12:26:61Z",
        "2024-05-31T12:26:03.Z",
        "2024-05-31T12:26:03+24:00",
        "2024-05-31T12:26:03 UTC",
        "1970-01-05T12:26:03Z",
        "9999-05-31T12:26:03Z",
        "2024/05-31T12:26:03Z",
        "\u{662}024-05-31T12:26:03Z",
    ] {
        assert_eq!(nanos(text), None, "{text}");
    }
}

fn script(values: &[Value]) -> Option<u64> {
    let mut body = Vec::new();
    write_all(&mut body, values);
    of_script(&body).map(StatedTime::nanos)
}

fn object(properties: &[(&str, Value)]) -> Value {
    let properties = properties.iter();
    let property = |(name, value): &(&str, Value)| ((*name).to_owned(), value.clone());
    Value::Object(properties.map(property).collect())
}

#[test]
fn times_of_script_data_are_read() {
    let on_fi = |date: &str, time: &str| {
        let texts = [("tc", "10:11:12:13"), ("st", time), ("sd", date)];
        let properties = texts.map(|(name, text)| (name, text.into()));
        script(&["onFI".into(), object(&properties)])
    };
    assert_eq!(on_fi("31-05-2024", "12:26:03.591"), Some(STATED));
    assert_eq!(on_fi("31-05-24", "12:26:03.591"), Some(STATED));
    assert_eq!(on_fi("31/05/2024", "14:26:03.591+02:00"), Some(STATED));
    assert_eq!(on_fi("2024-05-31", "12:26:03.591"), Some(STATED));
    for (date, time) in [
        ("05-31-2024", "12:26:03.591"),
        ("31-05-2024 ", "12:26:03:15"),
        ("31-05-2024 12:00:00", "12:26:03.591"),
        ("00-05-2024", "12:26:03"),
        ("29-02-2023", "12:26:03"),
        ("", ""),
    ] {
        assert_eq!(on_fi(date, time), None, "{date} {time}");
    }
    let millis = (STATED / 1_000_000) as f64;
    let date = Value::Date {
        millis,
        timezone: 60,
    };
    let text = Value::from("2024-05-31T14:26:03.591+02:00");
    for values in [
        vec!["onTextData".into(), object(&[("text", text.clone())])],
        vec![SET_DATA_FRAME.into(), "onTextData".into(), text.clone()],
        vec![
            "onTextData".into(),
            object(&[("a", Value::Null), ("b", date.clone())]),
        ],
        vec!["onFI".into(), 1.0.into(), date],
        vec!["onTextData".into(), object(&[("UTC", millis.into())])],
    ] {
        assert_eq!(script(&values), Some(STATED), "{values:?}");
    }
    for values in [
        vec!["onTextData".into(), object(&[("text", "hello".into())])],
        vec!["onTextData".into(), object(&[("size", millis.into())])],
        vec!["onTextData".into(), object(&[("utc", 12.0.into())])],
        vec!["onTextData".into(), object(&[("utc", f64::NAN.into())])],
        vec!["onFI".into(), object(&[("st", "12:26:03.591".into())])],
        vec!["onCuePoint".into(), text],
        vec!["onFI".into()],
    ] {
        assert_eq!(script(&values), None, "{values:?}");
    }
}

#[test]
fn local_times_are_brought_to_utc_by_their_arrival() {
    let local = |text| StatedTime::parse(text).unwrap();
    let stated = local("2024-05-31T12:26:03.591");
    // Arrivals within a minute of a zone's time, and the time in UTC.
    for (arrival, utc) in [
        (STATED + 2 * SECOND, STATED),
        (STATED - SECOND / 2, STATED),
        (STATED + 2 * HOUR + SECOND, STATED + 2 * HOUR),
        (
            STATED - 5 * HOUR - 30 * MINUTE - SECOND,
            STATED - 5 * HOUR - 30 * MINUTE,
        ),
        (
            STATED + 11 * HOUR + 45 * MINUTE,
            STATED + 11 * HOUR + 45 * MINUTE,
        ),
        // The date of yesterday just after midnight.
        (STATED + 24 * HOUR + SECOND, STATED + 24 * HOUR),
        // A clock that is wrong, or media of another day.
        (STATED + 7 * MINUTE, STATED),
        (STATED + 5 * 24 * HOUR, STATED),
        (0, STATED),
        (u64::MAX, STATED),
    ] {
        assert_eq!(LocalZone::default().utc(stated, arrival), utc, "{arrival}");
    }
    // A time that is late by more keeps the zone that was found.
    let mut zone = LocalZone::default();
    zone.utc(stated, STATED - 2 * HOUR);
    let next = local("2024-05-31T12:27:03.591");
    assert_eq!(
        zone.utc(next, STATED - 2 * HOUR + 5 * MINUTE),
        STATED - 2 * HOUR + MINUTE
    );
    let in_utc = local("2024-05-31T12:26:03.591Z");
    assert_eq!(zone.utc(in_utc, STATED + 2 * HOUR), STATED);
}

proptest! {
    #![proptest_config(properties::cases(500))]

    #[test]
    fn any_bytes_are_read(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        position in any::<usize>(),
        text in ".{0,40}",
    ) {
        let codecs = [PictureCodec::Avc, PictureCodec::Hevc, PictureCodec::Vvc, PictureCodec::Av1];
        // Whole messages with some other bytes in them.
        let all = sei(&[6], &[TIMES, SESSION, RENDITION]);
        let obus = [TIMES, SESSION, RENDITION].map(|message| metadata_obu(6, message)).concat();
        let spoilt = |data: &[u8]| {
            let position = position % data.len();
            let end = data.len().min(position + bytes.len() % 4);
            [&data[..position], &bytes, &data[end..]].concat()
        };
        for codec in codecs {
            find(codec, &bytes);
            find(codec, &spoilt(&with_lengths(&[&all])));
            find(codec, &spoilt(&obus));
        }
        of_script(&bytes);
        let _ = StatedTime::parse(&text);
        let mut values = Vec::new();
        write_all(&mut values, &["onFI".into(), object(&[("sd", text[..].into()), ("st", text[..].into())])]);
        of_script(&spoilt(&values));
    }

    /// Any date is as many days from the epoch as by counting.
    #[test]
    fn days_follow_each_other(days in 10_957_u64..84_006) {
        let (mut left, mut year, mut month) = (days, 1970, 1);
        let is_multiple = |year: u64, of| year.is_multiple_of(of);
        let leap = |year| is_multiple(year, 4) && (!is_multiple(year, 100) || is_multiple(year, 400));
        let length = |year, month| match month {
            2 => 28 + u64::from(leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        while left >= length(year, month) {
            left -= length(year, month);
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        }
        let text = format!("{year:04}-{month:02}-{:02}T00:00:01Z", left + 1);
        let parsed = StatedTime::parse(&text).map(StatedTime::nanos);
        prop_assert_eq!(parsed, Some((days * 86_400 + 1) * SECOND));
    }
}
