// SPDX-License-Identifier: MPL-2.0

//! Unwraps the 32-bit timestamps of publishers.

/// Largest distance in milliseconds from a wrap, on both sides of a step back, for the step to count
/// as one.
const WRAP_DISTANCE: u32 = 30_000;

/// Counts at which publishers wrap: 32 bits are RTMP's own and need nothing special. ffmpeg and OBS
/// keep 31 bits, and some writers forget the extended timestamp and keep 24.
const EARLY_WRAPS: [u32; 2] = [1 << 24, 1 << 31];

/// Turns 32-bit milliseconds into a time that does not wrap.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimestampUnwrapper {
    last: Option<Last>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    raw: u32,
    time: i64,
    /// Count of the last early wrap: tags of another track may still come from before it.
    wrapped_at: Option<u32>,
}

impl TimestampUnwrapper {
    /// Unwraps the timestamp of media, and remembers it.
    pub fn next(&mut self, raw: u32) -> i64 {
        let (time, wrapped_at) = self.unwrap(raw);
        self.last = Some(Last {
            raw,
            time,
            wrapped_at,
        });
        time
    }

    /// Unwraps a timestamp that need not be in step with the media, without remembering it.
    pub(crate) fn peek(&self, raw: u32) -> i64 {
        self.unwrap(raw).0
    }

    /// Returns the step to a timestamp, if it leads over a wrap.
    pub(crate) fn step_over_wrap(&self, raw: u32) -> Option<i64> {
        let last = self.last?;
        let step = self.unwrap(raw).0 - last.time;
        (step != i64::from(raw) - i64::from(last.raw)).then_some(step)
    }

    /// Returns true for a timestamp that can only be reached over a wrap far ahead. The clock has
    /// restarted rather.
    pub(crate) fn is_restart(&self, raw: u32) -> bool {
        let step = self.step_over_wrap(raw);
        step.is_some_and(|step| step > i64::from(WRAP_DISTANCE))
    }

    fn unwrap(&self, raw: u32) -> (i64, Option<u32>) {
        let Some(last) = self.last else {
            return (i64::from(raw), None);
        };
        // The usual step, which leads over no wrap.
        if last.wrapped_at.is_none()
            && (last.raw..last.raw.saturating_add(WRAP_DISTANCE)).contains(&raw)
        {
            return (last.time + i64::from(raw - last.raw), None);
        }
        for wrap in EARLY_WRAPS {
            if is_below(last.raw, wrap) && raw < WRAP_DISTANCE {
                let step = i64::from(raw) + i64::from(wrap) - i64::from(last.raw);
                return (last.time + step, Some(wrap));
            }
            if last.wrapped_at == Some(wrap) && last.raw < WRAP_DISTANCE && is_below(raw, wrap) {
                let step = i64::from(raw) - i64::from(wrap) - i64::from(last.raw);
                // The raw value is remembered as it is, so the next step wraps again.
                return (last.time + step, None);
            }
        }
        let step = raw.wrapping_sub(last.raw) as i32;
        (last.time + i64::from(step), last.wrapped_at)
    }
}

fn is_below(raw: u32, wrap: u32) -> bool {
    (wrap - WRAP_DISTANCE..wrap).contains(&raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unwrapped(raw: &[u32]) -> Vec<i64> {
        let mut unwrapper = TimestampUnwrapper::default();
        raw.iter().map(|raw| unwrapper.next(*raw)).collect()
    }

    #[test]
    fn time_goes_on_over_every_wrap() {
        for wrap in [1i64 << 24, 1 << 31, 1 << 32] {
            let raw: Vec<u32> = (-100..100)
                .map(|i| (wrap + i * 40) % wrap)
                .map(|t| t as u32)
                .collect();
            let expected: Vec<i64> = (-100..100).map(|i| wrap + i * 40).collect();
            assert_eq!(unwrapped(&raw), expected, "at {wrap:#x}");
        }
    }

    #[test]
    fn time_goes_on_past_24_and_31_bits_where_the_writer_has_them() {
        for start in [1u32 << 24, 1 << 31] {
            let raw: Vec<u32> = (0..200).map(|i| start - 4000 + i * 40).collect();
            let expected: Vec<i64> = raw.iter().map(|t| i64::from(*t)).collect();
            assert_eq!(unwrapped(&raw), expected);
        }
    }

    #[test]
    fn tracks_may_cross_a_wrap_one_after_the_other() {
        for wrap in [1i64 << 24, 1 << 31, 1 << 32] {
            let time = [
                wrap - 10,
                wrap + 5,
                wrap - 3,
                wrap + 20,
                wrap - 1,
                wrap + 40,
            ];
            let raw = time.map(|t| (t % wrap) as u32);
            assert_eq!(unwrapped(&raw), time, "at {wrap:#x}");
        }
    }

    #[test]
    fn a_step_over_a_wrap_is_one_only_near_it() {
        let after = |last: u32| {
            let mut unwrapper = TimestampUnwrapper::default();
            unwrapper.next(last);
            unwrapper
        };
        let end = u32::MAX - 9;
        assert_eq!(after(end).step_over_wrap(10), Some(20));
        assert_eq!(after(10).step_over_wrap(end), Some(-20));
        assert_eq!(after((1 << 24) - 5).step_over_wrap(5), Some(10));
        assert_eq!(after(5).step_over_wrap(1 << 31), None);
        assert_eq!(after(50_000).step_over_wrap(0), None);
        assert!(!after(end).is_restart(10));
        assert!(!after(10).is_restart(end));
        assert!(!after(50_000).is_restart(0));
        assert!(after(end).is_restart(30_000));
        assert!(after((1 << 31) + 1).is_restart(0));
        assert!(!TimestampUnwrapper::default().is_restart(0));
    }

    #[test]
    fn a_step_back_elsewhere_is_a_step_back() {
        assert_eq!(unwrapped(&[50_000, 10]), [50_000, 10]);
        assert_eq!(unwrapped(&[1 << 25, 0]), [1 << 25, 0]);
    }
}
