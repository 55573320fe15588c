// SPDX-License-Identifier: MPL-2.0
//! The scenarios and their targets.

use std::time::Duration;

use super::Bound::{AtLeast, AtMost};
use super::Quantity::{
    ConnectMedian, ConnectRatio, CpuPerGigabyte, CpuShare, CpuShareAdded, First99th, FirstMedian,
    Instructions, MemoryEach, Stop, Throughput,
};
use super::{Bound, Kind, Quantity, Scenario, Target, When};
use crate::media::{AUDIO_ONLY, FULL_HD, PACED, Profile, SENT_ON, SMALL, TINY, UHD};
use crate::subject::Subject::{
    self, Collecting, Nginx, OneCopy, PushThreads, ReadLoop, ReadThreads, Rtmp2FallbackSink,
    Rtmp2MultiServerSrc, Rtmp2ServerSrc, Rtmp2Sink, Srs, TcpServerSrc,
};

const EVERYONE: &[Subject] = &[ReadLoop, OneCopy, Nginx, Srs, TcpServerSrc, Rtmp2ServerSrc];
const COPIERS: &[Subject] = &[OneCopy, Nginx, Srs, TcpServerSrc, Rtmp2ServerSrc];
const LISTENERS: &[Subject] = &[
    ReadLoop,
    ReadThreads,
    PushThreads,
    Nginx,
    Srs,
    TcpServerSrc,
    Rtmp2ServerSrc,
];
const SERVERS: &[Subject] = &[Nginx, Srs, TcpServerSrc, Rtmp2ServerSrc];
const RTMP: &[Subject] = &[Nginx, Srs, Rtmp2ServerSrc];
const COLLECTING: &[Subject] = &[Nginx, Srs, Collecting];
const OURS: &[Subject] = &[Rtmp2ServerSrc];
const MULTI: &[Subject] = &[Nginx, Srs, Rtmp2MultiServerSrc];
const SENDERS: &[Subject] = &[Rtmp2Sink, Rtmp2FallbackSink];

/// Chunk size that ffmpeg and OBS adopt or announce.
const USUAL_CHUNKS: usize = 4096;

const fn versus(quantity: Quantity, subject: Subject, bound: Bound) -> Target {
    Target {
        quantity,
        against: Some(subject),
        bound,
    }
}

const fn absolute(quantity: Quantity, bound: Bound) -> Target {
    Target {
        quantity,
        against: None,
        bound,
    }
}

const fn transfer(profile: Profile, chunk_size: usize, payload: u64) -> Kind {
    Kind::Transfer {
        profile,
        chunk_size,
        payload,
        record: false,
    }
}

const fn instructions(profile: Profile, chunk_size: usize) -> Kind {
    Kind::Instructions {
        profile,
        chunk_size,
        payload: 64_000_000,
    }
}

pub fn all() -> Vec<Scenario> {
    let scenario = |name, kind, subjects, targets| Scenario {
        name,
        kind,
        subjects,
        targets,
        when: When::Always,
    };
    let many = |name, kind, subjects, targets| Scenario {
        when: When::Many,
        ..scenario(name, kind, subjects, targets)
    };
    let counted = |name, profile, chunk_size, targets| Scenario {
        when: When::Callgrind,
        ..scenario(name, instructions(profile, chunk_size), COPIERS, targets)
    };
    vec![
        scenario(
            "single",
            transfer(FULL_HD, USUAL_CHUNKS, 1_000_000_000),
            EVERYONE,
            vec![
                versus(CpuPerGigabyte, OneCopy, AtMost(1.25)),
                versus(CpuPerGigabyte, Nginx, AtMost(0.75)),
                versus(CpuPerGigabyte, TcpServerSrc, AtMost(0.45)),
                versus(Throughput, Nginx, AtLeast(1.0)),
            ],
        ),
        scenario(
            "recorded",
            Kind::Transfer {
                profile: FULL_HD,
                chunk_size: USUAL_CHUNKS,
                payload: 1_000_000_000,
                record: true,
            },
            COPIERS,
            vec![
                versus(CpuPerGigabyte, Nginx, AtMost(0.75)),
                versus(CpuPerGigabyte, Srs, AtMost(1.05)),
            ],
        ),
        scenario(
            "chunks-128",
            transfer(FULL_HD, 128, 500_000_000),
            EVERYONE,
            vec![versus(CpuPerGigabyte, Nginx, AtMost(0.25))],
        ),
        scenario(
            "chunks-60000",
            transfer(FULL_HD, 60_000, 1_000_000_000),
            EVERYONE,
            vec![],
        ),
        scenario(
            "4k",
            transfer(UHD, USUAL_CHUNKS, 1_000_000_000),
            EVERYONE,
            vec![],
        ),
        scenario(
            "small",
            transfer(SMALL, USUAL_CHUNKS, 500_000_000),
            EVERYONE,
            vec![versus(CpuPerGigabyte, TcpServerSrc, AtMost(1.4))],
        ),
        scenario(
            "audio",
            transfer(AUDIO_ONLY, USUAL_CHUNKS, 200_000_000),
            EVERYONE,
            vec![],
        ),
        scenario(
            "paced-50",
            Kind::Paced {
                profile: PACED,
                publishers: 50,
                time: Duration::from_secs(6),
            },
            LISTENERS,
            vec![
                versus(CpuShare, ReadThreads, AtMost(1.35)),
                versus(CpuShare, Nginx, AtMost(1.25)),
                versus(CpuShare, TcpServerSrc, AtMost(0.75)),
            ],
        ),
        scenario(
            "sending-4",
            Kind::Sending {
                profile: SENT_ON,
                streams: 4,
                time: Duration::from_secs(20),
            },
            SENDERS,
            vec![absolute(CpuShareAdded, AtMost(5.0))],
        ),
        scenario(
            "memory-100",
            Kind::Memory {
                profile: TINY,
                publishers: 100,
            },
            SERVERS,
            vec![],
        ),
        scenario(
            "latency",
            Kind::Latency {
                connects: 60,
                tags: 200,
            },
            RTMP,
            vec![
                absolute(ConnectMedian, AtMost(2.0)),
                absolute(FirstMedian, AtMost(0.3)),
                absolute(First99th, AtMost(1.0)),
            ],
        ),
        many(
            "paced-50-minute",
            Kind::Paced {
                profile: PACED,
                publishers: 50,
                time: Duration::from_secs(60),
            },
            LISTENERS,
            vec![],
        ),
        many(
            "paced-1000",
            Kind::Paced {
                profile: TINY,
                publishers: 1000,
                time: Duration::from_secs(6),
            },
            LISTENERS,
            vec![versus(CpuShare, Nginx, AtMost(2.0))],
        ),
        many(
            "interval",
            Kind::Paced {
                profile: TINY,
                publishers: 1000,
                time: Duration::from_secs(6),
            },
            COLLECTING,
            vec![versus(CpuShare, Nginx, AtMost(0.9))],
        ),
        many(
            "memory-1000",
            Kind::Memory {
                profile: TINY,
                publishers: 1000,
            },
            SERVERS,
            vec![absolute(MemoryEach, AtMost(70.0))],
        ),
        many(
            "multi-1000",
            Kind::Multi {
                profile: TINY,
                publishers: 1000,
                time: Duration::from_secs(6),
            },
            MULTI,
            vec![
                absolute(MemoryEach, AtMost(85.0)),
                absolute(Stop, AtMost(500.0)),
            ],
        ),
        many(
            "routes",
            Kind::Routes {
                routes: 10_000,
                connects: 200,
            },
            OURS,
            vec![absolute(ConnectRatio, AtMost(2.0))],
        ),
        counted(
            "instructions",
            FULL_HD,
            USUAL_CHUNKS,
            vec![
                versus(Instructions, Nginx, AtMost(2.0)),
                versus(Instructions, TcpServerSrc, AtMost(0.5)),
            ],
        ),
        counted("instructions-128", FULL_HD, 128, vec![]),
        counted("instructions-360p", SMALL, USUAL_CHUNKS, vec![]),
        counted("instructions-audio", AUDIO_ONLY, USUAL_CHUNKS, vec![]),
    ]
}
