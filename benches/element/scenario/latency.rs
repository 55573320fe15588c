// SPDX-License-Identifier: MPL-2.0
//! Wait of a publisher before it may send, and age of its tags when the source pushes them.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Figures, Quantity};
use crate::measure;
use crate::media::{self, FULL_HD, STAMP_OFFSET};
use crate::publisher::Publisher;
use crate::stats::{milliseconds, percentile};
use crate::subject::{Server, Setup, Subject, stream_key};

const CHUNK_SIZE: usize = 4096;
const KEYFRAME_SIZE: usize = 130_000;
const FRAME_SIZE: usize = 22_000;
const PACE: Duration = Duration::from_millis(10);

/// A server may still be releasing one publisher when the next arrives.
const RETRIES: usize = 100;

pub fn run(subject: Subject, connects: usize, tags: usize) -> Result<Figures> {
    // nginx does not report when a tag has passed.
    let ages = subject == Subject::Rtmp2ServerSrc;
    let setup = Setup {
        keep_listening: true,
        latency: ages,
        ..Setup::default()
    };
    let mut server = Server::start(subject, setup)?;
    let mut waits = Vec::new();
    for number in 0..connects {
        let (mut publisher, wait) = connect(&server, subject)?;
        waits.push(wait.as_secs_f64() * 1000.0);
        let last = number + 1 == connects;
        send(&mut publisher, if last { tags } else { 0 })?;
        publisher.say_goodbye(CHUNK_SIZE);
        publisher.wait_for_close()?;
    }
    let mut figures = vec![
        (Quantity::ConnectMedian, percentile(&waits, 50.0)),
        (Quantity::Connect99th, percentile(&waits, 99.0)),
    ];
    if ages {
        let (first, steady) = server.ages()?;
        let (first, steady) = (milliseconds(&first), milliseconds(&steady));
        anyhow::ensure!(
            first.len() == connects,
            "{} of {connects} keyframes came out",
            first.len()
        );
        anyhow::ensure!(
            steady.len() == tags,
            "{} of {tags} tags came out",
            steady.len()
        );
        figures.extend([
            (Quantity::FirstMedian, percentile(&first, 50.0)),
            (Quantity::First99th, percentile(&first, 99.0)),
            (Quantity::SteadyMedian, percentile(&steady, 50.0)),
            (Quantity::Steady99th, percentile(&steady, 99.0)),
        ]);
    }
    server.stop()?;
    Ok(figures)
}

fn connect(server: &Server, subject: Subject) -> Result<(Publisher, Duration)> {
    let mut attempt = 0;
    loop {
        let start = Instant::now();
        match Publisher::connect(server.address(0), subject.dialogue(), &stream_key(0)) {
            Ok(publisher) => return Ok((publisher, start.elapsed())),
            Err(error) if attempt == RETRIES => return Err(error),
            Err(_) => thread::sleep(PACE),
        }
        attempt += 1;
    }
}

/// Headers, a keyframe, and `tags` further frames, each with the moment of its write.
fn send(publisher: &mut Publisher, tags: usize) -> Result<()> {
    let mut serialiser = media::headers(FULL_HD, CHUNK_SIZE);
    publisher.write(&serialiser.take().bytes)?;
    for number in 0..=tags {
        let first = number == 0;
        let size = if first { KEYFRAME_SIZE } else { FRAME_SIZE };
        let mut tag = media::video_tag(first, size, number as u32);
        if !first {
            thread::sleep(PACE);
        }
        // Serialising counts as the publisher's time, so the stamp goes into the finished bytes.
        stamp(&mut tag, first, 0);
        serialiser.video(PACE * number as u32, &tag);
        let mut bytes = serialiser.take().bytes;
        let place = find_stamp(&bytes);
        let now = media::stamp(first, measure::monotonic());
        bytes[place..place + now.len()].copy_from_slice(&now);
        publisher.write(&bytes)?;
    }
    Ok(())
}

fn stamp(tag: &mut [u8], first: bool, nanoseconds: u64) {
    let stamp = media::stamp(first, nanoseconds);
    tag[STAMP_OFFSET..STAMP_OFFSET + stamp.len()].copy_from_slice(&stamp);
}

fn find_stamp(bytes: &[u8]) -> usize {
    let mark = media::STAMP_MARK.to_be_bytes();
    bytes
        .windows(mark.len())
        .position(|window| window == mark)
        .unwrap_or_default()
}
