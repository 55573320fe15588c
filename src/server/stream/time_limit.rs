// SPDX-License-Identifier: MPL-2.0

//! The end of a publisher that may publish for a while only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::server::publisher::RemovalReason;
use crate::server::stream::Stream;
use crate::server::stream::publisher_handle::PublisherHandle;

impl Stream {
    /// Ends a publisher after `duration`, and sends it the reason. One that has left by then is not
    /// affected.
    pub(crate) fn limit_time(self: &Arc<Self>, handle: &Arc<PublisherHandle>, duration: Duration) {
        let Some(timers) = self.timers.get() else {
            return;
        };
        let (stream, publisher) = (Arc::downgrade(self), Arc::downgrade(handle));
        let end = move |_| {
            if let (Some(stream), Some(handle)) = (stream.upgrade(), publisher.upgrade()) {
                stream.dismiss(&handle, RemovalReason::MaxDuration);
            }
        };
        timers.set(handle.end_timer(), Instant::now() + duration, Box::new(end));
    }
}
