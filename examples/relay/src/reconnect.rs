// SPDX-License-Identifier: MPL-2.0

//! Asks publishers that came to the wrong relay to go to the right one, once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::catalog::StreamName;
use crate::rendezvous::Placement;

/// A publisher that is back sooner did not get in where it belongs, and is served here.
const ASKS_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// Publishers that are remembered: one that is forgotten may be asked twice.
const MAX_REMEMBERED: usize = 10_000;

#[derive(Debug, Default)]
pub struct Reconnect {
    ring: Placement,
    asked: Mutex<HashMap<StreamName, Instant>>,
    /// Publishers that belong to another relay: asked to go there, and served here.
    moved: AtomicU64,
    kept: AtomicU64,
}

impl Reconnect {
    pub fn new(ring: Placement) -> Self {
        Reconnect {
            ring,
            ..Reconnect::default()
        }
    }

    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    pub fn kept(&self) -> u64 {
        self.kept.load(Ordering::Relaxed)
    }

    /// Called for each added publisher, with its pad and the element's description of it. Returns
    /// whether the publisher was asked to connect to another relay, which it does in a moment;
    /// until then it is served here.
    pub fn ask(
        &self,
        element: &gst::Element,
        pad: &str,
        info: &gst::StructureRef,
        name: &StreamName,
    ) -> bool {
        let Some(relay) = self.ring.elsewhere(name) else {
            return false;
        };
        let was_asked = if self.remember(name, Instant::now()) {
            let text = |field: &str| info.get::<&str>(field).unwrap_or_default();
            let tc_url = moved_to(relay, text("tc-url"), text("application"));
            let description = "This user belongs to another relay";
            element.emit_by_name("request-reconnect", &[&pad, &tc_url, &description])
        } else {
            false
        };
        let counter = if was_asked { &self.moved } else { &self.kept };
        counter.fetch_add(1, Ordering::Relaxed);
        was_asked
    }

    /// Remembers that the publisher is asked.
    fn remember(&self, name: &StreamName, now: Instant) -> bool {
        // No panic leaves it half changed.
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |when: &Instant| now.saturating_duration_since(*when) < ASKS_AGAIN_AFTER;
        if asked.get(name).is_some_and(is_recent) {
            return false;
        }
        if asked.len() >= MAX_REMEMBERED {
            asked.retain(|_, when| is_recent(when));
        }
        if asked.len() >= MAX_REMEMBERED {
            asked.clear();
        }
        asked.insert(name.clone(), now);
        true
    }
}

/// Returns the publisher's own URL at another relay: with the application as the publisher named
/// it, since it keeps the rest of its path.
fn moved_to(relay: &str, tc_url: &str, application: &str) -> String {
    let after_scheme = tc_url.split_once("://").map(|(_, rest)| rest);
    let path = after_scheme.and_then(|rest| rest.split_once('/'));
    match path {
        Some((_, path)) if !path.is_empty() => format!("{relay}/{path}"),
        _ => format!("{relay}/{application}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> StreamName {
        StreamName::new("live", Some(&format!("user{number}")), "cam").unwrap()
    }

    #[test]
    fn the_new_url_keeps_the_application() {
        let moved = |tc_url| moved_to("rtmps://b.example:443", tc_url, "live");
        assert_eq!(moved("rtmp://a/live/ann"), "rtmps://b.example:443/live/ann");
        assert_eq!(
            moved("rtmp://a:1/live?token=1"),
            "rtmps://b.example:443/live?token=1"
        );
        for without in ["", "rtmp://a", "rtmp://a/", "live"] {
            assert_eq!(moved(without), "rtmps://b.example:443/live");
        }
    }

    #[test]
    fn a_publisher_is_not_asked_again_for_ten_minutes() {
        let reconnect = Reconnect::default();
        let start = Instant::now();
        assert!(reconnect.remember(&name(0), start));
        assert!(reconnect.remember(&name(1), start));
        assert!(!reconnect.remember(&name(0), start + ASKS_AGAIN_AFTER / 2));
        assert!(reconnect.remember(&name(0), start + ASKS_AGAIN_AFTER));
    }

    #[test]
    fn the_number_of_remembered_publishers_is_bounded() {
        let reconnect = Reconnect::default();
        let start = Instant::now();
        for number in 0..3 * MAX_REMEMBERED {
            assert!(reconnect.remember(&name(number), start));
        }
        assert!(reconnect.asked.lock().unwrap().len() <= MAX_REMEMBERED);
    }
}
