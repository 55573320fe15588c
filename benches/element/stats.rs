// SPDX-License-Identifier: MPL-2.0
//! Medians and other quantiles.

pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The nearest value at or above that quantile; for the median of an even number, the mean of the
/// middle two.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return f64::NAN;
    }
    let at = |rank: f64| sorted[(rank.max(1.0) as usize - 1).min(sorted.len() - 1)];
    let rank = percent / 100.0 * sorted.len() as f64;
    if percent == 50.0 && rank.fract() == 0.0 {
        return (at(rank) + at(rank + 1.0)) / 2.0;
    }
    at(rank.ceil())
}

pub fn milliseconds(nanoseconds: &[u64]) -> Vec<f64> {
    nanoseconds
        .iter()
        .map(|value| *value as f64 / 1e6)
        .collect()
}
