// SPDX-License-Identifier: MPL-2.0
//! Streams sent on to a server in real time: CPU of the sending process, with and without the
//! feeding.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Figures, Quantity};
use crate::media::Profile;
use crate::subject::{Sender, Server, Setup, Subject, stream_key};

/// Maximum delay of the sender: with more, the figures would be of another load.
const LATENESS_ALLOWED: Duration = Duration::from_millis(500);

/// Time until every stream has had its first keyframe.
const WARM_UP: Duration = Duration::from_millis(3000);

pub fn run(subject: Subject, profile: Profile, streams: usize, time: Duration) -> Result<Figures> {
    ensure!(
        profile == crate::media::SENT_ON,
        "the sender knows one kind"
    );
    let feeding = share(streams, "fakesink", time)?;
    let receiver = match Subject::Nginx.missing() {
        None => Subject::Nginx,
        Some(_) => Subject::Rtmp2ServerSrc,
    };
    let setup = Setup {
        publishers: streams,
        ..Setup::default()
    };
    let server = Server::start(receiver, setup)?;
    let url = format!("rtmp://{}/live/{}", server.address(0), stream_key(0));
    let url = url.trim_end_matches('0').to_owned() + "{n}";
    let sink = match subject {
        Subject::Rtmp2Sink => format!("rtmp2sink location={url}"),
        _ => format!("rtmp2fallbacksink locations={url}"),
    };
    let all = share(streams, &sink, time)?;
    server.stop()?;
    Ok(vec![
        (Quantity::CpuShare, 100.0 * all),
        (Quantity::CpuShareAdded, 100.0 * (all - feeding)),
    ])
}

/// Share of a core that sending into such sinks takes.
fn share(streams: usize, sink: &str, time: Duration) -> Result<f64> {
    let mut sender = Sender::start(streams, sink)?;
    thread::sleep(WARM_UP);
    let (start, before) = (Instant::now(), sender.cpu_time()?);
    thread::sleep(time);
    let cpu = sender.cpu_time()? - before;
    let share = cpu.as_secs_f64() / start.elapsed().as_secs_f64();
    let (lateness, complete) = sender.state()?;
    ensure!(
        lateness < LATENESS_ALLOWED,
        "too busy to send at the streams' pace: {lateness:?} behind"
    );
    ensure!(complete, "not everything was sent");
    sender.stop()?;
    Ok(share)
}
