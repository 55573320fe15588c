// SPDX-License-Identifier: MPL-2.0
//! Instructions that valgrind counts: the same on every machine and however busy it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Figures, Quantity};
use crate::media::{Profile, Stream};
use crate::publisher::Publisher;
use crate::subject::{Server, Setup, Subject, stream_key};

/// The files remain, for callgrind_annotate.
pub fn run(
    subject: Subject,
    profile: Profile,
    chunk_size: usize,
    payload: u64,
    file: impl Fn(&str) -> PathBuf,
) -> Result<Figures> {
    let stream = Stream::new(profile, chunk_size);
    // Start and end cost the same in both, so the difference is media alone.
    let (short, long) = (stream.repeats(payload / 4), stream.repeats(payload));
    let short_count = count(subject, &stream, short, chunk_size, &file("short"))?;
    let long_count = count(subject, &stream, long, chunk_size, &file("long"))?;
    let bytes = (stream.payload(long) - stream.payload(short)) as f64;
    let instructions = (long_count - short_count) / bytes;
    Ok(vec![(Quantity::Instructions, instructions)])
}

fn count(
    subject: Subject,
    stream: &Stream,
    repeats: u64,
    chunk_size: usize,
    file: &Path,
) -> Result<f64> {
    let setup = Setup {
        callgrind: Some(file),
        ..Setup::default()
    };
    let mut server = Server::start(subject, setup)?;
    let address = server.address(0);
    let mut publisher = Publisher::connect(address, subject.dialogue(), &stream_key(0))?;
    publisher.send(stream, repeats)?;
    publisher.say_goodbye(chunk_size);
    server.wait_until_done(publisher)?;
    server.stop()?;

    let text = fs::read(file).with_context(|| file.display().to_string())?;
    String::from_utf8_lossy(&text)
        .lines()
        .find_map(|line| line.strip_prefix("totals: ")?.parse().ok())
        .with_context(|| format!("no totals in {}", file.display()))
}
