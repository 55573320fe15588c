// SPDX-License-Identifier: MPL-2.0
//! Many publishers at their own pace: CPU while all of them send.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Figures, Quantity};
use crate::crowd;
use crate::media::{Profile, Stream};
use crate::subject::{Server, Setup, Subject};

const CHUNK_SIZE: usize = 4096;

/// A sender further behind does not send what the figures are for.
const LATENESS_ALLOWED: Duration = Duration::from_millis(500);

/// Until every publisher has sent its first keyframe.
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
    let mut crowd = crowd::connect(&server, subject, publishers)?;
    let (share, lateness) = crowd::while_sending(&mut crowd, &stream, || {
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
    drop(crowd);
    server.stop()?;
    Ok(vec![(Quantity::CpuShare, 100.0 * share)])
}
