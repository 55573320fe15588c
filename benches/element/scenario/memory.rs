// SPDX-License-Identifier: MPL-2.0
//! Memory that each further publisher adds, its element and threads included.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::{Figures, Quantity};
use crate::crowd;
use crate::media::{Profile, Stream};
use crate::subject::{Server, Setup, Subject};

const CHUNK_SIZE: usize = 4096;

/// Until every publisher has sent two keyframes.
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
    let mut crowd = crowd::connect(&server, subject, publishers)?;
    let (bytes, _) = crowd::while_sending(&mut crowd, &stream, || {
        thread::sleep(WARM_UP);
        server.proportional_set_size()
    })?;
    drop(crowd);
    server.stop()?;
    Ok(bytes as f64)
}
