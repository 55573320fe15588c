// SPDX-License-Identifier: MPL-2.0

/// A running time of the pipeline in nanoseconds.
pub type RunningTime = u64;

pub(crate) const NANOS_PER_MILLI: u64 = 1_000_000;
