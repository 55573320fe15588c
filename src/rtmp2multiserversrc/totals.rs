// SPDX-License-Identifier: MPL-2.0

//! Totals over the statistics of several streams.

/// Fields of a stream's statistics that are summed over all streams since the start.
pub(super) const SUMMED: [&str; 25] = [
    "total-in-bytes",
    "total-tags",
    "total-audio-tags",
    "total-video-tags",
    "total-script-tags",
    "total-audio-bytes",
    "total-video-bytes",
    "total-script-bytes",
    "total-keyframes",
    "total-skipped",
    "publishers",
    "reconnects",
    "replacements",
    "total-uptime",
    "downtime",
    "dropped-queue-full",
    "dropped-before-keyframe",
    "dropped-descriptions",
    "dropped-late",
    "dropped-codec-refused",
    "dropped-cut-off",
    "timestamps-clamped",
    "timestamp-jumps",
    "timestamps-frozen",
    "force-key-unit-events",
];

#[derive(Debug, Clone, Default)]
pub(super) struct StreamTotals(pub(super) [u64; SUMMED.len()]);

impl StreamTotals {
    pub(super) fn add(&mut self, stats: &gst::StructureRef) {
        for (sum, name) in self.0.iter_mut().zip(SUMMED) {
            *sum = sum.saturating_add(number(stats, name));
        }
    }
}

pub(super) fn number(stats: &gst::StructureRef, name: &str) -> u64 {
    stats.get(name).unwrap_or_default()
}
