// SPDX-License-Identifier: MPL-2.0

//! AMF3 reader, for values after the AMF0 marker 0x11.
//!
//! Adobe, "AMF 3 Specification", 2013. Strings, objects and traits each have a reference table
//! that lives as long as the value (section 3.1). A reference to a complex value is read as
//! undefined, so that a few bytes can't grow into a large tree.

use std::rc::Rc;

use nom::bytes::complete::take;
use nom::combinator::map;
use nom::number::complete::{be_f64, be_u8};
use nom::{IResult, Parser};

use super::limits::Limits;
use super::step::{leaf, text};
use super::{Error, Properties, Value};

mod marker {
    pub(super) const UNDEFINED: u8 = 0x00;
    pub(super) const NULL: u8 = 0x01;
    pub(super) const FALSE: u8 = 0x02;
    pub(super) const TRUE: u8 = 0x03;
    pub(super) const INTEGER: u8 = 0x04;
    pub(super) const DOUBLE: u8 = 0x05;
    pub(super) const STRING: u8 = 0x06;
    pub(super) const XML_DOCUMENT: u8 = 0x07;
    pub(super) const DATE: u8 = 0x08;
    pub(super) const ARRAY: u8 = 0x09;
    pub(super) const OBJECT: u8 = 0x0A;
    pub(super) const XML: u8 = 0x0B;
    pub(super) const BYTE_ARRAY: u8 = 0x0C;
}

type Step<'a, T> = Result<(T, &'a [u8]), Error>;

struct Traits {
    class: String,
    dynamic: bool,
    members: Vec<String>,
}

/// The length, count or flags of a value that follows, or the index of an earlier one (section
/// 1.3.1: the lowest bit distinguishes them).
enum Header {
    Inline(u32),
    Reference(u32),
}

struct Reader<'l> {
    limits: &'l mut Limits,
    strings: Vec<String>,
    traits: Vec<Rc<Traits>>,
}

/// Reads one AMF3 value.
pub(super) fn read_value<'a>(
    input: &'a [u8],
    depth: usize,
    limits: &mut Limits,
) -> Step<'a, Value> {
    Reader {
        limits,
        strings: Vec::new(),
        traits: Vec::new(),
    }
    .value(input, depth)
}

/// Reads the variable-length integer of section 1.3.1: 7 bits a byte, 8 in the fourth.
fn u29(input: &[u8]) -> IResult<&[u8], u32, ()> {
    let mut value = 0u32;
    let mut rest = input;
    for _ in 0..3 {
        let (after, byte) = be_u8(rest)?;
        rest = after;
        value = (value << 7) | u32::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            return Ok((rest, value));
        }
    }
    let (rest, byte) = be_u8(rest)?;
    Ok((rest, (value << 8) | u32::from(byte)))
}

fn header(input: &[u8]) -> Step<'_, Header> {
    let (value, rest) = leaf(u29(input))?;
    let header = match value & 1 {
        1 => Header::Inline(value >> 1),
        _ => Header::Reference(value >> 1),
    };
    Ok((header, rest))
}

/// Extends the sign of a 29-bit integer.
fn integer(value: u32) -> f64 {
    f64::from(((value << 3) as i32) >> 3)
}

impl Reader<'_> {
    fn value<'a>(&mut self, input: &'a [u8], depth: usize) -> Step<'a, Value> {
        Limits::check_depth(depth)?;
        let (kind, rest) = leaf(be_u8(input))?;
        match kind {
            marker::UNDEFINED => Ok((Value::Undefined, rest)),
            marker::NULL => Ok((Value::Null, rest)),
            marker::FALSE => Ok((Value::Boolean(false), rest)),
            marker::TRUE => Ok((Value::Boolean(true), rest)),
            marker::INTEGER => leaf(map(u29, |v| Value::Number(integer(v))).parse(rest)),
            marker::DOUBLE => leaf(map(be_f64, Value::Number).parse(rest)),
            marker::STRING => self.string(rest).map(|(s, rest)| (Value::String(s), rest)),
            marker::XML_DOCUMENT | marker::XML => {
                blob(rest, |bytes| Value::XmlDocument(text(bytes)))
            }
            marker::BYTE_ARRAY => blob(rest, |bytes| Value::Bytes(bytes.to_vec())),
            marker::DATE => match header(rest)? {
                (Header::Reference(_), rest) => Ok((Value::Undefined, rest)),
                (Header::Inline(_), rest) => leaf(
                    map(be_f64, |millis| Value::Date {
                        millis,
                        timezone: 0,
                    })
                    .parse(rest),
                ),
            },
            marker::ARRAY => self.array(rest, depth),
            marker::OBJECT => self.object(rest, depth),
            unknown => Err(Error::UnknownMarker(unknown)),
        }
    }

    fn string<'a>(&mut self, input: &'a [u8]) -> Step<'a, String> {
        match header(input)? {
            (Header::Reference(index), rest) => {
                let string = self.strings.get(index as usize);
                let string = string.ok_or(Error::BadReference(index))?;
                Ok((self.limits.copy(string)?, rest))
            }
            (Header::Inline(length), rest) => {
                let (string, rest) = leaf(map(take(length), text).parse(rest))?;
                if !string.is_empty() {
                    self.strings.push(string.clone());
                }
                Ok((string, rest))
            }
        }
    }

    fn array<'a>(&mut self, input: &'a [u8], depth: usize) -> Step<'a, Value> {
        let (count, rest) = match header(input)? {
            (Header::Reference(_), rest) => return Ok((Value::Undefined, rest)),
            (Header::Inline(count), rest) => (count, rest),
        };
        let (associative, mut rest) = self.dynamic_members(rest, depth)?;
        let mut dense = Vec::new();
        for _ in 0..count {
            self.limits.count_one()?;
            let (value, after) = self.value(rest, depth + 1)?;
            dense.push(value);
            rest = after;
        }
        if associative.is_empty() {
            return Ok((Value::StrictArray(dense), rest));
        }
        let mut properties = associative;
        let numbered = dense.into_iter().enumerate();
        properties.extend(numbered.map(|(index, value)| (index.to_string(), value)));
        Ok((Value::EcmaArray(properties), rest))
    }

    fn object<'a>(&mut self, input: &'a [u8], depth: usize) -> Step<'a, Value> {
        let (traits, mut rest) = match header(input)? {
            (Header::Reference(_), rest) => return Ok((Value::Undefined, rest)),
            (Header::Inline(flags), rest) => self.traits(flags, rest)?,
        };
        let mut properties = Vec::new();
        for name in &traits.members {
            self.limits.count_one()?;
            let name = self.limits.copy(name)?;
            let (value, after) = self.value(rest, depth + 1)?;
            properties.push((name, value));
            rest = after;
        }
        if traits.dynamic {
            let (members, after) = self.dynamic_members(rest, depth)?;
            properties.extend(members);
            rest = after;
        }
        let value = if traits.class.is_empty() {
            Value::Object(properties)
        } else {
            Value::TypedObject {
                class: self.limits.copy(&traits.class)?,
                properties,
            }
        };
        Ok((value, rest))
    }

    /// Reads the shape of an object (section 3.12). Only its class can read the body of an
    /// externalizable one.
    fn traits<'a>(&mut self, flags: u32, input: &'a [u8]) -> Step<'a, Rc<Traits>> {
        if flags & 1 == 0 {
            let traits = self.traits.get((flags >> 1) as usize);
            let traits = traits.ok_or(Error::BadReference(flags >> 1))?;
            return Ok((Rc::clone(traits), input));
        }
        if flags & 2 != 0 {
            return Err(Error::UnknownMarker(marker::OBJECT));
        }
        let (class, mut rest) = self.string(input)?;
        let mut members = Vec::new();
        for _ in 0..flags >> 3 {
            self.limits.count_one()?;
            let (name, after) = self.string(rest)?;
            members.push(name);
            rest = after;
        }
        let traits = Rc::new(Traits {
            class,
            dynamic: flags & 4 != 0,
            members,
        });
        self.traits.push(Rc::clone(&traits));
        Ok((traits, rest))
    }

    /// Reads names and values up to the empty name.
    fn dynamic_members<'a>(&mut self, input: &'a [u8], depth: usize) -> Step<'a, Properties> {
        let mut properties = Vec::new();
        let mut rest = input;
        loop {
            let (name, after) = self.string(rest)?;
            if name.is_empty() {
                return Ok((properties, after));
            }
            self.limits.count_one()?;
            let (value, after) = self.value(after, depth + 1)?;
            properties.push((name, value));
            rest = after;
        }
    }
}

fn blob<'a>(input: &'a [u8], value: impl FnOnce(&[u8]) -> Value) -> Step<'a, Value> {
    match header(input)? {
        (Header::Reference(_), rest) => Ok((Value::Undefined, rest)),
        (Header::Inline(length), rest) => {
            let (bytes, rest) = leaf(take(length)(rest))?;
            Ok((value(bytes), rest))
        }
    }
}
