// SPDX-License-Identifier: MPL-2.0

//! The protocol core alone: bytes in memory to messages, events and tags.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gstrtmp2server::internal::amf0::{self, Value};
use gstrtmp2server::internal::feed::{Feed, FeedSettings, Reception};
use gstrtmp2server::internal::flv::{FRONT_LENGTH, TRAILER_LENGTH, Tag, TagKind};
use gstrtmp2server::internal::memory::Memory;
use gstrtmp2server::internal::rtmp::Headroom;
use gstrtmp2server::internal::rtmp::chunk::{ChunkReader, ChunkWriter, ReaderLimits};
use gstrtmp2server::internal::rtmp::message::type_id;

/// Maximum bytes of one read.
const READ: usize = 64 * 1024;

const HEADROOM: Headroom = Headroom {
    front: FRONT_LENGTH,
    back: TRAILER_LENGTH,
};

/// Sizes of the messages of two seconds of 1080p30 at 6 Mbit/s with audio.
fn messages() -> Vec<(u8, usize)> {
    let mut messages = vec![(type_id::VIDEO, 130_000)];
    for _ in 0..59 {
        messages.push((type_id::VIDEO, 23_000));
        messages.extend([(type_id::AUDIO, 370), (type_id::AUDIO, 370)]);
    }
    messages
}

fn wire(chunk_size: u32) -> Vec<u8> {
    let mut writer = ChunkWriter::default();
    let mut bytes = Vec::new();
    writer.write(
        &mut bytes,
        2,
        type_id::SET_CHUNK_SIZE,
        0,
        &chunk_size.to_be_bytes(),
    );
    writer.set_chunk_size(chunk_size);
    for (kind, length) in messages() {
        let csid = if kind == type_id::VIDEO { 6 } else { 4 };
        writer.write(&mut bytes, csid, kind, 1, &vec![0x27; length]);
    }
    bytes
}

fn chunk_reader(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk reader");
    let payload: usize = messages().iter().map(|(_, length)| length).sum();
    group.throughput(Throughput::Bytes(payload as u64));
    for chunk_size in [128, 4096, 60_000] {
        let bytes = wire(chunk_size);
        group.bench_function(format!("{chunk_size} B chunks"), |b| {
            b.iter_batched_ref(
                || ChunkReader::new(ReaderLimits::default(), HEADROOM),
                |reader| {
                    for mut piece in bytes.chunks(READ) {
                        while let Ok(Some(message)) = reader.read(&mut piece) {
                            black_box(message);
                        }
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn metadata(c: &mut Criterion) {
    let number = |name: &str| (name.to_owned(), Value::Number(1.0));
    let names = [
        "duration",
        "width",
        "height",
        "videodatarate",
        "framerate",
        "videocodecid",
    ];
    let object = Value::EcmaArray(names.map(number).to_vec());
    let mut bytes = Vec::new();
    amf0::write_all(&mut bytes, &["onMetaData".into(), object]);
    c.bench_function("onMetaData", |b| {
        b.iter(|| amf0::read_all(black_box(&bytes)))
    });
}

fn feed(c: &mut Criterion) {
    let body = |start: &[u8]| {
        let mut bytes = vec![0; FRONT_LENGTH];
        bytes.extend_from_slice(start);
        bytes.resize(500, 0);
        Memory::from_vec(bytes, FRONT_LENGTH)
    };
    let tag = |kind, time, start: &[u8]| Tag::new(kind, time, body(start)).unwrap();
    let mut group = c.benchmark_group("feed");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("1000 tags", |b| {
        b.iter_batched(
            || {
                let mut feed = Feed::<()>::new(FeedSettings::default());
                feed.start_publisher();
                feed.push(
                    tag(TagKind::Video, 0, &[0x17, 1, 0, 0, 0]),
                    Reception::default(),
                );
                let tags = (1..1001).map(|time| tag(TagKind::Video, time, &[0x27, 1, 0, 0, 0]));
                (feed, tags.collect::<Vec<_>>())
            },
            |(mut feed, tags)| {
                for tag in tags {
                    feed.push(tag, Reception::default());
                    while let Some(output) = feed.pop() {
                        black_box(output);
                    }
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, chunk_reader, metadata, feed);
criterion_main!(benches);
