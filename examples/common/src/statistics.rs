// SPDX-License-Identifier: MPL-2.0

//! Metrics from the statistics of elements.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::TEXT_FORMAT;
use prometheus::proto::MetricFamily;

use crate::exposition::text;

/// The unit of a field, which Prometheus wants in base units.
#[derive(Debug, Clone, Copy)]
pub enum Unit {
    None,
    Nanoseconds,
    BitsPerSecond,
}

/// Returns a field as a number; `None` where it has no value.
pub fn number(stats: &gst::StructureRef, field: &str, unit: Unit) -> Option<f64> {
    let value = stats.value(field).ok()?;
    let number = if let Ok(number) = value.get::<u64>() {
        (number != gst::ffi::GST_CLOCK_TIME_NONE).then_some(number as f64)?
    } else if let Ok(number) = value.get::<i64>() {
        number as f64
    } else if let Ok(number) = value.get::<f64>() {
        number
    } else if let Ok(flag) = value.get::<bool>() {
        f64::from(u8::from(flag))
    } else {
        // Also an enum.
        value.transform::<i32>().ok()?.get::<i32>().ok()?.into()
    };
    Some(match unit {
        Unit::None => number,
        Unit::Nanoseconds => number / 1e9,
        Unit::BitsPerSecond => number / 8.0,
    })
}

/// Returns the answer to a request for metrics.
pub fn respond(families: Vec<MetricFamily>) -> Response {
    match text(families) {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
