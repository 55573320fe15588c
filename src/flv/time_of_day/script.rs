// SPDX-License-Identifier: MPL-2.0

//! Times in script data.

use super::date::StatedTime;
use crate::amf0::{self, Value};
use crate::flv::body::Script;

/// Script data that may state a time.
const NAMES: [&[u8]; 2] = [b"onFI", b"onTextData"];

/// Longest script data that is read, in bytes.
const MAX_BODY: usize = 4096;

/// Properties that may be a number of milliseconds since the Unix epoch.
const NUMBERS: [&str; 6] = ["utc", "unix", "epoch", "time", "timestamp", "wallclock"];

/// Returns the time that script data states: a system date and time, as in `onFI`, or otherwise the
/// first value that is a time.
pub fn of_script(body: &[u8]) -> Option<StatedTime> {
    if body.len() > MAX_BODY {
        return None;
    }
    // Most script data is told by its name.
    let mut rest = &body[amf0::script_offset(body)?..];
    let (mut name, length) = amf0::read_name(rest)?;
    if name == amf0::SET_DATA_FRAME.as_bytes() {
        rest = &rest[length..];
        (name, _) = amf0::read_name(rest)?;
    }
    if !NAMES.contains(&name) {
        return None;
    }
    let script = Script::parse(body).ok()?;
    let objects = || script.values.iter().filter_map(Value::properties);
    let system_time = script.values.iter().find_map(system_time);
    system_time
        .or_else(|| script.values.iter().find_map(whole_time))
        .or_else(|| {
            objects()
                .flatten()
                .find_map(|(name, value)| property(name, value))
        })
}

/// Returns the time of the properties `sd` and `st`.
fn system_time(object: &Value) -> Option<StatedTime> {
    let (date, time) = (object.get("sd")?.as_str()?, object.get("st")?.as_str()?);
    StatedTime::of_date_and_time(date, time)
}

/// Returns the time of a value that is nothing else.
fn whole_time(value: &Value) -> Option<StatedTime> {
    match value {
        Value::Date { millis, .. } => of_millis(*millis),
        Value::String(text) => StatedTime::parse(text),
        _ => None,
    }
}

fn property(name: &str, value: &Value) -> Option<StatedTime> {
    let is_number = || {
        NUMBERS
            .iter()
            .any(|number| number.eq_ignore_ascii_case(name))
    };
    match value {
        Value::Number(millis) if is_number() => of_millis(*millis),
        value => whole_time(value),
    }
}

fn of_millis(millis: f64) -> Option<StatedTime> {
    // The conversion saturates, and what it makes of no number is no time either.
    StatedTime::from_millis(millis as u64)
}
