// SPDX-License-Identifier: MPL-2.0

use std::time::{Duration, Instant};

/// Time that a contender may wait, in all, for the rest of its predecessor's data.
const MAX_DEPARTURE: Duration = Duration::from_secs(3);

/// The time that a contender has left to wait, over all its requests for one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Patience(MAX_DEPARTURE)
    }
}

impl Patience {
    /// Spends on a wait that ends at the deadline passed to it.
    pub(crate) fn spend<T>(&mut self, wait: impl FnOnce(Instant) -> T) -> T {
        let start = Instant::now();
        let result = wait(start + self.0);
        self.0 = self.0.saturating_sub(start.elapsed());
        result
    }
}
