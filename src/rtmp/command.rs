// SPDX-License-Identifier: MPL-2.0

//! Command messages: a name, a transaction id and arguments in AMF0 (section 7.1.1).

use std::borrow::Cow;

use crate::amf0::{self, MAX_PROPERTIES, Value};
use crate::rtmp::limits::MAX_COMMAND;

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

    /// Reads the body of a command message of either AMF kind. A missing transaction id is 0. Some
    /// encoders send bytes after the arguments: they are ignored.
    pub fn read(body: &[u8]) -> Result<Self, amf0::Error> {
        if body.len() > MAX_COMMAND {
            return Err(amf0::Error::TooLarge);
        }
        let leading = amf0::read_leading(without_selector(body), MAX_PROPERTIES);
        let mut values = leading.decoded.values.into_iter().peekable();
        let Some(Value::String(name)) = values.next() else {
            return Err(leading.error.unwrap_or(amf0::Error::Truncated));
        };
        let transaction_id = values
            .next_if(|value| value.properties().is_none())
            .and_then(|value| value.as_number());
        let command = Command {
            name,
            transaction_id: transaction_id.unwrap_or(0.0),
            arguments: values.collect(),
        };
        match leading.error {
            Some(error) if error.is_limit() || !command.has_required_arguments() => Err(error),
            _ => Ok(command),
        }
    }

    /// Returns false if the argument that gives this command its meaning is missing.
    fn has_required_arguments(&self) -> bool {
        match self.name.as_str() {
            "connect" => !self.arguments.is_empty(),
            "publish" | "FCPublish" | "FCUnpublish" => self.argument(0).is_some(),
            _ => true,
        }
    }

    pub fn write(&self) -> Vec<u8> {
        let mut body = Vec::new();
        amf0::write_value(&mut body, &self.name.as_str().into());
        amf0::write_value(&mut body, &self.transaction_id.into());
        amf0::write_all(&mut body, &self.arguments);
        body
    }

    /// Returns the argument at this place after the command object, which some clients leave out.
    pub fn argument(&self, index: usize) -> Option<&Value> {
        let is_command_object = |value: &Value| {
            let is_nothing = matches!(value, Value::Null | Value::Undefined | Value::Unsupported);
            is_nothing || value.properties().is_some()
        };
        let skipped = self.arguments.first().is_some_and(is_command_object);
        self.arguments.get(index + usize::from(skipped))
    }

    /// Returns the name of a stream, in the commands that have one. A number is a name too.
    pub fn stream_name(&self) -> Cow<'_, str> {
        match self.argument(0) {
            Some(Value::Number(number)) => number.to_string().into(),
            Some(value) => value.as_str().unwrap_or_default().into(),
            None => "".into(),
        }
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
        assert_eq!(command.stream_name(), "key");
        let amf3 = [&[0][..], &command.write()].concat();
        assert_eq!(Command::read(&amf3), Ok(command));
    }

    #[test]
    fn arguments_are_read_by_place() {
        let name = |arguments: &[Value]| {
            let command = Command::new("publish", 1.0, arguments.to_vec());
            let read = Command::read(&command.write()).unwrap();
            read.stream_name().into_owned()
        };
        let object = Value::Object(vec![]);
        assert_eq!(name(&[Value::Null, "key".into(), "live".into()]), "key");
        assert_eq!(name(&[object, "key".into(), "live".into()]), "key");
        assert_eq!(name(&["key".into(), "live".into()]), "key");
        assert_eq!(name(&[Value::Null, 1234.0.into(), "live".into()]), "1234");
        assert_eq!(name(&[1234.5.into(), "live".into()]), "1234.5");
        assert_eq!(name(&[Value::Null, Value::Null, "live".into()]), "");
        assert_eq!(name(&[Value::Null, Value::Undefined]), "");
        assert_eq!(name(&[Value::Null]), "");
        assert_eq!(name(&[]), "");
    }

    #[test]
    fn transaction_id_may_be_missing_before_an_object() {
        let mut body = Vec::new();
        let object = Value::Object(vec![("app".into(), "live".into())]);
        amf0::write_all(&mut body, &["connect".into(), object.clone()]);
        let command = Command::read(&body).unwrap();
        assert_eq!(
            (command.transaction_id, command.arguments),
            (0.0, vec![object])
        );
    }

    #[test]
    fn bytes_after_the_arguments_are_ignored() {
        let object = Value::Object(vec![("app".into(), "live".into())]);
        for (name, arguments) in [
            ("connect", vec![object]),
            ("createStream", vec![Value::Null]),
            ("createStream", vec![]),
            ("publish", vec![Value::Null, "key".into(), "live".into()]),
            ("publish", vec!["key".into()]),
            ("FCUnpublish", vec![Value::Null, "key".into()]),
            ("deleteStream", vec![Value::Null, 1.0.into()]),
        ] {
            let command = Command::new(name, 4.0, arguments);
            for trailing in [&[0][..], &[0; 8], &[0xFF], &[9], &[0, 0, 9], &[2, 0, 9, 1]] {
                let body = [&command.write(), trailing].concat();
                assert_eq!(Command::read(&body), Ok(command.clone()), "{trailing:?}");
            }
        }
    }

    #[test]
    fn truncated_arguments_are_malformed_where_the_command_needs_them() {
        let object = Value::Object(vec![("app".into(), "live".into())]);
        for (name, argument) in [("connect", object), ("publish", "key".into())] {
            let body = Command::new(name, 4.0, vec![argument]).write();
            let truncated = &body[..body.len() - 4];
            assert!(Command::read(truncated).is_err(), "{name}");
        }
        let nested = [3u8, 0, 1, b'a'].repeat(40);
        let body = [Command::new("createStream", 1.0, vec![]).write(), nested].concat();
        assert_eq!(Command::read(&body), Err(amf0::Error::TooDeep));
        let long = "x".repeat(MAX_COMMAND);
        let body = Command::new("createStream", 1.0, vec![long.as_str().into()]).write();
        assert_eq!(Command::read(&body), Err(amf0::Error::TooLarge));
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
