// SPDX-License-Identifier: MPL-2.0

//! Refused clients: the last ones for the page, and how many there were for each reason.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// Rejected clients that the page shows.
const SHOWN: usize = 50;
/// A client may have meant several elements, each of which reports its refusal at once.
const SAME_CLIENT: Duration = Duration::from_secs(10);
/// Time in which all elements have told of one client.
const SAME_TEXT: Duration = Duration::from_millis(500);
/// Lines in the log at once, and the interval of further ones in a flood.
const BURST: u32 = 32;
const REFILL: Duration = Duration::from_millis(100);
/// Characters of a stream key that is shown whole, and of the ends of a longer one.
const SHORT_KEY: usize = 8;
const SHOWN_ENDS: (usize, usize) = (3, 2);

/// All reasons of the elements, so that each has its metric from the start.
pub const REASONS: [&str; 19] = [
    "address",
    "auth-bad-answer",
    "auth-denied",
    "auth-timeout",
    "auth-unreachable",
    "busy",
    "denied",
    "draining",
    "ended",
    "full",
    "no-application",
    "no-stream",
    "not-authenticated",
    "redirected",
    "signature-address",
    "signature-expired",
    "signature-missing",
    "signature-wrong",
    "wrong-credentials",
];

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RejectedClient {
    /// In seconds since the Unix epoch.
    pub time: f64,
    /// Address and port of the client.
    pub address: String,
    pub application: String,
    /// The stream key, masked.
    pub stream: String,
    pub reason: String,
}

#[derive(Debug)]
pub struct RejectedClients(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Oldest first.
    last: VecDeque<(Instant, RejectedClient)>,
    counts: BTreeMap<String, u64>,
    ration: Ration,
    /// The last text in the log that is not about a refusal, and its time.
    text: Option<(String, Instant)>,
}

/// The log's share of a flood.
#[derive(Debug)]
struct Ration {
    left: u32,
    refilled: Option<Instant>,
    suppressed: u64,
}

impl Default for RejectedClients {
    fn default() -> Self {
        let counts = REASONS.map(|reason| (reason.to_owned(), 0));
        RejectedClients(Mutex::new(State {
            last: VecDeque::new(),
            counts: counts.into(),
            ration: Ration {
                left: BURST,
                refilled: None,
                suppressed: 0,
            },
            text: None,
        }))
    }
}

impl RejectedClients {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal, unless it is that of a client that was counted just now. Returns the number
    /// of refusals before it that are not in the log where it should be there.
    pub fn add(&self, refusal: RejectedClient, now: Instant) -> Option<u64> {
        let mut state = self.lock();
        let is_same = |(when, other): &(Instant, RejectedClient)| {
            now.saturating_duration_since(*when) < SAME_CLIENT
                && (&other.address, &other.reason) == (&refusal.address, &refusal.reason)
        };
        if state.last.iter().any(is_same) {
            return None;
        }
        *state.counts.entry(refusal.reason.clone()).or_default() += 1;
        if state.last.len() == SHOWN {
            state.last.pop_front();
        }
        state.last.push_back((now, refusal));
        state.ration.take(now)
    }

    /// Returns true for a text that was not in the log just now: all elements that a client may have
    /// meant tell the same of it.
    pub(crate) fn is_news(&self, text: &str, now: Instant) -> bool {
        let mut state = self.lock();
        let last = state.text.replace((text.to_owned(), now));
        !last.is_some_and(|(last, when)| {
            last == text && now.saturating_duration_since(when) < SAME_TEXT
        })
    }

    /// Returns the last refusals, newest first.
    pub fn last(&self) -> Vec<RejectedClient> {
        let state = self.lock();
        let last = state.last.iter().rev();
        last.map(|(_, refusal)| refusal.clone()).collect()
    }

    /// Returns the number of refusals for each reason.
    pub fn counts(&self) -> Vec<(String, u64)> {
        self.lock().counts.clone().into_iter().collect()
    }
}

impl Ration {
    /// Returns the number of lines left out before this one, which is written; `None` where it is
    /// left out too.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = self.refilled.get_or_insert(now);
        let elapsed = now.saturating_duration_since(*since);
        let more = (elapsed.as_nanos() / REFILL.as_nanos()).min(BURST.into()) as u32;
        if more > 0 {
            self.left = (self.left + more).min(BURST);
            self.refilled = Some(now);
        }
        if self.left == 0 {
            self.suppressed += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// Returns an application as it is shown. Some clients put the stream key into it, so only its first
/// part is shown whole.
pub fn masked_application(application: &str) -> String {
    let mut parts = application.split('/');
    let first = parts.next().unwrap_or_default();
    let first: String = first.chars().filter(|c| !c.is_control()).collect();
    let parts = parts.map(masked);
    std::iter::once(first)
        .chain(parts)
        .collect::<Vec<_>>()
        .join("/")
}

/// Returns a stream key of which enough is visible to tell it from another one.
pub fn masked(key: &str) -> String {
    let chars: Vec<char> = key.chars().filter(|c| !c.is_control()).collect();
    if chars.len() <= SHORT_KEY {
        return chars.into_iter().collect();
    }
    let (front, back) = SHOWN_ENDS;
    let (front, back) = (&chars[..front], &chars[chars.len() - back..]);
    let front: String = front.iter().collect();
    let back: String = back.iter().collect();
    format!("{front}…{back}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(client: u32, reason: &str) -> RejectedClient {
        RejectedClient {
            time: 0.0,
            address: format!("192.0.2.1:{client}"),
            application: "live".to_owned(),
            stream: "camera1".to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn count(refusals: &RejectedClients, reason: &str) -> u64 {
        let counts = refusals.counts();
        counts.iter().find(|(name, _)| name == reason).unwrap().1
    }

    #[test]
    fn a_client_counts_once_however_many_elements_refuse_it() {
        let (refusals, now) = (RejectedClients::default(), Instant::now());
        assert_eq!(count(&refusals, "no-stream"), 0);
        assert_eq!(refusals.add(refusal(1, "no-stream"), now), Some(0));
        assert_eq!(refusals.add(refusal(1, "no-stream"), now), None);
        assert_eq!(refusals.add(refusal(2, "no-stream"), now), Some(0));
        assert_eq!(refusals.add(refusal(2, "busy"), now), Some(0));
        // Its port is used again.
        refusals.add(refusal(1, "no-stream"), now + SAME_CLIENT);
        assert_eq!(count(&refusals, "no-stream"), 3);
        assert_eq!(count(&refusals, "busy"), 1);
        let last = refusals.last();
        assert_eq!(last.len(), 4);
        assert_eq!(last[1], refusal(2, "busy"));
    }

    #[test]
    fn a_flood_is_counted_whole_and_logged_in_part() {
        let (refusals, now) = (RejectedClients::default(), Instant::now());
        let add = |client, now| refusals.add(refusal(client, "full"), now);
        let written = (0..1000).filter(|client| add(*client, now).is_some());
        assert_eq!(written.count(), BURST as usize);
        assert_eq!(count(&refusals, "full"), 1000);
        assert_eq!(refusals.last().len(), SHOWN);
        let suppressed = 1000 - u64::from(BURST);
        assert_eq!(add(1000, now + REFILL), Some(suppressed));
        assert_eq!(add(1001, now + REFILL), None);
        assert_eq!(add(1002, now + 2 * REFILL), Some(1));
    }

    #[test]
    fn a_text_of_several_elements_is_written_once() {
        let (refusals, now) = (RejectedClients::default(), Instant::now());
        assert!(refusals.is_news("HTTP", now));
        assert!(!refusals.is_news("HTTP", now));
        assert!(refusals.is_news("TLS", now));
        assert!(refusals.is_news("TLS", now + SAME_TEXT));
    }

    #[test]
    fn long_keys_show_their_ends() {
        assert_eq!(masked("camera12"), "camera12");
        assert_eq!(masked("camera-secret"), "cam…et");
        assert_eq!(masked("ab\ncd"), "abcd");
        assert_eq!(masked_application("live"), "live");
        assert_eq!(masked_application("li\nve/camera-secret"), "live/cam…et");
    }
}
