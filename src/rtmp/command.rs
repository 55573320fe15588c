// SPDX-License-Identifier: MPL-2.0

//! Command messages: a name, a transaction id and arguments in AMF0 (section 7.1.1).

use crate::amf0::{self, Value};

/// A command, received or to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    pub name: String,
    pub transaction_id: f64,
    /// The values after the transaction id: the command object, then the arguments.
    pub arguments: Vec<Value>,
}

impl Command {
    pub fn new(name: &str, transaction_id: f64, arguments: Vec<Value>) -> Self {
        Command {
            name: name.to_owned(),
            transaction_id,
            arguments,
        }
    }

    /// An `onStatus` command: the state of a connection or stream (section 7.2.2).
    pub fn on_status(properties: Vec<(String, Value)>) -> Self {
        Command::new(
            "onStatus",
            0.0,
            vec![Value::Null, Value::Object(properties)],
        )
    }

    /// Reads the body of a command message of either AMF kind. A missing transaction id is 0.
    pub fn read(body: &[u8]) -> Result<Self, amf0::Error> {
        let mut values = amf0::read_all(without_selector(body))?.values.into_iter();
        let name = match values.next() {
            Some(Value::String(name)) => name,
            _ => return Err(amf0::Error::Truncated),
        };
        let transaction_id = values.next().as_ref().and_then(Value::as_number);
        Ok(Command {
            name,
            transaction_id: transaction_id.unwrap_or(0.0),
            arguments: values.collect(),
        })
    }

    pub fn write(&self) -> Vec<u8> {
        let mut body = Vec::new();
        amf0::write_value(&mut body, &self.name.as_str().into());
        amf0::write_value(&mut body, &self.transaction_id.into());
        amf0::write_all(&mut body, &self.arguments);
        body
    }

    /// The first string after the command object: the stream key, in the commands that have one.
    pub fn first_string(&self) -> Option<&str> {
        self.arguments.iter().skip(1).find_map(Value::as_str)
    }
}

/// Strips the first byte of a message of an AMF3 type. It selects the format that follows, and is
/// always 0 for AMF0. Some clients leave it out.
pub(super) fn without_selector(body: &[u8]) -> &[u8] {
    body.strip_prefix(&[0]).unwrap_or(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_round_trip() {
        let arguments = vec![Value::Null, "key".into(), "live".into()];
        let command = Command::new("publish", 5.0, arguments);
        assert_eq!(Command::read(&command.write()), Ok(command.clone()));
        assert_eq!(command.first_string(), Some("key"));
        let amf3 = [&[0][..], &command.write()].concat();
        assert_eq!(Command::read(&amf3), Ok(command));
    }

    #[test]
    fn name_is_required_and_transaction_id_is_optional() {
        let named = Command::read(&[2, 0, 1, b'x']).unwrap();
        assert_eq!(named.transaction_id, 0.0);
        assert!(named.arguments.is_empty());
        assert!(Command::read(&[]).is_err());
        assert!(Command::read(&[5]).is_err());
    }
}
