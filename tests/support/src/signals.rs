// SPDX-License-Identifier: MPL-2.0

//! The signals of an element about its publishers, in order.

use std::sync::{Arc, Condvar, Mutex};

use gst::glib;
use gst::prelude::*;

use super::PATIENCE;

#[derive(Clone, Debug)]
pub struct Emission {
    pub name: &'static str,
    pub info: gst::Structure,
    /// Empty where there is none.
    pub reason: String,
}

#[derive(Debug, Clone, Default)]
pub struct Signals {
    seen: Arc<(Mutex<Vec<Emission>>, Condvar)>,
}

impl Signals {
    pub fn watch(element: &gst::Element) -> Self {
        let signals = Signals::default();
        for name in ["publisher-added", "publisher-removed", "publisher-rejected"] {
            let seen = signals.clone();
            element.connect(name, false, move |arguments| {
                seen.add(name, arguments);
                None
            });
        }
        signals
    }

    pub fn add(&self, name: &'static str, arguments: &[glib::Value]) {
        let reason = arguments.get(2).map(|reason| reason.get().unwrap());
        let emission = Emission {
            name,
            info: arguments[1].get().unwrap(),
            reason: reason.unwrap_or_default(),
        };
        self.seen.0.lock().unwrap().push(emission);
        self.seen.1.notify_all();
    }

    /// Waits for so many signals, and returns all of them.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Emission> {
        let (seen, more) = &*self.seen;
        let waited = more.wait_timeout_while(seen.lock().unwrap(), PATIENCE, |s| s.len() < count);
        let (seen, timeout) = waited.unwrap();
        assert!(!timeout.timed_out(), "still waiting for {count}: {seen:?}");
        seen.clone()
    }

    /// Returns names with reasons, like `removed closed`.
    #[track_caller]
    pub fn names(&self, count: usize) -> Vec<String> {
        let name = |e: &Emission| format!("{} {}", &e.name["publisher-".len()..], e.reason);
        let all = self.wait_for(count);
        all.iter().map(|e| name(e).trim().to_owned()).collect()
    }
}
