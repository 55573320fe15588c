// SPDX-License-Identifier: MPL-2.0

//! Action Message Format: the values in RTMP commands and FLV script data.
//!
//! AMF0 is the format in use (Adobe, "AMF 0 File Format Specification", 2007). AMF3 occurs only
//! after the AMF0 marker 0x11; it is read into the same [`Value`]s and never written.
//!
//! No input panics or allocates more than a small multiple of its size.

mod amf3;
mod limits;
mod read;
mod scan;
mod script;
mod step;
mod write;

pub use read::{Decoded, Leading, read_all, read_leading, read_name};
pub use scan::{Scan, scan};
pub use script::{SET_DATA_FRAME, script_offset};
pub use write::{write_all, write_value};

/// Deepest nesting in one message. Bounds the recursion of the reader, and therefore its stack.
pub const MAX_DEPTH: usize = 32;

/// Most properties and array elements in one message. Bounds the memory and the time that a message
/// of minimal values can cost.
pub const MAX_PROPERTIES: usize = 1000;

/// Most bytes of strings that AMF3 references copy in one message. Bounds the growth of one long
/// string and many two-byte references to it.
pub const MAX_COPIED: usize = 1024 * 1024;

/// Names and values in the order of the message. Names may repeat; the first one counts.
pub type Properties = Vec<(String, Value)>;

/// One AMF value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Number(f64),
    Boolean(bool),
    /// A string of either length form (markers 0x02 and 0x0C).
    String(String),
    Object(Properties),
    Null,
    Undefined,
    /// An index into the objects of the message. Kept, not resolved: no client sends them.
    Reference(u16),
    EcmaArray(Properties),
    StrictArray(Vec<Value>),
    /// Milliseconds since 1970-01-01 UTC, and a time zone in minutes that is to be ignored.
    Date {
        millis: f64,
        timezone: i16,
    },
    Unsupported,
    XmlDocument(String),
    TypedObject {
        class: String,
        properties: Properties,
    },
    /// An AMF3 byte array; AMF0 has none.
    Bytes(Vec<u8>),
}

impl Value {
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(s) | Value::XmlDocument(s) => Some(s),
            _ => None,
        }
    }

    pub fn as_number(&self) -> Option<f64> {
        match self {
            Value::Number(n) => Some(*n),
            _ => None,
        }
    }

    /// Returns the properties of an object, an ECMA array or a typed object.
    pub fn properties(&self) -> Option<&[(String, Value)]> {
        match self {
            Value::Object(properties)
            | Value::EcmaArray(properties)
            | Value::TypedObject { properties, .. } => Some(properties),
            _ => None,
        }
    }

    /// Returns the property `name`, ignoring its case: clients write `tcUrl` and `tcurl`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.properties()?
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Value::String(s.to_owned())
    }
}

impl From<f64> for Value {
    fn from(n: f64) -> Self {
        Value::Number(n)
    }
}

/// The reason why bytes are not AMF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("AMF value is cut short")]
    Truncated,
    #[error("AMF marker {0:#04x} is unknown")]
    UnknownMarker(u8),
    #[error("AMF values are nested deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("AMF message has over {0} properties")]
    TooManyProperties(usize),
    #[error("AMF message is too large")]
    TooLarge,
    #[error("AMF3 reference {0} points at nothing")]
    BadReference(u32),
}

impl Error {
    /// Returns true if the values are over a limit, rather than malformed.
    pub fn is_limit(self) -> bool {
        matches!(
            self,
            Error::TooDeep | Error::TooManyProperties(_) | Error::TooLarge
        )
    }
}

#[cfg(test)]
mod tests;
