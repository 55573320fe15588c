// SPDX-License-Identifier: MPL-2.0
//! Many publishers in real time, from one thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::media::Stream;
use crate::publisher::Publisher;
use crate::subject::{Server, Subject, stream_key};

/// Simultaneous dialogues. Servers that wait for delayed acknowledgements would need minutes one by
/// one.
const CONNECTORS: usize = 32;

/// Data due within this time is written together, so that the sender wakes rarely.
const TICK: Duration = Duration::from_millis(1);

/// Connects `count` publishers.
pub fn connect(server: &Server, subject: Subject, count: usize) -> Result<Vec<Publisher>> {
    let addresses: Vec<_> = (0..count).map(|number| server.address(number)).collect();
    let next = AtomicUsize::new(0);
    let publishers = Mutex::new(Vec::with_capacity(count));
    thread::scope(|scope| {
        let connectors: Vec<_> = (0..CONNECTORS.min(count))
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(&address) = addresses.get(number) else {
                            return Ok(());
                        };
                        let key = stream_key(number);
                        let publisher = Publisher::connect(address, subject.dialogue(), &key)?;
                        publishers
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(publisher);
                    }
                })
            })
            .collect();
        connectors.into_iter().try_for_each(join)
    })?;
    Ok(publishers
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner))
}

/// Sends on every publisher at the rate of `stream` until `body` returns. Returns its result, and
/// the worst delay of the sender.
pub fn while_sending<T>(
    publishers: &mut [Publisher],
    stream: &Stream,
    body: impl FnOnce() -> Result<T>,
) -> Result<(T, Duration)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(publishers, stream, &stop));
        let result = body();
        stop.store(true, Ordering::Relaxed);
        let lateness = join(sender)?;
        Ok((result?, lateness))
    })
}

/// Position of a publisher in its media.
struct Position {
    in_repeat: bool,
    step: usize,
    /// Start of the present part.
    began: Duration,
}

fn send(publishers: &mut [Publisher], stream: &Stream, stop: &AtomicBool) -> Result<Duration> {
    let mut lateness = Duration::ZERO;
    let start = Instant::now();
    let gop = stream.period.min(Duration::from_secs(2));
    let count = publishers.len() as u32;
    let mut positions = Vec::with_capacity(publishers.len());
    let mut queue = BinaryHeap::with_capacity(publishers.len());
    for number in 0..count {
        // Keyframes of different publishers do not coincide.
        let began = gop * number / count;
        queue.push(Reverse((began, number as usize)));
        positions.push(Position {
            in_repeat: false,
            step: 0,
            began,
        });
    }
    while let Some(Reverse((due, number))) = queue.pop() {
        let now = start.elapsed();
        if due > now {
            thread::sleep(due - now + TICK);
        } else {
            lateness = lateness.max(now - due);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let position = &mut positions[number];
        let section = if position.in_repeat {
            &stream.repeat
        } else {
            &stream.start
        };
        publishers[number].write(&section.bytes[section.steps[position.step].bytes.clone()])?;
        position.step += 1;
        if position.step == section.steps.len() {
            position.began += if position.in_repeat {
                stream.period
            } else {
                gop
            };
            position.in_repeat = true;
            position.step = 0;
        }
        let section = if position.in_repeat {
            &stream.repeat
        } else {
            &stream.start
        };
        let due = position.began + section.steps[position.step].due;
        queue.push(Reverse((due, number)));
    }
    Ok(lateness)
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
