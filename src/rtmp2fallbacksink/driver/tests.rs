// SPDX-License-Identifier: MPL-2.0

//! The driver with a clock that jumps to where something happens, and servers that do what a test
//! says: how long it really waits, and what it tells of it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use gst::glib;

use super::super::backlog::Limits;
use super::super::schedule::Config;
use super::*;

const SECOND: u64 = 1000;

/// In milliseconds since the start.
type Time = u64;

/// What a server does with an attempt.
#[derive(Debug, Clone, Copy)]
enum Server {
    Refuses,
    /// Neither a word nor an end.
    IsSilent,
    /// Breaks the connection after so long.
    TakesItFor(Time),
}

struct Environment {
    start: Instant,
    now: Cell<Time>,
    /// What comes of connections, and when.
    coming: RefCell<BTreeMap<Time, VecDeque<Event>>>,
    /// What a server does now.
    server: fn(usize, Time) -> Server,
    /// When and where it has connected.
    opened: Arc<Mutex<Vec<(Time, usize)>>>,
    /// Where a number stands for each location.
    locations: Vec<Arc<Location>>,
    end: Time,
}

impl super::Environment for Environment {
    type Connection = ();

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now.get())
    }

    fn wait(&self, shared: &Shared, deadline: Option<Instant>) -> Wakeup {
        loop {
            // Without waiting: what is there, or that the time has come.
            match shared.wait(Some(self.start)) {
                Wakeup::Due(_) => {}
                news => return news,
            }
            let deadline = deadline.map(|at| (at - self.start).as_millis() as Time);
            let mut coming = self.coming.borrow_mut();
            let first = coming.keys().next().copied();
            let next = [deadline, first].into_iter().flatten().min();
            match next.filter(|next| *next <= self.end) {
                None => shared.stop(),
                Some(next) => {
                    self.now.set(next.max(self.now.get()));
                    let Some(events) = first.filter(|at| *at == next) else {
                        return Wakeup::Due(None);
                    };
                    let events = coming.remove(&events).unwrap();
                    events.into_iter().for_each(|event| shared.tell(event));
                }
            }
        }
    }

    fn connect(
        &self,
        id: Id,
        location: &Arc<Location>,
        shared: &Arc<Shared>,
    ) -> Result<(), CantStart> {
        let index = self.locations.iter().position(|other| other == location);
        let now = self.now.get();
        self.opened.lock().push((now, index.unwrap()));
        match (self.server)(index.unwrap(), now) {
            Server::Refuses => shared.tell(Event::Failed(id, "refused".to_owned())),
            Server::IsSilent => {}
            Server::TakesItFor(time) => {
                shared.tell(Event::Opened(id));
                let mut coming = self.coming.borrow_mut();
                let then = coming.entry(now + time).or_default();
                then.push_back(Event::Failed(id, "lost".to_owned()));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Status(Status, i32, u32),
    Error(String),
}

use Told::{Error, Status as Is};

/// The defaults of the element, but for what the tests are about.
fn config(locations: usize) -> Config {
    Config {
        locations,
        initial_delay: Duration::from_millis(SECOND),
        max_delay: Duration::from_millis(60 * SECOND),
        max_rounds: 10,
        return_to_primary: Duration::ZERO,
        timeout: Duration::from_millis(5 * SECOND),
    }
}

/// When it has connected where until the end, and what was told.
fn run(
    config: Config,
    end: Time,
    server: fn(usize, Time) -> Server,
) -> (Vec<(Time, usize)>, Vec<Told>) {
    gst::init().unwrap();
    let element: Rtmp2FallbackSink = glib::Object::new();
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    let location = |number| {
        let url = format!("rtmp://server{number}.example/live/key");
        Arc::new(Location::new(number, &url, |_| None).unwrap())
    };
    let locations: Vec<_> = (0..config.locations).map(location).collect();
    let start = Instant::now();
    let opened = Arc::new(Mutex::new(Vec::new()));
    let limits = Limits {
        max_bytes: 0,
        max_time: Duration::ZERO,
    };
    let driver = Driver {
        world: Environment {
            start,
            now: Cell::new(0),
            coming: RefCell::default(),
            server,
            opened: opened.clone(),
            locations: locations.clone(),
            end,
        },
        element: element.downgrade(),
        shared: Arc::new(Shared::new(limits, start)),
        locations,
        schedule: Schedule::new(config),
        telemetry: Arc::new(Mutex::new(Telemetry::new(start))),
        connections: HashMap::new(),
    };
    driver.run();
    let messages = std::iter::from_fn(|| bus.pop());
    let told = messages.filter_map(|message| match message.view() {
        gst::MessageView::Error(error) => Some(Error(error.error().to_string())),
        gst::MessageView::Element(element) => {
            let structure = element.structure()?;
            let index = structure.get("location-index").unwrap();
            let rounds = structure.get("rounds").unwrap();
            Some(Is(structure.get("status").unwrap(), index, rounds))
        }
        _ => None,
    });
    let told = told.collect();
    let opened = opened.lock().clone();
    (opened, told)
}

/// Of a location.
fn times(opened: &[(Time, usize)], location: usize) -> Vec<Time> {
    let of = opened.iter().filter(|(_, index)| *index == location);
    of.map(|(time, _)| *time / SECOND).collect()
}

#[test]
fn it_waits_twice_as_long_each_time_and_gives_up_after_ten_rounds() {
    let (opened, told) = run(config(2), 3600 * SECOND, |_, _| Server::Refuses);
    let expected = [0, 1, 3, 7, 15, 31, 63, 123, 183, 243];
    assert_eq!(times(&opened, 0), expected);
    // The next one at once.
    assert_eq!(times(&opened, 1), expected);
    assert_eq!(opened.len(), 20);
    let round = |rounds| {
        [
            Is(Status::Connecting, 0, rounds),
            Is(Status::Connecting, 1, rounds),
            Is(Status::Disconnected, -1, rounds + 1),
        ]
    };
    let mut all: Vec<_> = (0..10).flat_map(round).collect();
    let text = "No server of locations takes the stream after 10 rounds. The last one: refused";
    all.splice(29.., [Is(Status::Error, -1, 10), Error(text.to_owned())]);
    assert_eq!(told, all);
}

#[test]
fn who_does_not_answer_has_its_time_and_without_a_limit_there_is_no_end() {
    let mut config = config(1);
    config.max_rounds = 0;
    let (opened, told) = run(config, 24 * 3600 * SECOND, |_, _| Server::IsSilent);
    let first: Vec<_> = times(&opened, 0).into_iter().take(8).collect();
    // Five seconds each, and 1, 2, 4, 8, 16, 32 and 60 between them.
    assert_eq!(first, [0, 6, 13, 22, 35, 56, 93, 158]);
    assert!(opened.len() > 1300, "{}", opened.len());
    assert!(!told.iter().any(|told| matches!(told, Error(_))));
}

#[test]
fn a_server_that_took_it_for_long_ends_the_count_and_one_that_did_not_goes_on() {
    let (opened, told) = run(config(1), 200 * SECOND, |_, now| match now / SECOND {
        // Rounds at 0, 1, 3 and 7.
        7 => Server::TakesItFor(9 * SECOND),
        // 8 s after that was lost.
        24 => Server::TakesItFor(10 * SECOND),
        _ => Server::Refuses,
    });
    assert_eq!(times(&opened, 0)[..8], [0, 1, 3, 7, 24, 35, 37, 41]);
    let lost = |rounds| {
        let position = told
            .iter()
            .position(|told| *told == Is(Status::Connected, 0, rounds));
        told[position.unwrap() + 1].clone()
    };
    assert_eq!(lost(3), Is(Status::Disconnected, -1, 4));
    assert_eq!(lost(4), Is(Status::Disconnected, -1, 1));
}

#[test]
fn it_looks_for_the_first_one_again_and_again_and_moves_back() {
    let mut config = config(2);
    config.return_to_primary = Duration::from_millis(30 * SECOND);
    // The first one is back after 70 s, and for a minute.
    let (opened, told) = run(config, 200 * SECOND, |location, now| {
        match (location, now / SECOND) {
            (0, 70..130) => Server::TakesItFor(60 * SECOND),
            (0, _) => Server::Refuses,
            // It fails when the stream should move: no keyframe comes here, where nothing is sent.
            _ => Server::TakesItFor(100 * SECOND),
        }
    });
    let expected = [
        (0, 0),
        (0, 1),
        (30 * SECOND, 0),
        (60 * SECOND, 0),
        (90 * SECOND, 0),
        // The first one has taken over at 100 s, and is lost at 150 s.
        (150 * SECOND, 1),
        (180 * SECOND, 0),
    ];
    assert_eq!(opened, expected);
    let expected = [
        Is(Status::Connecting, 0, 0),
        Is(Status::Connecting, 1, 0),
        Is(Status::Connected, 1, 0),
        Is(Status::Connected, 0, 0),
        Is(Status::Connecting, 1, 0),
        Is(Status::Connected, 1, 0),
    ];
    assert_eq!(told, expected);
}
