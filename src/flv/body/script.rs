// SPDX-License-Identifier: MPL-2.0

//! Script tag bodies (E.4.4): a name and values.

use bytes::BufMut;

use super::{BodyError, MAX_SCRIPT_PROPERTIES};
use crate::amf0::{self, Value};

/// The name that publishers put before script data to be stored. Recorders that do not know it keep
/// it.
const SET_DATA_FRAME: &str = "@setDataFrame";

/// The body of a script tag.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    pub name: String,
    pub values: Vec<Value>,
}

impl Script {
    /// Parses script data without a leading `@setDataFrame`.
    pub fn parse(body: &[u8]) -> Result<Self, BodyError> {
        if body.is_empty() {
            return Err(BodyError::Empty);
        }
        let mut values = amf0::read_all_within(body, MAX_SCRIPT_PROPERTIES)?.values;
        if values.first().and_then(Value::as_str) == Some(SET_DATA_FRAME) {
            values.remove(0);
        }
        match values.first() {
            Some(Value::String(name)) => {
                let name = name.clone();
                values.remove(0);
                Ok(Script { name, values })
            }
            _ => Err(BodyError::NoName),
        }
    }

    pub fn write(&self, out: &mut impl BufMut) {
        amf0::write_value(out, &Value::String(self.name.clone()));
        amf0::write_all(out, &self.values);
    }
}
