// SPDX-License-Identifier: MPL-2.0

//! AMF0 reader. Message bodies are complete, so the parsers are `complete` too: a short body is
//! malformed.

use nom::Parser;
use nom::bytes::complete::{tag, take};
use nom::combinator::map;
use nom::number::complete::{be_f64, be_i16, be_u8, be_u16, be_u32};

use super::limits::Limits;
use super::step::{Step, leaf, text};
use super::{Error, MAX_PROPERTIES, Properties, Value, amf3};

pub(super) mod marker {
    pub(crate) const NUMBER: u8 = 0x00;
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const STRING: u8 = 0x02;
    pub(crate) const OBJECT: u8 = 0x03;
    pub(crate) const NULL: u8 = 0x05;
    pub(crate) const UNDEFINED: u8 = 0x06;
    pub(crate) const REFERENCE: u8 = 0x07;
    pub(crate) const ECMA_ARRAY: u8 = 0x08;
    pub(crate) const OBJECT_END: u8 = 0x09;
    pub(crate) const STRICT_ARRAY: u8 = 0x0A;
    pub(crate) const DATE: u8 = 0x0B;
    pub(crate) const LONG_STRING: u8 = 0x0C;
    pub(crate) const UNSUPPORTED: u8 = 0x0D;
    pub(crate) const XML_DOCUMENT: u8 = 0x0F;
    pub(crate) const TYPED_OBJECT: u8 = 0x10;
    pub(crate) const AVMPLUS: u8 = 0x11;
}

/// The values of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub values: Vec<Value>,
    /// A value is AMF3, so the bytes are not plain AMF0.
    pub had_amf3: bool,
}

/// Reads values until the input ends.
pub fn read_all(input: &[u8]) -> Result<Decoded, Error> {
    let Leading { decoded, error, .. } = read_leading(input, MAX_PROPERTIES);
    error.map_or(Ok(decoded), Err)
}

/// Values at the front of an input that may be malformed after them.
#[derive(Debug, Clone, PartialEq)]
pub struct Leading {
    pub decoded: Decoded,
    /// Bytes of the values.
    pub length: usize,
    /// Error in the bytes after the values. None if they reach to the end of the input.
    pub error: Option<Error>,
}

/// Reads values until the input ends or is malformed.
pub fn read_leading(input: &[u8], max_properties: usize) -> Leading {
    let mut reader = Reader::default();
    reader.limits.max_properties = max_properties;
    let mut values = Vec::new();
    let mut rest = input;
    let mut error = None;
    while !rest.is_empty() && error.is_none() {
        let step = reader.limits.count_one();
        match step.and_then(|()| reader.value(rest, 0)) {
            Ok((value, after)) => {
                values.push(value);
                rest = after;
            }
            Err(found) => error = Some(found),
        }
    }
    Leading {
        decoded: Decoded {
            values,
            had_amf3: reader.had_amf3,
        },
        length: input.len() - rest.len(),
        error,
    }
}

/// Reads the string at the start of a message, and returns it with its length in the message. The
/// bytes after it are not parsed.
pub fn read_name(input: &[u8]) -> Option<(&[u8], usize)> {
    let mut name = (tag(&[marker::STRING][..]), be_u16::<_, ()>);
    let (rest, (_, length)) = name.parse(input).ok()?;
    let string = rest.get(..usize::from(length))?;
    Some((string, 3 + string.len()))
}

#[derive(Debug, Default)]
struct Reader {
    limits: Limits,
    had_amf3: bool,
}

fn short_string(input: &[u8]) -> Step<'_, String> {
    let (length, rest) = leaf(be_u16(input))?;
    leaf(map(take(length), text).parse(rest))
}

fn long_string(input: &[u8]) -> Step<'_, String> {
    let (length, rest) = leaf(be_u32(input))?;
    leaf(map(take(length), text).parse(rest))
}

impl Reader {
    fn value<'a>(&mut self, input: &'a [u8], depth: usize) -> Step<'a, Value> {
        Limits::check_depth(depth)?;
        let (kind, rest) = leaf(be_u8(input))?;
        match kind {
            marker::NUMBER => leaf(map(be_f64, Value::Number).parse(rest)),
            marker::BOOLEAN => leaf(map(be_u8, |b| Value::Boolean(b != 0)).parse(rest)),
            marker::STRING => short_string(rest).map(|(s, rest)| (Value::String(s), rest)),
            marker::LONG_STRING => long_string(rest).map(|(s, rest)| (Value::String(s), rest)),
            marker::XML_DOCUMENT => long_string(rest).map(|(s, r)| (Value::XmlDocument(s), r)),
            marker::OBJECT => self
                .properties(rest, depth)
                .map(|(p, rest)| (Value::Object(p), rest)),
            marker::NULL => Ok((Value::Null, rest)),
            marker::UNDEFINED => Ok((Value::Undefined, rest)),
            marker::REFERENCE => leaf(map(be_u16, Value::Reference).parse(rest)),
            marker::ECMA_ARRAY => {
                // The count is advisory; the end marker decides.
                let (_count, rest) = leaf(be_u32(rest))?;
                self.properties(rest, depth)
                    .map(|(p, rest)| (Value::EcmaArray(p), rest))
            }
            marker::STRICT_ARRAY => self.strict_array(rest, depth),
            marker::DATE => {
                let date = map((be_f64, be_i16), |(millis, timezone)| Value::Date {
                    millis,
                    timezone,
                });
                leaf({ date }.parse(rest))
            }
            marker::UNSUPPORTED => Ok((Value::Unsupported, rest)),
            marker::TYPED_OBJECT => {
                let (class, rest) = short_string(rest)?;
                let (properties, rest) = self.properties(rest, depth)?;
                Ok((Value::TypedObject { class, properties }, rest))
            }
            marker::AVMPLUS => {
                self.had_amf3 = true;
                amf3::read_value(rest, depth, &mut self.limits)
            }
            unknown => Err(Error::UnknownMarker(unknown)),
        }
    }

    /// Reads properties up to the end marker. Some encoders omit it at the end of a message, so the
    /// end of the input between two properties ends them too.
    fn properties<'a>(&mut self, input: &'a [u8], depth: usize) -> Step<'a, Properties> {
        let mut properties = Vec::new();
        let mut rest = input;
        while !rest.is_empty() {
            let (name, after) = short_string(rest)?;
            if name.is_empty() && after.first() == Some(&marker::OBJECT_END) {
                return Ok((properties, &after[1..]));
            }
            self.limits.count_one()?;
            let (value, after) = self.value(after, depth + 1)?;
            properties.push((name, value));
            rest = after;
        }
        Ok((properties, rest))
    }

    fn strict_array<'a>(&mut self, input: &'a [u8], depth: usize) -> Step<'a, Value> {
        let (count, mut rest) = leaf(be_u32(input))?;
        let mut values = Vec::new();
        for _ in 0..count {
            self.limits.count_one()?;
            let (value, after) = self.value(rest, depth + 1)?;
            values.push(value);
            rest = after;
        }
        Ok((Value::StrictArray(values), rest))
    }
}
