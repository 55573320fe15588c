// SPDX-License-Identifier: MPL-2.0

//! WARNING messages about clients that may not publish. Clients cause them at no cost, so they are
//! rationed: the last one of a flood counts the others.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use parking_lot::Mutex;

use super::ration::Ration;
use super::voice::Voice;
use crate::server::PublisherEvent;

/// Time in which a client that was asked for its password connects again. Most do at once.
const PROMPT_PATIENCE: Duration = Duration::from_secs(2);

/// Most addresses that are remembered as asked for a password.
const MAX_PROMPTS: usize = 64;

/// Returns the present properties of an element, None once it is finalized.
pub(crate) type VoiceOf = dyn Fn(&gst::Element) -> Option<Voice> + Send + Sync;

pub(crate) struct Refusals {
    voice: Box<VoiceOf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ration: Ration<PublisherEvent>,
    prompts: HashMap<IpAddr, (SocketAddr, Instant)>,
    /// Time of the next look at what waits.
    scheduled: Option<Instant>,
}

impl std::fmt::Debug for Refusals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refusals").finish_non_exhaustive()
    }
}

impl State {
    /// Handles an event, and returns those to tell now.
    fn handle(&mut self, event: &PublisherEvent, now: Instant) -> Vec<(PublisherEvent, u64)> {
        match event {
            PublisherEvent::LeftAtPrompt(address) => self.note_prompt(*address, now),
            // The client has come back with an answer.
            PublisherEvent::Added(publisher) => {
                self.prompts.remove(&publisher.address.ip());
            }
            PublisherEvent::Rejected(publisher, _) => {
                self.prompts.remove(&publisher.address.ip());
                return self.ration.offer(event.clone(), now).into_iter().collect();
            }
            PublisherEvent::Failed(..) => {
                return self.ration.offer(event.clone(), now).into_iter().collect();
            }
            _ => {}
        }
        Vec::new()
    }

    fn note_prompt(&mut self, address: SocketAddr, now: Instant) {
        if self.prompts.len() < MAX_PROMPTS || self.prompts.contains_key(&address.ip()) {
            self.prompts.insert(address.ip(), (address, now));
        }
    }

    /// Returns the events whose time has come.
    fn release(&mut self, now: Instant) -> Vec<(PublisherEvent, u64)> {
        let mut due: Vec<_> = self.ration.release(now).into_iter().collect();
        let is_due = |since: Instant| now.saturating_duration_since(since) >= PROMPT_PATIENCE;
        let prompts = self.prompts.extract_if(|_, (_, since)| is_due(*since));
        let prompts: Vec<SocketAddr> = prompts.map(|(_, (address, _))| address).collect();
        for address in prompts {
            due.extend(
                self.ration
                    .offer(PublisherEvent::LeftAtPrompt(address), now),
            );
        }
        due
    }

    fn deadline(&self) -> Option<Instant> {
        let prompts = self.prompts.values();
        let prompts = prompts.map(|(_, since)| *since + PROMPT_PATIENCE);
        prompts.chain(self.ration.deadline()).min()
    }
}

impl Refusals {
    pub(crate) fn new(
        voice: impl Fn(&gst::Element) -> Option<Voice> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Refusals {
            voice: Box::new(voice),
            state: Mutex::default(),
        })
    }

    /// Tells of an event at once, later with others, or not at all.
    pub(crate) fn handle(self: &Arc<Self>, element: &gst::Element, event: &PublisherEvent) {
        let now = Instant::now();
        let told = self.state.lock().handle(event, now);
        self.tell(element, told);
        self.schedule(element, now);
    }

    fn tell(&self, element: &gst::Element, told: Vec<(PublisherEvent, u64)>) {
        if told.is_empty() {
            return;
        }
        let Some(voice) = (self.voice)(element) else {
            return;
        };
        for (event, suppressed) in told {
            let Some(text) = text(&voice, &event) else {
                continue;
            };
            let text = match suppressed {
                0 => text,
                count => format!("{text} ({count} more like this before)"),
            };
            voice.warn(element, &text);
        }
    }

    /// Looks again when something that waits is due.
    fn schedule(self: &Arc<Self>, element: &gst::Element, now: Instant) {
        let mut state = self.state.lock();
        let Some(deadline) = state.deadline() else {
            return;
        };
        if state
            .scheduled
            .is_some_and(|scheduled| scheduled <= deadline)
        {
            return;
        }
        state.scheduled = Some(deadline);
        drop(state);
        let (refusals, weak) = (Arc::downgrade(self), element.downgrade());
        let release = move |element: &gst::Element| {
            let Some(refusals) = refusals.upgrade() else {
                return;
            };
            let now = Instant::now();
            let mut state = refusals.state.lock();
            state.scheduled = None;
            let told = state.release(now);
            drop(state);
            refusals.tell(element, told);
            refusals.schedule(element, now);
        };
        let clock = gst::SystemClock::obtain();
        // A moment later, so that it is due by then.
        let wait = deadline.saturating_duration_since(now) + Duration::from_millis(1);
        let wait = gst::ClockTime::try_from(wait).unwrap_or(gst::ClockTime::SECOND);
        let id = clock.new_single_shot_id(clock.time() + wait);
        let waits = id.wait_async(move |_, _, _| {
            // The clock has one thread for the whole process, and a handler of the bus may take
            // long.
            if let Some(element) = weak.upgrade() {
                element.call_async(release);
            }
        });
        if waits.is_err() {
            self.state.lock().scheduled = None;
        }
    }
}

fn text(voice: &Voice, event: &PublisherEvent) -> Option<String> {
    match event {
        PublisherEvent::Rejected(publisher, reason) => Some(voice.rejection(publisher, *reason)),
        PublisherEvent::Failed(address, reason) => Some(format!(
            "Closed the connection from {}: {reason}",
            address.ip()
        )),
        PublisherEvent::LeftAtPrompt(address) => Some(format!(
            "{} has left when it was asked for user name and password. They belong into its URL: \
             rtmp://USER:PASSWORD@HOST/APPLICATION/STREAM-KEY",
            address.ip()
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Publisher;

    fn address() -> SocketAddr {
        Publisher::example(1).address
    }

    #[test]
    fn a_client_that_leaves_at_the_prompt_is_told_of_unless_it_comes_back() {
        let mut state = State::default();
        let start = Instant::now();
        let later = start + PROMPT_PATIENCE;
        let left = PublisherEvent::LeftAtPrompt(address());
        assert!(state.handle(&left, start).is_empty());
        assert_eq!(state.deadline(), Some(later));
        assert!(state.release(start).is_empty());
        let told = state.release(later);
        assert!(matches!(told[..], [(PublisherEvent::LeftAtPrompt(_), 0)]));
        assert!(state.release(later).is_empty());
        // Clients connect again with their answer.
        state.handle(&left, start);
        let back = PublisherEvent::Added(Arc::new(Publisher::example(2)));
        assert!(state.handle(&back, start).is_empty());
        assert!(state.release(later).is_empty());
    }

    #[test]
    fn a_flood_is_rationed_and_counted() {
        let mut state = State::default();
        let start = Instant::now();
        let failed = PublisherEvent::Failed(address(), "HTTP".into());
        let told = (0..1000).flat_map(|_| state.handle(&failed, start)).count();
        assert!(told < 50, "{told}");
        let deadline = state.deadline().unwrap();
        let rest = state.release(deadline);
        assert_eq!(rest[0].1 as usize, 1000 - told - 1);
    }
}
