// SPDX-License-Identifier: MPL-2.0

//! Signals: those of rtmp2serversrc, with actions whose first argument is the pad of a stream.

use gst::glib;
use gst::glib::subclass::Signal;
use gst::prelude::*;

use super::Rtmp2MultiServerSrc;
use crate::rtmp2serversrc::signals::{build_notifications, instance, text};

/// Builds the signals. Their actions call `disconnect` and `reconnect` with the name of a pad.
pub(super) fn build(
    disconnect: fn(&Rtmp2MultiServerSrc, &str),
    reconnect: fn(&Rtmp2MultiServerSrc, &str, Option<&str>, &str) -> bool,
) -> Vec<Signal> {
    let string = String::static_type();
    let mut signals = build_notifications();
    signals.push(
        // Disconnects the publisher of this pad's stream, which is told so, or ends the wait for
        // one that was cut off.
        Signal::builder("disconnect-publisher")
            .param_types([string])
            .run_last()
            .action()
            .class_handler(move |arguments| {
                if let Some((element, pad)) = target(arguments) {
                    disconnect(&element, &pad);
                }
                None
            })
            .build(),
    );
    signals.push(
        // Asks the publisher of this pad's stream to reconnect, to another tcUrl if one is given.
        // Returns false if there is no publisher, or if it does not support that.
        Signal::builder("request-reconnect")
            .param_types([string, string, string])
            .return_type::<bool>()
            .run_last()
            .action()
            .class_handler(move |arguments| {
                let tc_url = text(arguments, 2).filter(|tc_url| !tc_url.is_empty());
                let description = text(arguments, 3).unwrap_or_default();
                let is_asked = target(arguments).is_some_and(|(element, pad)| {
                    reconnect(&element, &pad, tc_url.as_deref(), &description)
                });
                Some(is_asked.to_value())
            })
            .build(),
    );
    signals
}

/// Returns the element, and the name of the pad.
fn target(arguments: &[glib::Value]) -> Option<(Rtmp2MultiServerSrc, String)> {
    let element = instance(arguments).downcast().ok()?;
    Some((element, text(arguments, 1)?))
}
