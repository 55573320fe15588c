// SPDX-License-Identifier: MPL-2.0

//! The driver with a simulated clock that jumps to the next event, and simulated servers: tests its
//! delays and its messages.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use gst::glib;

use super::super::Rtmp2FallbackSink;
use super::super::backlog::Limits;
use super::super::schedule::RetryPolicy;
use super::*;

const SECOND: u64 = 1000;

/// Milliseconds since the start.
type Millis = u64;

/// A server's reaction to a connection attempt.
#[derive(Debug, Clone, Copy)]
enum ServerBehaviour {
    Rejects,
    /// Neither answers nor closes the connection.
    Silent,
    /// Accepts the stream and closes the connection after this time.
    AcceptsFor(Millis),
}

struct SimulatedEnvironment {
    start: Instant,
    now: Cell<Millis>,
    /// Events of connections by the time at which they happen.
    pending: RefCell<BTreeMap<Millis, VecDeque<DriverEvent>>>,
    /// The behaviour of the server at a location at a time.
    server: fn(usize, Millis) -> ServerBehaviour,
    /// Time and location index of each connection attempt.
    opened: Arc<Mutex<Vec<(Millis, usize)>>>,
    /// The locations, to find their index.
    locations: Vec<Arc<Location>>,
    end: Millis,
    /// Drops a tag at each of these times.
    drops: RefCell<VecDeque<Millis>>,
}

impl super::Environment for SimulatedEnvironment {
    type Connection = ();

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now.get())
    }

    fn wait(&self, coordinator: &Coordinator, deadline: Option<Instant>) -> Wakeup {
        loop {
            // Does not wait: returns pending events, or that the deadline has passed.
            match coordinator.wait(Some(self.start)) {
                Wakeup::Due(_) => {}
                news => return news,
            }
            let deadline = deadline.map(|at| (at - self.start).as_millis() as Millis);
            let mut pending = self.pending.borrow_mut();
            let first = pending.keys().next().copied();
            let drop = self.drops.borrow().front().copied();
            let next = [deadline, first, drop].into_iter().flatten().min();
            match next.filter(|next| *next <= self.end) {
                None => coordinator.stop(),
                Some(next) => {
                    self.now.set(next.max(self.now.get()));
                    if drop == Some(next) {
                        self.drops.borrow_mut().pop_front();
                        coordinator.reject();
                        continue;
                    }
                    let Some(events) = first.filter(|at| *at == next) else {
                        return Wakeup::Due(None);
                    };
                    let events = pending.remove(&events).unwrap();
                    events.into_iter().for_each(|event| coordinator.post(event));
                }
            }
        }
    }

    fn connect(
        &self,
        id: AttemptId,
        location: &Arc<Location>,
        coordinator: &Arc<Coordinator>,
    ) -> Result<(), ConnectError> {
        let index = self.locations.iter().position(|other| other == location);
        let now = self.now.get();
        self.opened.lock().push((now, index.unwrap()));
        match (self.server)(index.unwrap(), now) {
            ServerBehaviour::Rejects => {
                coordinator.post(DriverEvent::Failed(id, "refused".to_owned()))
            }
            ServerBehaviour::Silent => {}
            ServerBehaviour::AcceptsFor(time) => {
                coordinator.post(DriverEvent::Opened(id));
                let mut pending = self.pending.borrow_mut();
                let then = pending.entry(now + time).or_default();
                then.push_back(DriverEvent::Failed(id, "lost".to_owned()));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Posted {
    Status(FallbackStatus, i32, u32),
    Error(String),
    /// Tags dropped since the last message, and all.
    Dropped(u64, u64),
}

use Posted::{Dropped, Error, Status as Is};

/// The element's defaults, except for the settings under test.
fn policy(locations: usize) -> RetryPolicy {
    RetryPolicy {
        locations,
        initial_delay: Duration::from_millis(SECOND),
        max_delay: Duration::from_millis(60 * SECOND),
        max_rounds: 10,
        return_to_primary: Duration::ZERO,
        connect_timeout: Duration::from_millis(5 * SECOND),
        send_timeout: Duration::from_millis(5 * SECOND),
    }
}

/// Runs the driver until `end`. Returns its connection attempts and the messages posted.
fn run(
    policy: RetryPolicy,
    end: Millis,
    server: fn(usize, Millis) -> ServerBehaviour,
) -> (Vec<(Millis, usize)>, Vec<Posted>) {
    run_with_drops(policy, end, server, &[])
}

/// Also drops a tag at each of these times.
fn run_with_drops(
    policy: RetryPolicy,
    end: Millis,
    server: fn(usize, Millis) -> ServerBehaviour,
    drops: &[Millis],
) -> (Vec<(Millis, usize)>, Vec<Posted>) {
    gst::init().unwrap();
    let element: Rtmp2FallbackSink = glib::Object::new();
    let element = element.upcast::<gst::Element>();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    let location = |number| {
        let url = format!("rtmp://server{number}.example/live/key");
        Arc::new(Location::new(number, &url, |_| None).unwrap())
    };
    let locations: Vec<_> = (0..policy.locations).map(location).collect();
    let start = Instant::now();
    let opened = Arc::new(Mutex::new(Vec::new()));
    let limits = Limits {
        max_bytes: 0,
        max_time: Duration::ZERO,
    };
    let driver = Driver {
        environment: SimulatedEnvironment {
            start,
            now: Cell::new(0),
            pending: RefCell::default(),
            server,
            opened: opened.clone(),
            locations: locations.clone(),
            end,
            drops: RefCell::new(drops.iter().copied().collect()),
        },
        element: element.downgrade(),
        coordinator: Arc::new(Coordinator::new(limits, start)),
        locations,
        schedule: Schedule::new(policy),
        telemetry: Arc::new(Mutex::new(Telemetry::new(start))),
        connections: HashMap::new(),
        drop_reports: DropReports::default(),
        is_verbose: false,
    };
    driver.run();
    let messages = std::iter::from_fn(|| bus.pop());
    let posted = messages.filter_map(|message| match message.view() {
        gst::MessageView::Error(error) => Some(Error(error.error().to_string())),
        gst::MessageView::Element(element) => {
            let structure = element.structure()?;
            if structure.name() == "rtmp2-fallback-dropped" {
                return Some(Dropped(
                    structure.get("tags").unwrap(),
                    structure.get("tags-dropped").unwrap(),
                ));
            }
            let index = structure.get("location-index").unwrap();
            let rounds = structure.get("rounds").unwrap();
            Some(Is(structure.get("status").unwrap(), index, rounds))
        }
        _ => None,
    });
    let posted = posted.collect();
    let opened = opened.lock().clone();
    (opened, posted)
}

/// Returns the seconds at which a location was tried.
fn times(opened: &[(Millis, usize)], location: usize) -> Vec<Millis> {
    let attempts = opened.iter().filter(|(_, index)| *index == location);
    attempts.map(|(time, _)| *time / SECOND).collect()
}

#[test]
fn the_delay_doubles_with_each_round_and_the_tenth_is_the_last() {
    let (opened, posted) = run(policy(2), 3600 * SECOND, |_, _| ServerBehaviour::Rejects);
    let expected = [0, 1, 3, 7, 15, 31, 63, 123, 183, 243];
    assert_eq!(times(&opened, 0), expected);
    // The second location is tried at once.
    assert_eq!(times(&opened, 1), expected);
    assert_eq!(opened.len(), 20);
    let round = |rounds| {
        [
            Is(FallbackStatus::Connecting, 0, rounds),
            Is(FallbackStatus::Connecting, 1, rounds),
            Is(FallbackStatus::Disconnected, -1, rounds + 1),
        ]
    };
    let mut all: Vec<_> = (0..10).flat_map(round).collect();
    let text = "No server in locations accepted the stream in 10 rounds. Last error: refused";
    all.splice(
        29..,
        [Is(FallbackStatus::Error, -1, 10), Error(text.to_owned())],
    );
    assert_eq!(posted, all);
}

#[test]
fn a_silent_server_times_out_and_retries_are_unlimited_without_max_rounds() {
    let mut policy = policy(1);
    policy.max_rounds = 0;
    let (opened, posted) = run(policy, 24 * 3600 * SECOND, |_, _| ServerBehaviour::Silent);
    let first: Vec<_> = times(&opened, 0).into_iter().take(8).collect();
    // Each attempt takes five seconds, with 1, 2, 4, 8, 16, 32 and 60 between them.
    assert_eq!(first, [0, 6, 13, 22, 35, 56, 93, 158]);
    assert!(opened.len() > 1300, "{}", opened.len());
    assert!(!posted.iter().any(|posted| matches!(posted, Error(_))));
}

#[test]
fn a_connection_of_ten_seconds_resets_the_round_count_and_a_shorter_one_does_not() {
    let (opened, posted) = run(policy(1), 200 * SECOND, |_, now| match now / SECOND {
        // Rounds at 0, 1, 3 and 7.
        7 => ServerBehaviour::AcceptsFor(9 * SECOND),
        // 8 s after the loss at 16.
        24 => ServerBehaviour::AcceptsFor(10 * SECOND),
        _ => ServerBehaviour::Rejects,
    });
    assert_eq!(times(&opened, 0)[..8], [0, 1, 3, 7, 24, 35, 37, 41]);
    let lost = |rounds| {
        let position = posted
            .iter()
            .position(|posted| *posted == Is(FallbackStatus::Connected, 0, rounds));
        posted[position.unwrap() + 1].clone()
    };
    assert_eq!(lost(3), Is(FallbackStatus::Disconnected, -1, 4));
    assert_eq!(lost(4), Is(FallbackStatus::Disconnected, -1, 1));
}

#[test]
fn the_first_location_is_tried_periodically_and_takes_the_stream_back() {
    let mut policy = policy(2);
    policy.return_to_primary = Duration::from_millis(30 * SECOND);
    // The first server returns at 70 s, for a minute.
    let (opened, posted) = run(policy, 200 * SECOND, |location, now| {
        match (location, now / SECOND) {
            (0, 70..130) => ServerBehaviour::AcceptsFor(60 * SECOND),
            (0, _) => ServerBehaviour::Rejects,
            // Fails when the stream is to move: without media no keyframe comes.
            _ => ServerBehaviour::AcceptsFor(100 * SECOND),
        }
    });
    let expected = [
        (0, 0),
        (0, 1),
        (30 * SECOND, 0),
        (60 * SECOND, 0),
        (90 * SECOND, 0),
        // The first location has taken over at 100 s, and is lost at 150 s.
        (150 * SECOND, 1),
        (180 * SECOND, 0),
    ];
    assert_eq!(opened, expected);
    let expected = [
        Is(FallbackStatus::Connecting, 0, 0),
        Is(FallbackStatus::Connecting, 1, 0),
        Is(FallbackStatus::Connected, 1, 0),
        Is(FallbackStatus::Connected, 0, 0),
        Is(FallbackStatus::Connecting, 1, 0),
        Is(FallbackStatus::Connected, 1, 0),
    ];
    assert_eq!(posted, expected);
}

#[test]
fn dropped_tags_are_reported_at_once_and_then_at_most_every_ten_seconds() {
    let drops = [1500, 1600, 1700, 5 * SECOND, 60 * SECOND, 61 * SECOND];
    let accepts = |_, _| ServerBehaviour::AcceptsFor(1000 * SECOND);
    let (_, posted) = run_with_drops(policy(1), 100 * SECOND, accepts, &drops);
    let dropped = posted.iter().filter(|posted| matches!(posted, Dropped(..)));
    let dropped: Vec<_> = dropped.cloned().collect();
    let expected = [Dropped(1, 1), Dropped(3, 4), Dropped(1, 5), Dropped(1, 6)];
    assert_eq!(dropped, expected);
}
