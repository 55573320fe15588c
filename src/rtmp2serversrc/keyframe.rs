// SPDX-License-Identifier: MPL-2.0

//! Keyframe requests from downstream. RTMP can't ask for a keyframe, but a publisher that connects
//! again starts with one.

use std::time::{Duration, Instant};

use crate::server::ReconnectError;

/// Least time between two requests to reconnect. Decoders request keyframes as long as they get
/// none.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// The reason for which the publisher was not asked to reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoKeyframe {
    /// The property disables requests.
    Off,
    /// The last request was a moment ago.
    TooSoon,
    ReconnectError(ReconnectError),
}

impl NoKeyframe {
    /// Returns the reason as applications get it.
    pub(super) fn nick(self) -> &'static str {
        match self {
            NoKeyframe::Off => "off",
            NoKeyframe::TooSoon => "too-soon",
            NoKeyframe::ReconnectError(ReconnectError::NoPublisher) => "no-publisher",
            NoKeyframe::ReconnectError(ReconnectError::NotSupported) => "not-supported",
            NoKeyframe::ReconnectError(ReconnectError::NotReading) => "not-reading",
        }
    }
}

/// The time of the last request that has reached a publisher.
#[derive(Debug, Default)]
pub(super) struct KeyframeRequests {
    last: Option<Instant>,
}

impl KeyframeRequests {
    /// Asks the publisher by `ask`, if the last request is long enough ago. Only requests that have
    /// reached a publisher count.
    pub(super) fn request(
        &mut self,
        is_wanted: bool,
        now: Instant,
        ask: impl FnOnce() -> Result<(), ReconnectError>,
    ) -> Result<(), NoKeyframe> {
        if !is_wanted {
            return Err(NoKeyframe::Off);
        }
        let is_soon = |last| now.saturating_duration_since(last) < MIN_INTERVAL;
        if self.last.is_some_and(is_soon) {
            return Err(NoKeyframe::TooSoon);
        }
        ask().map_err(NoKeyframe::ReconnectError)?;
        self.last = Some(now);
        Ok(())
    }
}

/// Returns the details of the event about a keyframe request.
pub(super) fn details(reason: Option<&str>) -> gst::Structure {
    let action = if reason.is_none() {
        "reconnect-requested"
    } else {
        "none"
    };
    let details = gst::Structure::builder("details").field("action", action);
    details.field_if_some("reason", reason).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_to_reconnect_are_ten_seconds_apart() {
        let mut requests = KeyframeRequests::default();
        let start = Instant::now();
        let mut at = |millis, is_wanted, answer: Result<(), ReconnectError>| {
            let mut is_asked = false;
            let ask = || {
                is_asked = true;
                answer
            };
            let now = start + Duration::from_millis(millis);
            (requests.request(is_wanted, now, ask), is_asked)
        };
        let unreached = Err(ReconnectError::NoPublisher);
        let no_publisher = Err(NoKeyframe::ReconnectError(ReconnectError::NoPublisher));
        assert_eq!(at(0, false, Ok(())), (Err(NoKeyframe::Off), false));
        // Nothing is gained by waiting where no publisher was reached.
        assert_eq!(at(1, true, unreached), (no_publisher, true));
        assert_eq!(at(2, true, unreached), (no_publisher, true));
        assert_eq!(at(3, true, Ok(())), (Ok(()), true));
        assert_eq!(at(4, true, Ok(())), (Err(NoKeyframe::TooSoon), false));
        assert_eq!(at(10_002, true, Ok(())), (Err(NoKeyframe::TooSoon), false));
        assert_eq!(at(10_002, false, Ok(())), (Err(NoKeyframe::Off), false));
        assert_eq!(at(10_003, true, Ok(())), (Ok(()), true));
        assert_eq!(at(10_004, true, Ok(())), (Err(NoKeyframe::TooSoon), false));
    }
}
