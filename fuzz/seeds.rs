// SPDX-License-Identifier: MPL-2.0

//! Writes the corpus in fuzz/corpus: a few small inputs for each target that reach its parts.
//!
//! ```sh
//! cargo run --release --manifest-path fuzz/Cargo.toml --example seeds
//! ```

use std::io;
use std::path::Path;

use rtmp2server_core::amf0::{Value, write_all};
use rtmp2server_core::rtmp::message::type_id;

fn main() -> io::Result<()> {
    amf0()?;
    chunk_reader()?;
    session()?;
    flv()?;
    feed()
}

fn seed(target: &str, name: &str, input: &[u8]) -> io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join(name), input)
}

fn object(properties: &[(&str, Value)]) -> Vec<(String, Value)> {
    let owned = |(name, value): &(&str, Value)| ((*name).to_owned(), value.clone());
    properties.iter().map(owned).collect()
}

fn values(values: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_all(&mut bytes, values);
    bytes
}

// AMF

fn amf0() -> io::Result<()> {
    let all = [
        Value::Number(1.5),
        Value::Boolean(true),
        "name".into(),
        Value::Object(object(&[("width", 320.0.into()), ("", Value::Null)])),
        Value::Null,
        Value::Undefined,
        Value::Reference(1),
        Value::EcmaArray(object(&[("duration", 0.0.into()), ("encoder", "x".into())])),
        Value::StrictArray(vec!["av01".into(), "hvc1".into()]),
        Value::Date {
            millis: 1e12,
            timezone: 60,
        },
        Value::Unsupported,
        Value::XmlDocument("<a/>".into()),
        Value::TypedObject {
            class: "C".into(),
            properties: object(&[("p", Value::Null)]),
        },
    ];
    seed("amf0", "every-marker", &values(&all))?;
    for (index, value) in all.iter().enumerate() {
        seed(
            "amf0",
            &format!("marker-{index:02}"),
            &values(std::slice::from_ref(value)),
        )?;
    }
    seed("amf0", "long-string", &[0x0C, 0, 0, 0, 2, b'h', b'i'])?;
    seed("amf0", "nested", &[0x0A, 0, 0, 0, 1].repeat(40))?;
    seed(
        "amf0",
        "many",
        &[&[0x0A, 0, 0, 5, 0][..], &[5; 1280]].concat(),
    )?;
    // Some encoders omit the end marker.
    seed("amf0", "open-object", b"\x03\0\x01a\x05")?;
    // AMF3: an array with an associative and a dense part, objects with traits, references.
    seed(
        "amf0",
        "amf3-array",
        b"\x11\x09\x05\x03a\x04\x05\x01\x06\x03b\x02",
    )?;
    seed(
        "amf0",
        "amf3-object",
        b"\x11\x0a\x0b\x01\x03x\x06\x03y\x07z\x05\0\0\0\0\0\0\0\0\x01",
    )?;
    seed(
        "amf0",
        "amf3-sealed",
        b"\x11\x0a\x23\x03C\x03p\x03q\x04\x81\x00\x06\x02",
    )?;
    seed(
        "amf0",
        "amf3-references",
        b"\x11\x09\x07\x01\x06\x09abcd\x06\x00\x06\x00",
    )?;
    seed(
        "amf0",
        "amf3-bytes",
        b"\x11\x0c\x07\x01\x02\x03\x11\x08\x01\0\0\0\0\0\0\0\0",
    )?;
    seed(
        "amf0",
        "amf3-integers",
        b"\x11\x04\xFF\xFF\xFF\xFF\x11\x04\x80\x80\x01\x11\x03\x11\x07\x05hi",
    )
}

// Chunks

/// Returns the basic header of a chunk stream id in the form with `extra` bytes.
fn basic(fmt: u8, csid: u32, extra: usize) -> Vec<u8> {
    match extra {
        0 => vec![fmt << 6 | csid as u8],
        1 => vec![fmt << 6, (csid - 64) as u8],
        _ => [&[fmt << 6 | 1][..], &((csid - 64) as u16).to_le_bytes()].concat(),
    }
}

fn u24(number: u32) -> [u8; 3] {
    let [_, a, b, c] = number.to_be_bytes();
    [a, b, c]
}

/// Returns a chunk of type 0, with an extended timestamp where it needs one.
fn first(basic: Vec<u8>, time: u32, length: usize, type_id: u8, msid: u32, body: &[u8]) -> Vec<u8> {
    let extended = time >= 0xFF_FFFF;
    let mut chunk = basic;
    chunk.extend(u24(if extended { 0xFF_FFFF } else { time }));
    chunk.extend(u24(length as u32));
    chunk.push(type_id);
    chunk.extend(msid.to_le_bytes());
    if extended {
        chunk.extend(time.to_be_bytes());
    }
    chunk.extend(body);
    chunk
}

/// Returns a message on a small chunk stream id, in chunks of `chunk_size`.
fn message(
    csid: u32,
    time: u32,
    type_id: u8,
    msid: u32,
    body: &[u8],
    chunk_size: usize,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chunks = body.chunks(chunk_size);
    let start = chunks.next().unwrap_or_default();
    bytes.extend(first(
        basic(0, csid, 0),
        time,
        body.len(),
        type_id,
        msid,
        start,
    ));
    for chunk in chunks {
        bytes.extend(basic(3, csid, 0));
        if time >= 0xFF_FFFF {
            bytes.extend(time.to_be_bytes());
        }
        bytes.extend(chunk);
    }
    bytes
}

fn control(type_id: u8, number: u32) -> Vec<u8> {
    message(2, 0, type_id, 0, &number.to_be_bytes(), 128)
}

fn chunk_reader() -> io::Result<()> {
    let write = |name: &str, parts: &[Vec<u8>]| {
        seed("chunk_reader", name, &[&[7][..], &parts.concat()].concat())
    };
    let body = [9; 300];
    write("one-message", &[message(6, 40, 9, 1, &body, 128)])?;
    write("extended", &[message(6, 0x0100_0000, 9, 1, &body, 128)])?;
    write(
        "basic-headers",
        &[
            first(basic(0, 63, 0), 1, 2, 8, 1, &[1, 2]),
            first(basic(0, 64, 1), 2, 2, 8, 1, &[1, 2]),
            first(basic(0, 65_599, 2), 3, 2, 8, 1, &[1, 2]),
        ],
    )?;
    // Types 1, 2 and 3 start messages, the last one with an extended timestamp delta.
    write(
        "every-type",
        &[
            first(basic(0, 4, 0), 10, 2, 8, 1, &[1, 2]),
            [&basic(1, 4, 0)[..], &u24(20), &u24(3), &[8], &[1, 2, 3]].concat(),
            [&basic(2, 4, 0)[..], &u24(30), &[4, 5, 6]].concat(),
            [&basic(3, 4, 0)[..], &[7, 8, 9]].concat(),
            [
                &basic(2, 4, 0)[..],
                &u24(0xFF_FFFF),
                &[0xFF, 0xFF, 0xFF, 0xD8],
                &[1, 1, 1],
            ]
            .concat(),
            [&basic(3, 4, 0)[..], &[0xFF, 0xFF, 0xFF, 0xD8], &[2, 2, 2]].concat(),
        ],
    )?;
    // Continuations of a message with an extended timestamp that do not repeat it.
    write(
        "not-repeated",
        &[
            first(basic(0, 4, 0), 0x0200_0000, 200, 8, 1, &[1; 128]),
            [&basic(3, 4, 0)[..], &[2; 72]].concat(),
        ],
    )?;
    write(
        "interleaved",
        &[
            first(basic(0, 4, 0), 5, 200, 8, 1, &[1; 128]),
            first(basic(0, 6, 0), 5, 200, 9, 1, &[2; 128]),
            control(type_id::WINDOW_ACK_SIZE, 2_500_000),
            [&basic(3, 4, 0)[..], &[1; 72]].concat(),
            [&basic(3, 6, 0)[..], &[2; 72]].concat(),
        ],
    )?;
    write(
        "abort",
        &[
            first(basic(0, 4, 0), 5, 200, 8, 1, &[1; 128]),
            control(type_id::ABORT, 4),
            message(4, 6, 8, 1, &[3; 20], 128),
        ],
    )?;
    write(
        "chunk-sizes",
        &[
            control(type_id::SET_CHUNK_SIZE, 1),
            message(6, 0, 9, 1, &[1; 5], 1),
            message(
                2,
                0,
                type_id::SET_CHUNK_SIZE,
                0,
                &60_000_u32.to_be_bytes(),
                1,
            ),
            message(6, 40, 9, 1, &body, 60_000),
            control(type_id::SET_CHUNK_SIZE, 0x7FFF_FFFF),
            message(6, 80, 9, 1, &body, 60_000),
        ],
    )?;
    write(
        "overtaken",
        &[
            first(basic(0, 4, 0), 5, 200, 8, 1, &[1; 128]),
            message(4, 6, 9, 1, &[3; 20], 128),
        ],
    )?;
    write("chunk-size-zero", &[control(type_id::SET_CHUNK_SIZE, 0)])?;
    write(
        "empty",
        &[message(4, 0, 8, 1, &[], 128), message(4, 0, 8, 1, &[], 128)],
    )?;
    write(
        "claims-16-mb",
        &[first(basic(0, 4, 0), 0, 0xFF_FFFF, 9, 1, &[1])],
    )?;
    let lanes = (3..70).map(|id| match id {
        ..64 => first(basic(0, id, 0), 0, 9000, 9, 1, &[1; 128]),
        _ => first(basic(0, id, 1), 0, 9000, 9, 1, &[1; 128]),
    });
    write("many-chunk-streams", &lanes.collect::<Vec<_>>())
}

// Sessions

fn command(msid: u32, name: &str, transaction_id: f64, arguments: &[Value]) -> Vec<u8> {
    let mut body = values(&[name.into(), transaction_id.into()]);
    write_all(&mut body, arguments);
    message(3, 0, type_id::COMMAND_AMF0, msid, &body, 128)
}

fn connect(application: &str) -> Vec<u8> {
    let properties = object(&[
        ("app", application.into()),
        ("type", "nonprivate".into()),
        ("flashVer", "FMLE/3.0".into()),
        ("tcUrl", "rtmp://127.0.0.1/live".into()),
        ("objectEncoding", 0.0.into()),
    ]);
    command(0, "connect", 1.0, &[Value::Object(properties)])
}

fn publish(stream_key: &str) -> Vec<u8> {
    [
        command(0, "releaseStream", 2.0, &[Value::Null, stream_key.into()]),
        command(0, "FCPublish", 3.0, &[Value::Null, stream_key.into()]),
        command(0, "createStream", 4.0, &[Value::Null]),
        command(
            1,
            "publish",
            5.0,
            &[Value::Null, stream_key.into(), "live".into()],
        ),
    ]
    .concat()
}

fn media() -> Vec<u8> {
    let properties = object(&[("width", 320.0.into()), ("videocodecid", 7.0.into())]);
    let metadata = values(&[
        "@setDataFrame".into(),
        "onMetaData".into(),
        Value::EcmaArray(properties),
    ]);
    [
        message(4, 0, type_id::DATA_AMF0, 1, &metadata, 128),
        message(
            6,
            0,
            type_id::VIDEO,
            1,
            b"\x17\0\0\0\0\x01\x64\0\x1f\xff\xe1\0\0\x01\0\0",
            128,
        ),
        message(4, 0, type_id::AUDIO, 1, b"\xaf\0\x12\x10", 128),
        message(
            6,
            0,
            type_id::VIDEO,
            1,
            &[&b"\x17\x01\0\0\0"[..], &[1; 200]].concat(),
            128,
        ),
        message(4, 0, type_id::AUDIO, 1, b"\xaf\x01abc", 128),
        message(
            6,
            33,
            type_id::VIDEO,
            1,
            &[&b"\x27\x01\0\0\x21"[..], &[2; 20]].concat(),
            128,
        ),
    ]
    .concat()
}

fn end() -> Vec<u8> {
    [
        command(0, "FCUnpublish", 6.0, &[Value::Null, "key".into()]),
        command(0, "deleteStream", 7.0, &[Value::Null, 1.0.into()]),
    ]
    .concat()
}

fn session() -> io::Result<()> {
    let write = |name: &str, answers: u8, parts: &[Vec<u8>]| {
        seed(
            "session",
            name,
            &[&[answers, 0][..], &parts.concat()].concat(),
        )
    };
    let start = [connect("live"), publish("key")].concat();
    write("publisher", 1, &[start.clone(), media(), end()])?;
    write("connect-refused", 0x11, &[connect("live")])?;
    write("publish-refused", 0x41, &[start.clone(), media()])?;
    write("not-announced", 0x21, &[start.clone(), media()])?;
    write(
        "twice",
        2,
        &[start.clone(), media(), end(), publish("key"), media()],
    )?;
    write(
        "media-first",
        3,
        &[connect("live"), media(), publish("key"), media()],
    )?;
    write("publish-first", 3, &[publish("key"), connect("live")])?;
    write(
        "query",
        4,
        &[connect("live?user=a"), publish("key?token=b"), media()],
    )?;
    write(
        "player",
        5,
        &[
            connect("live"),
            command(0, "createStream", 2.0, &[Value::Null]),
            command(0, "getStreamLength", 3.0, &[Value::Null, "key".into()]),
            command(
                1,
                "play",
                4.0,
                &[Value::Null, "key".into(), (-2000.0).into()],
            ),
        ],
    )?;
    write(
        "odd-commands",
        6,
        &[
            command(0, "_checkbw", 1.0, &[Value::Null]),
            connect("live"),
            command(0, "FCSubscribe", 2.0, &[Value::Null, "key".into()]),
            command(0, "whatever", 3.0, &[Value::Null]),
            command(0, "whatever", 0.0, &[]),
            publish("key"),
            command(
                1,
                "receiveAudio",
                0.0,
                &[Value::Null, Value::Boolean(false)],
            ),
            command(1, "closeStream", 0.0, &[Value::Null]),
            command(0, "deleteStream", 0.0, &[Value::Null, "key".into()]),
        ],
    )?;
    write(
        "control",
        7,
        &[
            control(type_id::SET_CHUNK_SIZE, 4096),
            control(type_id::WINDOW_ACK_SIZE, 100),
            control(type_id::ACKNOWLEDGEMENT, 3073),
            message(2, 0, type_id::SET_PEER_BANDWIDTH, 0, &[0, 0, 1, 0, 2], 128),
            message(2, 0, type_id::USER_CONTROL, 0, &[0, 6, 0, 0, 0, 9], 128),
            message(
                2,
                0,
                type_id::USER_CONTROL,
                0,
                &[0, 3, 0, 0, 0, 1, 0, 0, 0, 9],
                128,
            ),
            start.clone(),
            media(),
        ],
    )?;
    let part = |kind: u8, time: u8, body: &[u8]| {
        let back = (body.len() as u32 + 11).to_be_bytes();
        [
            &[kind, 0, 0, body.len() as u8, 0, 0, time, 0, 0, 0, 0],
            body,
            &back,
        ]
        .concat()
    };
    let aggregate = [
        part(8, 5, b"\xaf\x01a"),
        part(9, 9, b"\x27\x01\0\0\0b"),
        part(22, 9, b"x"),
    ];
    write(
        "aggregate",
        8,
        &[
            start.clone(),
            message(6, 100, type_id::AGGREGATE, 1, &aggregate.concat(), 128),
        ],
    )?;
    let amf3 = [
        &[0][..],
        &values(&["onMetaData".into()]),
        b"\x11\x0a\x0b\x01\x01",
    ]
    .concat();
    write(
        "amf3",
        9,
        &[
            message(
                3,
                0,
                type_id::COMMAND_AMF3,
                0,
                &[&[0][..], &values(&["x".into(), 1.0.into()])].concat(),
                128,
            ),
            start.clone(),
            message(4, 0, type_id::DATA_AMF3, 1, &amf3, 128),
            message(4, 0, type_id::SHARED_OBJECT_AMF0, 0, &[0; 9], 128),
        ],
    )?;
    seed("session", "tls", b"\x0a\x01\x16\x03\x01\x02\0\x01\0")?;
    seed("session", "http", b"\x0a\x01GET / HTTP/1.1\r\n\r\n")?;
    seed("session", "rtmpe", b"\x0a\x01\x06")
}

// FLV

fn flv() -> io::Result<()> {
    // Both targets read the same bodies, with other bytes before them.
    let write = |name: &str, front: [u8; 3], body: &[u8]| {
        seed("flv", name, &[&front[..], body].concat())?;
        seed("body", name, &[&front[..1], body].concat())
    };
    let audio = |name: &str, body: &[u8]| write(name, [0, 0, 11], body);
    let video = |name: &str, body: &[u8]| write(name, [1, 1, 11], body);
    let script = |name: &str, body: &[u8]| write(name, [2, 2, 0], body);
    audio("aac-header", b"\xaf\0\x12\x10")?;
    audio("aac", b"\xaf\x01abc")?;
    audio("mp3", b"\x2f\xff\xfb")?;
    audio("opus-header", b"\x90OpusOpusHead")?;
    audio("ac3", b"\x91ac-3\x0b\x77")?;
    audio("channels", b"\x94mp4a\x01\x02\0\0\0\x03")?;
    audio(
        "audio-tracks",
        b"\x95\x21Opus\x01\0\0\x02abfLaC\x02\0\0\x01c",
    )?;
    video("avc-header", b"\x17\0\0\0\0\x01\x64\0\x1f")?;
    video("avc", b"\x27\x01\0\0\x28\0\0\0\x01\x41")?;
    video("avc-end", b"\x17\x02\0\0\0")?;
    video("hevc-legacy", b"\x1c\x01\xff\xff\xd8abc")?;
    video("h263", b"\x22abc")?;
    video("command", b"\x57\0")?;
    video("hevc", b"\x91hvc1\0\0\x01abc")?;
    video("hevc-x", b"\xa3hvc1abc")?;
    video("av1-header", b"\x90av01\x81\0\0\0")?;
    video("colour", b"\xd4hvc1\x02\0\x09colorInfo\x03\0\0\x09")?;
    video("nanoseconds", b"\x97\x02\x07\xa1\x20\x01hvc1\0\0\0a")?;
    video(
        "mod-ex-long",
        &[&b"\x97\xff\0\xff"[..], &[0; 256], b"\x11avc1\0\0\0a"].concat(),
    )?;
    video("one-track", b"\x96\x01hvc1\x01\0\0\0abc")?;
    video(
        "many-tracks",
        b"\x96\x11avc1\x01\0\0\x04\0\0\0a\x02\0\0\x04\0\0\0b",
    )?;
    video(
        "many-codecs",
        b"\x96\x21avc1\x01\0\0\x04\0\0\0ahvc1\x02\0\0\x04\0\0\0b",
    )?;
    script(
        "metadata",
        &values(&[
            "onMetaData".into(),
            Value::EcmaArray(object(&[("width", 1.0.into())])),
        ]),
    )?;
    script("text", &values(&["onTextData".into(), Value::Null]))
}

// Feeds

/// Returns one step of the target, see fuzz_targets/feed.rs.
fn step(action: u8, time: u8, padding: u8, body: &[u8]) -> Vec<u8> {
    [&[action, time, 11, padding, body.len() as u8][..], body].concat()
}

fn feed() -> io::Result<()> {
    const VIDEO: u8 = 2;
    const AUDIO: u8 = 7;
    const SCRIPT: u8 = 12;
    const START: u8 = 0;
    const END: u8 = 1;
    const OFTEN: u8 = 0xC0;
    let write = |name: &str, settings: u8, steps: &[Vec<u8>]| {
        seed("feed", name, &[&[settings][..], &steps.concat()].concat())
    };
    let metadata = values(&["onMetaData".into(), Value::Null]);
    let publisher = |first: u8| {
        [
            step(START, 0, 0, &[]),
            step(SCRIPT, 0, 0, &metadata),
            step(VIDEO | 0x20, first, 0, b"\x17\0\0\0\0\x01\x64"),
            step(AUDIO, 0, 0, b"\xaf\0\x12\x10"),
            step(AUDIO, 5, 0, b"\xaf\x01a"),
            step(VIDEO, 5, 0, b"\x27\x01\0\0\0a"),
            step(VIDEO, 30, 0, b"\x17\x01\0\0\x28a"),
            step(AUDIO, 5, 0, b"\xaf\x01a"),
            step(VIDEO, 28, 1, b"\x27\x01\xff\xff\xd8a"),
            step(VIDEO, 0, 0, b"\x17\x02\0\0\0"),
        ]
        .concat()
    };
    for settings in 0..8 {
        let name = format!("publishers-{settings}");
        write(
            &name,
            settings,
            &[
                publisher(0),
                publisher(0x7F),
                publisher(0),
                step(END, 0, 0, &[]),
            ],
        )?;
    }
    write(
        "back-in-time",
        0,
        &[publisher(9), step(VIDEO | 0x10, 99, 0, b"\x27\x01\0\0\0a")],
    )?;
    write(
        "new-header",
        0,
        &[
            publisher(0),
            step(VIDEO, 9, 0, b"\x17\0\0\0\0\x01\x42"),
            publisher(0),
        ],
    )?;
    // The second publisher starts before the end of the first one's time, and its audio before its
    // video.
    write(
        "behind-the-one-before",
        2,
        &[
            step(VIDEO, 0, 0, b"\x17\x01\0\0\0a"),
            step(AUDIO | 0x20, 11, 0, b"\x2fa"),
            step(START, 0, 0, &[]),
            step(VIDEO, 154, 0, b"\x17\x01\0\0\0a"),
            step(AUDIO | 0x10, 175, 0, b"\x2fa"),
        ],
    )?;
    write(
        "audio-only",
        0,
        &[
            step(START, 0, 0, &[]),
            step(AUDIO | OFTEN, 23, 0, b"\x2fa"),
            step(AUDIO, 0, 0, b"\x92mp4a"),
        ],
    )?;
    write(
        "audio-waits",
        0,
        &[
            step(VIDEO, 0, 0, b"\x17\0\0\0\0\x01\x64"),
            step(AUDIO | OFTEN, 23, 255, b"\x2fa"),
            step(VIDEO, 0, 0, b"\x17\x01\0\0\0a"),
        ],
    )?;
    write(
        "only-metadata",
        0,
        &vec![step(SCRIPT | OFTEN, 0, 255, &metadata); 20],
    )?;
    write(
        "only-cues",
        0,
        &vec![step(SCRIPT | OFTEN, 0, 255, &values(&["onCuePoint".into()])); 20],
    )?;
    write(
        "only-headers",
        0,
        &vec![step(VIDEO | OFTEN, 0, 255, b"\x17\0\0\0\0\x01"); 20],
    )?;
    let track = |id: u8| step(VIDEO, 0, 255, &[&b"\x96\0hvc1"[..], &[id, 1, 2]].concat());
    write("many-headers", 0, &(0..=255).map(track).collect::<Vec<_>>())?;
    let end = |id: u8| step(VIDEO, 0, 255, &[&b"\x96\x02hvc1"[..], &[id]].concat());
    write(
        "many-ends",
        0,
        &[publisher(0), (0..=255).flat_map(end).collect()],
    )
}
