// SPDX-License-Identifier: MPL-2.0

//! The syntax of the configuration. `plan` gives it its meaning.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::object::{self, Object};

/// The reason why a configuration cannot be used. It contains no text of the file, which has stream
/// keys in it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{file}: {error}")]
    Unreadable { file: String, error: io::Error },
    #[error("{file}:{line}:{column}: {place}{what}")]
    Syntax {
        file: String,
        line: usize,
        column: usize,
        place: String,
        what: String,
    },
    #[error("{}", lines(file, problems))]
    Meaning {
        file: String,
        problems: Vec<Problem>,
    },
}

/// A value that can be read but not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The place in the file, as `cameras[2].streams[0].urls[1]`.
    pub place: String,
    pub what: String,
}

fn lines(file: &str, problems: &[Problem]) -> String {
    let line = |problem: &Problem| format!("{file}: {}: {}", problem.place, problem.what);
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub type Variables = BTreeMap<String, String>;

/// A value further inside replaces one further outside.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default, deserialize_with = "object::plain")]
    pub listen: Listen,
    #[serde(default, deserialize_with = "object::of_texts")]
    pub variables: Variables,
    #[serde(default, deserialize_with = "object::optional")]
    pub source: Option<SourceConfig>,
    pub url_template: Option<String>,
    pub fallback_urls: Option<Vec<String>>,
    #[serde(default, deserialize_with = "object::plain")]
    pub retry: Retry,
    #[serde(deserialize_with = "object::list")]
    pub cameras: Vec<CameraConfig>,
}

/// The address that publishers connect to, for sources of the kind `rtmp`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    pub host: String,
    pub port: u16,
}

impl Default for Listen {
    fn default() -> Self {
        Listen {
            host: "::".to_owned(),
            port: 1935,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraConfig {
    pub id: String,
    #[serde(default, deserialize_with = "object::of_texts")]
    pub variables: Variables,
    #[serde(default, deserialize_with = "object::optional")]
    pub source: Option<SourceConfig>,
    pub url_template: Option<String>,
    pub fallback_urls: Option<Vec<String>>,
    #[serde(default, deserialize_with = "object::plain")]
    pub retry: Retry,
    #[serde(deserialize_with = "object::list")]
    pub streams: Vec<StreamConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    pub name: String,
    #[serde(default, deserialize_with = "object::of_texts")]
    pub variables: Variables,
    #[serde(default, deserialize_with = "object::optional")]
    pub source: Option<SourceConfig>,
    /// Replaces `url_template`.
    pub urls: Option<Vec<String>>,
    pub fallback_urls: Option<Vec<String>>,
    #[serde(default, deserialize_with = "object::plain")]
    pub retry: Retry,
}

/// Each field is inherited by itself.
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    pub initial_delay_ms: Option<u32>,
    pub max_delay_ms: Option<u32>,
    pub max_attempts: Option<u32>,
    pub return_to_primary_ms: Option<u32>,
    pub timeout_ms: Option<u32>,
}

#[derive(Deserialize, Clone)]
#[serde(try_from = "Sources")]
pub enum SourceConfig {
    Rtmp(Rtmp),
    File(File),
    Test(Test),
}

/// The four keys as they are written: an enum of serde would not say which key is one too many.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sources {
    #[serde(default, deserialize_with = "object::optional")]
    rtmp: Option<Rtmp>,
    #[serde(default, deserialize_with = "object::optional")]
    file: Option<File>,
    #[serde(default, deserialize_with = "object::optional")]
    test: Option<Test>,
}

impl TryFrom<Sources> for SourceConfig {
    type Error = &'static str;

    fn try_from(sources: Sources) -> Result<Self, Self::Error> {
        match (sources.rtmp, sources.file, sources.test) {
            (Some(rtmp), None, None) => Ok(SourceConfig::Rtmp(rtmp)),
            (None, Some(file), None) => Ok(SourceConfig::File(file)),
            (None, None, Some(test)) => Ok(SourceConfig::Test(test)),
            _ => Err("it must be one of `rtmp`, `file` and `test`"),
        }
    }
}

/// A publisher, by its route.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct Rtmp {
    pub application: String,
    pub stream_key: String,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Relative paths start at the folder of the configuration.
    pub path: String,
    #[serde(default, rename = "loop")]
    pub is_loop: bool,
}

/// A moving picture, and a tone.
#[derive(Deserialize, Clone, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Test {
    pub pattern: Pattern,
    pub width: u32,
    pub height: u32,
    pub framerate: u32,
    pub bitrate_kbps: u32,
    pub keyframe_interval_ms: u32,
    pub audio: bool,
}

#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    Smpte,
    Ball,
    Snow,
    Black,
}

impl Default for Test {
    fn default() -> Self {
        Test {
            pattern: Pattern::Smpte,
            width: 640,
            height: 360,
            framerate: 25,
            bitrate_kbps: 800,
            keyframe_interval_ms: 2000,
            audio: true,
        }
    }
}

/// Returns the text of a file.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        file: path.display().to_string(),
        error,
    })
}

/// `file` is its name in errors.
pub fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let refused = |place: String, error: &serde_json::Error| ConfigError::Syntax {
        file: file.to_owned(),
        line: error.line(),
        column: error.column(),
        place,
        what: without_text(error),
    };
    let Object(config) = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let place = match error.path().to_string() {
            place if place == "." => String::new(),
            place => format!("{place}: "),
        };
        refused(place, error.inner())
    })?;
    reader
        .end()
        .map_err(|error| refused(String::new(), &error))?;
    Ok(config)
}

/// Returns the message of an error without its position and without repeated text of the file: the
/// likeliest mistake is one URL in place of a list of URLs.
fn without_text(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let text = text
        .rsplit_once(" at line ")
        .map_or(&*text, |(what, _)| what);
    for (before, after) in [("string \"", "\", expected"), ("variant `", "`, expected")] {
        let start = text.find(before).map(|start| start + before.len() - 1);
        let end = text.rfind(after).map(|end| end + 1);
        if let Some((start, end)) = start.zip(end)
            && start < end
        {
            return format!("{}{}", text[..start].trim_end(), &text[end..]);
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        match parse("cameras.json", text) {
            Ok(_) => panic!("it was taken: {text}"),
            Err(refused) => refused.to_string(),
        }
    }

    #[test]
    fn an_unknown_key_is_reported_with_its_place() {
        let text = r#"{
  "cameras": [
    {"id": "1", "streams": []},
    {"id": "2", "streams": [{"name": "main", "retries": 3}]}
  ]
}"#;
        let refused = refused(text);
        let place = "cameras.json:4:54: cameras[1].streams[0].retries: unknown field `retries`, expected one of `name`, ";
        assert!(refused.starts_with(place), "{refused}");
    }

    #[test]
    fn keys_are_checked_everywhere() {
        for (text, place) in [
            (r#"{"cameras": [], "camera": 1}"#, "camera: "),
            (r#"{"cameras": [], "listen": {"prt": 1}}"#, "listen.prt: "),
            (r#"{"cameras": [], "retry": {"delay": 1}}"#, "retry.delay: "),
            (
                r#"{"cameras": [{"id": "1", "url": ""}]}"#,
                "cameras[0].url: ",
            ),
            (
                r#"{"cameras": [], "source": {"fil": {}}}"#,
                "source.fil: unknown field `fil`, expected one of `rtmp`, ",
            ),
            (
                r#"{"cameras": [], "source": {"rtmp": {"application": "a", "stream_key": "k"}, "z": 1}}"#,
                "source.z: unknown field `z`, expected one of `rtmp`, ",
            ),
            (
                r#"{"cameras": [], "source": {"test": {}, "file": {"path": "a"}}}"#,
                "source: it must be one of `rtmp`, ",
            ),
            (
                r#"{"cameras": [], "source": {}}"#,
                "source: it must be one of `rtmp`, ",
            ),
            (
                r#"{"cameras": [], "source": {"test": {"fps": 25}}}"#,
                "source.test.fps: ",
            ),
            (
                r#"{"cameras": [], "source": {"file": {"path": "a", "lop": true}}}"#,
                "source.file.lop: ",
            ),
            (
                r#"{"cameras": [], "retry": {"max_attempts": -1}}"#,
                "retry.max_attempts: ",
            ),
            (
                r#"{"cameras": [{"streams": []}]}"#,
                "cameras[0]: missing field `id`",
            ),
            (
                r#"{"cameras": [], "cameras": []}"#,
                "duplicate field `cameras`",
            ),
        ] {
            let refused = refused(text);
            let rest = refused.strip_prefix("cameras.json:1:").unwrap();
            let (_, rest) = rest.split_once(": ").unwrap();
            assert!(rest.starts_with(place), "{refused}");
        }
    }

    #[test]
    fn a_list_is_no_object() {
        for (text, place) in [
            ("[]", "1:0: "),
            (
                r#"{"cameras": [], "listen": ["127.0.0.1", 1935]}"#,
                "1:26: listen: ",
            ),
            (
                r#"{"cameras": [], "retry": [1000, 2000, 0, 0, 500]}"#,
                "1:25: retry: ",
            ),
            (
                r#"{"cameras": [], "variables": [["a", "b"]]}"#,
                "1:29: variables: ",
            ),
            (
                r#"{"cameras": [], "source": [null, {"path": "a.flv"}, null]}"#,
                "1:26: source: ",
            ),
            (
                r#"{"cameras": [], "source": {"file": ["a.flv", true]}}"#,
                "1:35: source.file: ",
            ),
            (
                r#"{"cameras": [], "source": {"rtmp": ["a", "k"]}}"#,
                "1:35: source.rtmp: ",
            ),
            (
                r#"{"cameras": [], "source": {"test": []}}"#,
                "1:35: source.test: ",
            ),
            (r#"{"cameras": [["1", {}, null]]}"#, "1:13: cameras[0]: "),
            (
                r#"{"cameras": [{"id": "1", "retry": [], "streams": []}]}"#,
                "1:34: cameras[0].retry: ",
            ),
            (
                r#"{"cameras": [{"id": "1", "streams": [["main"]]}]}"#,
                "1:37: cameras[0].streams[0]: ",
            ),
        ] {
            assert_eq!(
                refused(text),
                format!("cameras.json:{place}invalid type: sequence, expected an object")
            );
        }
    }

    #[test]
    fn variables_are_set_once() {
        let text = r#"{
  "variables": {"server": "one", "port": "1", "server": "two"},
  "cameras": []
}"#;
        assert_eq!(
            refused(text),
            "cameras.json:2:54: variables: duplicate field `server`"
        );
    }

    #[test]
    fn invalid_json_is_reported_with_its_place() {
        assert!(refused("{\n  \"cameras\": [},\n").starts_with("cameras.json:2:15: "));
        assert!(refused("").starts_with("cameras.json:1:0: "));
        assert!(refused("{\"cameras\": []} x").starts_with("cameras.json:1:17: "));
    }

    #[test]
    fn errors_contain_no_text_of_the_file() {
        for text in [
            r#"{"cameras": [], "fallback_urls": "rtmp://host/live/secret\", expected key"}"#,
            r#"{"cameras": [], "retry": "rtmp://host/live/secret"}"#,
            r#"{"cameras": [], "listen": {"port": "secret"}}"#,
            r#"{"cameras": [], "source": "rtmp://host/live/secret"}"#,
        ] {
            let refused = refused(text);
            assert!(!refused.contains("secret"), "{refused}");
            let is_clear = refused.contains("invalid type: string, expected");
            assert!(is_clear, "{refused}");
        }
    }
}
