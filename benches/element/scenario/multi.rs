// SPDX-License-Identifier: MPL-2.0
//! Many publishers of one element: CPU while all of them send, memory that each adds, and the time
//! that a stop takes while all of them are there.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Figures, Quantity};
use crate::media::{Profile, Stream};
use crate::paced_publishers;
use crate::subject::{Server, Setup, Subject};

const CHUNK_SIZE: usize = 4096;

/// Time until every publisher has sent two keyframes.
const WARM_UP: Duration = Duration::from_millis(4500);

pub fn run(
    subject: Subject,
    profile: Profile,
    publishers: usize,
    time: Duration,
) -> Result<Figures> {
    let alone = measure(subject, profile, 1, Duration::ZERO)?;
    let together = measure(subject, profile, publishers, time)?;
    let added = together.memory - alone.memory;
    let mut figures = vec![
        (Quantity::CpuShare, 100.0 * together.share),
        (
            Quantity::MemoryEach,
            added / 1000.0 / (publishers - 1) as f64,
        ),
    ];
    let stop = together.stop.map(|stop| stop.as_secs_f64() * 1000.0);
    figures.extend(stop.map(|stop| (Quantity::Stop, stop)));
    Ok(figures)
}

struct Measured {
    share: f64,
    memory: f64,
    /// None for a server that is not of GStreamer.
    stop: Option<Duration>,
}

fn measure(
    subject: Subject,
    profile: Profile,
    publishers: usize,
    time: Duration,
) -> Result<Measured> {
    let setup = Setup {
        publishers,
        ..Setup::default()
    };
    let mut server = Server::start(subject, setup)?;
    let stream = Stream::new(profile, CHUNK_SIZE);
    let mut senders = paced_publishers::connect(&server, subject, publishers)?;
    let ((share, memory), _) = paced_publishers::while_sending(&mut senders, &stream, || {
        thread::sleep(WARM_UP);
        let (start, before) = (Instant::now(), server.cpu_time()?);
        thread::sleep(time);
        let cpu = server.cpu_time()? - before;
        let share = cpu.as_secs_f64() / start.elapsed().as_secs_f64();
        Ok((share, server.proportional_set_size()? as f64))
    })?;
    let stop = match subject.is_foreign() {
        true => None,
        false => Some(server.stop_pipelines()?),
    };
    drop(senders);
    server.stop()?;
    Ok(Measured {
        share,
        memory,
        stop,
    })
}
