// SPDX-License-Identifier: MPL-2.0

//! The log of the programs: lines of text for people, or a JSON object for each line.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use gst::glib;
use serde_json::{Map, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// A JSON object on each line
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Warning,
}

type Output = dyn Fn(Level, String) -> Option<String> + Send + Sync;

static IS_JSON: AtomicBool = AtomicBool::new(false);
static OUTPUT: OnceLock<Box<Output>> = OnceLock::new();

/// Sets the format of all lines from here on.
pub fn set_format(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

/// Sends all lines elsewhere than to standard output and standard error, except those that `output`
/// returns since nobody takes them any more. Only the first call has an effect.
pub fn set_output(output: impl Fn(Level, String) -> Option<String> + Send + Sync + 'static) {
    let _ = OUTPUT.set(Box::new(output));
}

/// One line of the log, with fields for programs that read it.
#[derive(Debug)]
#[must_use = "an entry appears in the log once it has its text"]
pub struct Entry {
    level: Level,
    event: &'static str,
    fields: Map<String, Value>,
}

/// Starts an entry about a normal event.
pub fn info(event: &'static str) -> Entry {
    Entry::new(Level::Info, event)
}

/// Starts an entry about an event that someone may have to look at.
pub fn warning(event: &'static str) -> Entry {
    Entry::new(Level::Warning, event)
}

impl Entry {
    fn new(level: Level, event: &'static str) -> Self {
        Entry {
            level,
            event,
            fields: Map::new(),
        }
    }

    /// Adds a field, which only the JSON form shows: the text says the same in words.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// Writes the line.
    pub fn say(self, text: impl AsRef<str>) {
        let level = self.level;
        let line = self.line(text);
        let line = match OUTPUT.get() {
            Some(output) => output(level, line),
            None => Some(line),
        };
        let Some(line) = line else {
            return;
        };
        match level {
            Level::Info => write_line(std::io::stdout(), &line),
            Level::Warning => write_line(std::io::stderr(), &line),
        }
    }

    /// Returns the line instead of writing it.
    pub fn line(self, text: impl AsRef<str>) -> String {
        match IS_JSON.load(Ordering::Relaxed) {
            true => self.json(text.as_ref(), &now()),
            // Names come from clients, and must not forge lines or steer a terminal.
            false => one_line(text.as_ref()),
        }
    }

    fn json(self, text: &str, time: &str) -> String {
        let level = match self.level {
            Level::Info => "info",
            Level::Warning => "warning",
        };
        let mut object = self.fields;
        let own = [
            ("time", time),
            ("level", level),
            ("event", self.event),
            ("message", text),
        ];
        for (name, value) in own {
            object.insert(name.to_owned(), value.into());
        }
        Value::Object(object).to_string()
    }
}

/// Returns the exit code of a program, and says in the log why it has failed.
pub fn exit_code<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warning("error").say(error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Writes a line at once: standard output and standard error may be the same pipe, and standard error
/// has no buffer that would keep a line together.
pub fn write_line(mut out: impl Write, line: &str) {
    // The reader may be gone, which is no reason to end.
    let _ = out.write_all(format!("{line}\n").as_bytes());
}

/// Returns a text with its control characters in visible form.
fn one_line(text: &str) -> String {
    let visible = |c: char| match c.is_control() {
        true => c.escape_default().collect(),
        false => String::from(c),
    };
    text.chars().map(visible).collect()
}

/// Returns the time in the form of RFC 3339, in UTC.
fn now() -> String {
    let time = glib::DateTime::now_utc().ok();
    let seconds = time
        .as_ref()
        .and_then(|time| time.format("%Y-%m-%dT%H:%M:%S").ok());
    let millis = time.map_or(0, |time| time.microsecond() / 1000);
    format!("{}.{millis:03}Z", seconds.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_lines_hold_text_and_fields_whatever_they_contain() {
        let entry = warning("rejected")
            .with("reason", "no-stream")
            .with("suppressed", 3)
            // A field never hides one of the line's own.
            .with("event", "forged");
        let line = entry.json("refused \"live\"\nsecond line", "2026-02-03T04:05:06.789Z");
        assert_eq!(line.lines().count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "time": "2026-02-03T04:05:06.789Z",
            "level": "warning",
            "event": "rejected",
            "message": "refused \"live\"\nsecond line",
            "reason": "no-stream",
            "suppressed": 3,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn times_are_in_utc_with_milliseconds() {
        let time = now();
        assert_eq!(time.len(), "2026-02-03T04:05:06.789Z".len(), "{time}");
        let parsed = glib::DateTime::from_iso8601(&time, None).unwrap();
        let age = glib::DateTime::now_utc().unwrap().difference(&parsed);
        assert!(age.as_seconds() < 60, "{time}");
    }

    #[test]
    fn lines_are_written_at_once() {
        #[derive(Default)]
        struct Unbuffered(Vec<Vec<u8>>);

        impl Write for &mut Unbuffered {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.push(bytes.to_vec());
                Ok(bytes.len())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        let mut out = Unbuffered::default();
        write_line(&mut out, "camera1: here");
        assert_eq!(out.0, [b"camera1: here\n"]);
    }

    #[test]
    fn text_lines_are_the_text_alone() {
        let line = info("connected")
            .with("stream", "camera1")
            .line("camera1: here");
        assert_eq!(line, "camera1: here");
    }

    #[test]
    fn text_lines_stay_lines_whatever_they_contain() {
        let line = info("connected").line("café\r\nforged \u{1b}[2J\u{85}");
        assert_eq!(line, "café\\r\\nforged \\u{1b}[2J\\u{85}");
    }
}
