// SPDX-License-Identifier: MPL-2.0

//! The last ten minutes of a stream, one sample a second. Time is passed in.

use std::collections::VecDeque;

use serde::Serialize;

use crate::state::StreamState;

/// Samples that are kept.
pub const CAPACITY: usize = 600;
/// Seconds from one sample to the next.
pub const INTERVAL: u64 = 1;

/// The statistics at one time, unchanged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// In seconds since the Unix epoch.
    pub time: f64,
    /// In bits per second.
    pub bitrate: u64,
    /// Video frames per second; `None` while no media comes.
    pub frame_rate: Option<f64>,
    pub state: StreamState,
}

/// The samples of one stream, oldest first.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
}

/// Samples column by column, as plots take them. All columns have the same length.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Columns {
    pub time: Vec<f64>,
    pub bitrate: Vec<u64>,
    pub frame_rate: Vec<Option<f64>>,
    /// Numbers of [`StreamState`].
    pub state: Vec<u8>,
}

impl History {
    pub fn push(&mut self, sample: Sample) {
        if self.samples.len() == CAPACITY {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Returns the samples later than a time.
    pub fn after(&self, time: f64) -> Columns {
        let start = self.samples.partition_point(|sample| sample.time <= time);
        let mut columns = Columns::default();
        for sample in self.samples.range(start..) {
            columns.time.push(sample.time);
            columns.bitrate.push(sample.bitrate);
            columns.frame_rate.push(sample.frame_rate);
            columns.state.push(sample.state.code());
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u64) -> Sample {
        Sample {
            time: second as f64,
            bitrate: second * 1000,
            frame_rate: second.is_multiple_of(2).then_some(25.0),
            state: StreamState::Active,
        }
    }

    #[test]
    fn the_last_ten_minutes_are_kept_in_order() {
        let mut history = History::default();
        (0..1000).for_each(|second| history.push(sample(second)));
        let columns = history.after(0.0);
        let times: Vec<f64> = (400..1000).map(f64::from).collect();
        assert_eq!(columns.time, times);
        assert_eq!(
            (columns.bitrate[0], columns.bitrate[599]),
            (400_000, 999_000)
        );
        assert_eq!(columns.frame_rate[..2], [Some(25.0), None]);
        assert_eq!(columns.state, [1; CAPACITY]);
    }

    #[test]
    fn a_reader_gets_each_sample_once() {
        let mut history = History::default();
        let (mut seen, mut last) = (Vec::new(), 0.0);
        for second in 1..50 {
            history.push(sample(second));
            if second % 7 == 0 {
                let columns = history.after(last);
                last = *columns.time.last().unwrap();
                seen.extend(columns.time);
            }
        }
        assert_eq!(seen, (1..50).map(f64::from).collect::<Vec<_>>());
        assert_eq!(history.after(last), Columns::default());
    }
}
