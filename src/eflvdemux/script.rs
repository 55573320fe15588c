// SPDX-License-Identifier: MPL-2.0

//! Script data on its way to the application.

use crate::amf0::Value;
use crate::flv::body::Script;

/// Name of the custom event and of the element message.
pub(super) const SCRIPT_DATA: &str = "rtmp2-script-data";

/// Script data that is no metadata of the stream: cue points, captions, texts.
#[derive(Debug, PartialEq)]
pub(super) struct ScriptData {
    pub(super) time: gst::ClockTime,
    pub(super) name: String,
    /// The values as a JSON array. A structure would keep each property name for ever, as a quark,
    /// and publishers can make up any number of names.
    pub(super) json: String,
    /// The body of the tag.
    pub(super) body: Vec<u8>,
}

impl ScriptData {
    pub(super) fn new(time: gst::ClockTime, script: Script, body: &[u8]) -> Self {
        let mut json = String::new();
        write_array(&mut json, &script.values);
        ScriptData {
            time,
            // Structures take no NUL in a text.
            name: script.name.replace('\0', "\u{FFFD}"),
            json,
            body: body.to_vec(),
        }
    }

    /// `running_time`: None outside the segment.
    pub(super) fn to_structure(&self, running_time: Option<gst::ClockTime>) -> gst::Structure {
        gst::Structure::builder(SCRIPT_DATA)
            .field("name", &self.name)
            .field("timestamp", self.time)
            .field_if_some("running-time", running_time)
            .field("values", &self.json)
            .field("body", gst::Buffer::from_slice(self.body.clone()))
            .build()
    }
}

fn write_array(out: &mut String, values: &[Value]) {
    out.push('[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_value(out, value);
    }
    out.push(']');
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Number(number) | Value::Date { millis: number, .. } => write_number(out, *number),
        Value::Boolean(boolean) => out.push_str(if *boolean { "true" } else { "false" }),
        Value::String(text) | Value::XmlDocument(text) => write_text(out, text),
        Value::StrictArray(values) => write_array(out, values),
        Value::Bytes(bytes) => {
            let numbers = bytes.iter().map(|byte| byte.to_string());
            out.push('[');
            out.push_str(&numbers.collect::<Vec<_>>().join(","));
            out.push(']');
        }
        Value::Object(properties)
        | Value::EcmaArray(properties)
        | Value::TypedObject { properties, .. } => {
            out.push('{');
            for (index, (name, value)) in properties.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(out, name);
                out.push(':');
                write_value(out, value);
            }
            out.push('}');
        }
        Value::Null | Value::Undefined | Value::Unsupported | Value::Reference(_) => {
            out.push_str("null");
        }
    }
}

/// JSON has no infinity and no NaN.
fn write_number(out: &mut String, number: f64) {
    if number.is_finite() {
        out.push_str(&number.to_string());
    } else {
        out.push_str("null");
    }
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if u32::from(control) < 0x20 => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            character => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json() {
        let object = Value::Object(vec![
            ("te\"xt".to_owned(), "a\\b\n\0ü".into()),
            ("none".to_owned(), Value::Undefined),
            ("list".to_owned(), Value::StrictArray(vec![1.5.into()])),
        ]);
        let values = vec![
            object,
            Value::Boolean(true),
            f64::NAN.into(),
            (-3e300).into(),
            Value::Bytes(vec![1, 255]),
        ];
        let script = Script {
            name: "on\0Text".to_owned(),
            values,
        };
        gst::init().unwrap();
        let data = ScriptData::new(gst::ClockTime::SECOND, script, b"body");
        let parsed: serde_json::Value = serde_json::from_str(&data.json).unwrap();
        let expected = serde_json::json!([
            {"te\"xt": "a\\b\n\0ü", "none": null, "list": [1.5]},
            true,
            null,
            -3e300,
            [1, 255],
        ]);
        assert_eq!(parsed, expected);
        let structure = data.to_structure(None);
        assert_eq!(structure.get("name"), Ok("on\u{FFFD}Text"));
        assert_eq!(structure.get("timestamp"), Ok(gst::ClockTime::SECOND));
        assert!(!structure.has_field("running-time"));
    }
}
