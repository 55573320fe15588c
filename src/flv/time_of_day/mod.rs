// SPDX-License-Identifier: MPL-2.0

//! Times of day that publishers state in their streams, and what OBS says about its frames.
//!
//! - Script data: `onFI` of Flash Media Live Encoder and of hardware encoders, and `onTextData` with a
//!   time ([`of_script`]).
//! - User data in the pictures: the broadcast performance metrics of OBS ([`BroadcastMetrics`]).
//!
//! Times are in nanoseconds since the Unix epoch, in UTC.

mod date;
mod metrics;
mod script;
mod user_data;

pub use date::{LocalZone, StatedTime};
pub use metrics::{BroadcastMetrics, RenditionFrames, SessionFrames};
pub use script::of_script;

#[cfg(test)]
mod tests;
