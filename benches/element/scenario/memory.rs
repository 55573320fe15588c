// SPDX-License-Identifier: MPL-2.0
//! Memory that each further publisher adds, including its element and threads.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::{Figures, Quantity};
use crate::media::{Profile, Stream};
use crate::paced_publishers;
use crate::subject::{Server, Setup, Subject};

const CHUNK_SIZE: usize = 4096;

/// Time until every publisher has sent two keyframes.
const WARM_UP: Duration = Duration::from_millis(4500);

pub fn run(subject: Subject, profile: Profile, publishers: usize) -> Result<Figures> {
    let alone = memory(subject, profile, 1)?;
    let together = memory(subject, profile, publishers)?;
    let each = (together - alone) / (publishers - 1) as f64;
    Ok(vec![(Quantity::MemoryEach, each / 1000.0)])
}

fn memory(subject: Subject, profile: Profile, publishers: usize) -> Result<f64> {
    let setup = Setup {
        publishers,
        ..Setup::default()
    };
    let server = Server::start(subject, setup)?;
    let stream = Stream::new(profile, CHUNK_SIZE);
    let mut senders = paced_publishers::connect(&server, subject, publishers)?;
    let (bytes, _) = paced_publishers::while_sending(&mut senders, &stream, || {
        thread::sleep(WARM_UP);
        server.proportional_set_size()
    })?;
    drop(senders);
    server.stop()?;
    Ok(bytes as f64)
}
