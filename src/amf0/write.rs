// SPDX-License-Identifier: MPL-2.0

//! AMF0 writer.

use bytes::BufMut;

use super::read::marker;
use super::{Properties, Value};

/// Appends `values` as AMF0.
pub fn write_all(out: &mut impl BufMut, values: &[Value]) {
    for value in values {
        write_value(out, value);
    }
}

/// Appends `value` as AMF0.
///
/// The length of a string decides between its short and its long form. Property and class names are
/// cut at 65,535 bytes, the most that the format holds. A byte array, which only AMF3 has, is
/// written as unsupported.
pub fn write_value(out: &mut impl BufMut, value: &Value) {
    match value {
        Value::Number(n) => {
            out.put_u8(marker::NUMBER);
            out.put_f64(*n);
        }
        Value::Boolean(b) => {
            out.put_u8(marker::BOOLEAN);
            out.put_u8(u8::from(*b));
        }
        Value::String(s) if s.len() <= usize::from(u16::MAX) => {
            out.put_u8(marker::STRING);
            write_name(out, s);
        }
        Value::String(s) => {
            out.put_u8(marker::LONG_STRING);
            write_long(out, s);
        }
        Value::Object(properties) => {
            out.put_u8(marker::OBJECT);
            write_properties(out, properties);
        }
        Value::Null => out.put_u8(marker::NULL),
        Value::Undefined => out.put_u8(marker::UNDEFINED),
        Value::Reference(index) => {
            out.put_u8(marker::REFERENCE);
            out.put_u16(*index);
        }
        Value::EcmaArray(properties) => {
            out.put_u8(marker::ECMA_ARRAY);
            out.put_u32(count(properties.len()));
            write_properties(out, properties);
        }
        Value::StrictArray(values) => {
            out.put_u8(marker::STRICT_ARRAY);
            out.put_u32(count(values.len()));
            write_all(out, values);
        }
        Value::Date { millis, timezone } => {
            out.put_u8(marker::DATE);
            out.put_f64(*millis);
            out.put_i16(*timezone);
        }
        Value::Unsupported | Value::Bytes(_) => out.put_u8(marker::UNSUPPORTED),
        Value::XmlDocument(s) => {
            out.put_u8(marker::XML_DOCUMENT);
            write_long(out, s);
        }
        Value::TypedObject { class, properties } => {
            out.put_u8(marker::TYPED_OBJECT);
            write_name(out, class);
            write_properties(out, properties);
        }
    }
}

fn write_properties(out: &mut impl BufMut, properties: &Properties) {
    for (name, value) in properties {
        write_name(out, name);
        write_value(out, value);
    }
    out.put_u16(0);
    out.put_u8(marker::OBJECT_END);
}

fn write_name(out: &mut impl BufMut, name: &str) {
    let end = name.floor_char_boundary(usize::from(u16::MAX));
    out.put_u16(end as u16);
    out.put_slice(&name.as_bytes()[..end]);
}

fn write_long(out: &mut impl BufMut, s: &str) {
    out.put_u32(count(s.len()));
    out.put_slice(s.as_bytes());
}

/// Converts a length. Every written value was built by this process or bounded by the reader.
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
