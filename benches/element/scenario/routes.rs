// SPDX-License-Identifier: MPL-2.0
//! Wait of a publisher before it may send, with one route on the port and with many.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Figures, Quantity};
use crate::publisher::Publisher;
use crate::stats::percentile;
use crate::subject::{Server, Setup, Subject, stream_key};

const CHUNK_SIZE: usize = 4096;

pub fn run(subject: Subject, routes: usize, connects: usize) -> Result<Figures> {
    let start = |further_routes| {
        let setup = Setup {
            keep_listening: true,
            further_routes,
            ..Setup::default()
        };
        Server::start(subject, setup)
    };
    let (alone, among_many) = (start(0)?, start(routes - 1)?);
    let (mut with_one, mut with_many) = (Vec::new(), Vec::new());
    // In turn, so that other work of the machine affects both.
    for _ in 0..connects {
        with_one.push(connect(&alone, subject)?.as_secs_f64() * 1000.0);
        with_many.push(connect(&among_many, subject)?.as_secs_f64() * 1000.0);
    }
    alone.stop()?;
    among_many.stop()?;
    let (one, many) = (percentile(&with_one, 50.0), percentile(&with_many, 50.0));
    Ok(vec![
        (Quantity::ConnectMedian, one),
        (Quantity::ConnectOfMany, many),
        (Quantity::ConnectRatio, many / one),
    ])
}

/// Connects a publisher that leaves again, and returns the time until it might send.
fn connect(server: &Server, subject: Subject) -> Result<Duration> {
    let address = server.address(0);
    let start = Instant::now();
    let mut publisher = Publisher::connect(address, subject.dialogue(), &stream_key(0))?;
    let wait = start.elapsed();
    publisher.say_goodbye(CHUNK_SIZE);
    publisher.wait_for_close()?;
    Ok(wait)
}
