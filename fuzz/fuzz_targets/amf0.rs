// SPDX-License-Identifier: MPL-2.0

//! Any bytes as AMF values. Values that are read can be written, and are read again as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rtmp2server_core::amf0::{
    MAX_COPIED, MAX_DEPTH, MAX_PROPERTIES, Properties, Value, read_all, read_name, write_all,
};
use rtmp2server_core::meter;

/// Counts the values, and checks their depth.
fn count(values: &[Value], depth: usize) -> usize {
    assert!(values.is_empty() || depth <= MAX_DEPTH + 1);
    values.iter().map(|value| 1 + inner(value, depth + 1)).sum()
}

fn inner(value: &Value, depth: usize) -> usize {
    match value {
        Value::StrictArray(values) => count(values, depth),
        other => other
            .properties()
            .map_or(0, |properties| count_properties(properties, depth)),
    }
}

fn count_properties(properties: &[(String, Value)], depth: usize) -> usize {
    assert!(properties.is_empty() || depth <= MAX_DEPTH + 1);
    properties
        .iter()
        .map(|(_, value)| 1 + inner(value, depth + 1))
        .sum()
}

/// Returns true if the values are equal, with every NaN equal to every other.
fn same(a: &Value, b: &Value) -> bool {
    let number = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => number(*a, *b),
        (
            Value::Date { millis, timezone },
            Value::Date {
                millis: other,
                timezone: zone,
            },
        ) => number(*millis, *other) && timezone == zone,
        (Value::StrictArray(a), Value::StrictArray(b)) => same_all(a, b),
        (Value::Object(a), Value::Object(b)) | (Value::EcmaArray(a), Value::EcmaArray(b)) => {
            same_properties(a, b)
        }
        (
            Value::TypedObject { class, properties },
            Value::TypedObject {
                class: other,
                properties: others,
            },
        ) => class == other && same_properties(properties, others),
        (a, b) => a == b,
    }
}

fn same_all(a: &[Value], b: &[Value]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
}

fn same_properties(a: &Properties, b: &Properties) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|((name, a), (other, b))| name == other && same(a, b))
}

fuzz_target!(|data: &[u8]| {
    if let Some((name, taken)) = read_name(data) {
        assert_eq!(taken, 3 + name.len());
        assert!(data[..taken].ends_with(name));
    }

    let (decoded, held) = meter::peak(|| read_all(data));
    let limit = 8 * data.len() + 3 * MAX_COPIED;
    assert!(held <= limit, "{held} bytes held, {limit} are plenty");
    let Ok(decoded) = decoded else {
        return;
    };
    assert!(count(&decoded.values, 0) <= MAX_PROPERTIES);

    // AMF3 byte arrays and very long names have no AMF0 form; everything else keeps its value.
    if decoded.had_amf3 {
        return;
    }
    let mut bytes = Vec::new();
    write_all(&mut bytes, &decoded.values);
    let again = read_all(&bytes).expect("what was written can be read");
    assert!(same_all(&decoded.values, &again.values));
});
