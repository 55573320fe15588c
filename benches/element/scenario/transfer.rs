// SPDX-License-Identifier: MPL-2.0
//! One publisher that sends as fast as the server reads.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Figures, Quantity};
use crate::media::{Profile, Stream};
use crate::publisher::Publisher;
use crate::subject::{Server, Setup, Subject, stream_key};

pub fn run(
    subject: Subject,
    profile: Profile,
    chunk_size: usize,
    payload: u64,
    record: bool,
) -> Result<Figures> {
    let stream = Stream::new(profile, chunk_size);
    let setup = Setup {
        record,
        ..Setup::default()
    };
    let mut server = Server::start(subject, setup)?;
    let before = server.cpu_time()?;
    let address = server.address(0);
    let mut publisher = Publisher::connect(address, subject.dialogue(), &stream_key(0))?;

    let repeats = stream.repeats(payload);
    let start = Instant::now();
    publisher.send(&stream, repeats)?;
    publisher.say_goodbye(chunk_size);
    server.wait_until_done(publisher)?;
    let time = start.elapsed();

    let cpu = server.cpu_time()? - before;
    if record {
        let recorded = server.recorded()?;
        let sent = stream.payload(repeats);
        ensure!(recorded >= sent, "{recorded} of {sent} bytes recorded");
    }
    server.stop()?;
    let bytes = stream.payload(repeats) as f64;
    Ok(vec![
        (Quantity::CpuPerGigabyte, cpu.as_secs_f64() / (bytes / 1e9)),
        (Quantity::Throughput, bytes / 1e6 / time.as_secs_f64()),
    ])
}
