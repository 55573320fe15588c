// SPDX-License-Identifier: MPL-2.0
//! Many publishers in real time: CPU while all of them send.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Figures, Quantity};
use crate::media::{Profile, Stream};
use crate::paced_publishers;
use crate::subject::{Server, Setup, Subject};

const CHUNK_SIZE: usize = 4096;

/// Maximum delay of the sender: with more, the figures would be of another load.
const LATENESS_ALLOWED: Duration = Duration::from_millis(500);

/// Time until every publisher has sent its first keyframe.
const WARM_UP: Duration = Duration::from_millis(2500);

pub fn run(
    subject: Subject,
    profile: Profile,
    publishers: usize,
    time: Duration,
) -> Result<Figures> {
    let setup = Setup {
        publishers,
        ..Setup::default()
    };
    let server = Server::start(subject, setup)?;
    let stream = Stream::new(profile, CHUNK_SIZE);
    let mut senders = paced_publishers::connect(&server, subject, publishers)?;
    let (share, lateness) = paced_publishers::while_sending(&mut senders, &stream, || {
        thread::sleep(WARM_UP);
        let (start, before) = (Instant::now(), server.cpu_time()?);
        thread::sleep(time);
        let cpu = server.cpu_time()? - before;
        Ok(cpu.as_secs_f64() / start.elapsed().as_secs_f64())
    })?;
    ensure!(
        lateness < LATENESS_ALLOWED,
        "too busy to send at the publishers' pace: {lateness:?} behind"
    );
    drop(senders);
    server.stop()?;
    Ok(vec![(Quantity::CpuShare, 100.0 * share)])
}
