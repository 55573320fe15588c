// SPDX-License-Identifier: MPL-2.0

//! Script tag bodies (E.4.4): a name and values.

use bytes::BufMut;

use super::{BodyError, MAX_SCRIPT_PROPERTIES};
use crate::amf0::{self, SET_DATA_FRAME, Value};

/// Bytes of a number in an array. An index of that many values may be as long as the tag.
const NUMBER_LENGTH: usize = 9;

/// The body of a script tag.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    pub name: String,
    pub values: Vec<Value>,
}

impl Script {
    /// Parses script data as leniently as a server does: values before the name, `@setDataFrame`
    /// and malformed bytes after whole values are skipped.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        if body.is_empty() {
            return Err(BodyError::Empty);
        }
        let offset = amf0::script_offset(body).unwrap_or_default();
        let max_properties = MAX_SCRIPT_PROPERTIES.max(body.len() / NUMBER_LENGTH);
        let leading = amf0::read_leading(&body[offset..], max_properties);
        let mut values = leading.decoded.values.into_iter().peekable();
        values.next_if(|value| value.as_str() == Some(SET_DATA_FRAME));
        let name = values.next();
        if let Some(error) = leading.error
            && values.len() == 0
        {
            return Err(error.into());
        }
        match name {
            Some(Value::String(name)) => Ok(Script {
                name,
                values: values.collect(),
            }),
            _ => Err(BodyError::NoName),
        }
    }

    pub fn write(&self, out: &mut impl BufMut) {
        amf0::write_value(out, &Value::String(self.name.clone()));
        amf0::write_all(out, &self.values);
    }
}
