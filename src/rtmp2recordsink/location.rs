// SPDX-License-Identifier: MPL-2.0

//! Names of files, from a template with fields and a time.
//!
//! Values of fields come from publishers, so they are encoded: none can add a folder, leave one,
//! or make a name that the file system refuses.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::pattern::{NamePattern, Token, tokens_of_time};

/// Ending of a file's name while it is written.
pub(super) const PART_SUFFIX: &str = ".rec.part";

/// Stands for an unknown or empty value.
const UNKNOWN: &str = "unknown";

/// Longest value of a field, in bytes.
const MAX_VALUE: usize = 120;

/// Longest name of a file or folder, in bytes. With a counter and [`PART_SUFFIX`] it stays below
/// the 255 bytes of most file systems.
const MAX_NAME: usize = 220;

/// Characters that have a meaning in paths, on this or on other systems.
const RESERVED: &str = "/\\:*?\"<>|%";

/// A container format, named by the extension of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    Mp4,
    Matroska,
    MpegTs,
    Flv,
}

impl Container {
    fn of_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "mp4" | "m4a" | "m4v" => Some(Container::Mp4),
            "mkv" | "mka" => Some(Container::Matroska),
            "ts" | "m2ts" | "mts" => Some(Container::MpegTs),
            "flv" => Some(Container::Flv),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidLocation {
    #[error("No location is set: set it to a file such as rec/{{stream-key}}/%Y%m%d-%H%M%S.mp4")]
    None,
    #[error("The location {0:?} has no known ending: use .mp4, .mkv, .ts or .flv")]
    Extension(String),
    #[error(
        "The location {0:?} has an invalid {{field}}: use {{application}}, {{stream-key}} or the \
         name of a variable"
    )]
    Field(String),
    #[error("The location {0:?} has an invalid time: use conversions such as %Y%m%d-%H%M%S")]
    Time(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Text with conversions of strftime.
    Text(String),
    Field(String),
}

/// A template of file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocationTemplate {
    parts: Vec<Part>,
    pub(super) container: Container,
    /// Without its dot.
    pub(super) extension: String,
}

impl LocationTemplate {
    /// `format_time` is as in [`Self::expand`], and returns nothing for an invalid format.
    pub(super) fn parse(
        text: &str,
        format_time: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, InvalidLocation> {
        if text.is_empty() {
            return Err(InvalidLocation::None);
        }
        let extension = Path::new(text).extension().and_then(|e| e.to_str());
        let (extension, container) = extension
            .filter(|_| !text.ends_with('/'))
            .and_then(|extension| Some((extension, Container::of_extension(extension)?)))
            .ok_or_else(|| InvalidLocation::Extension(text.to_owned()))?;
        let invalid = || InvalidLocation::Field(text.to_owned());
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(invalid)?;
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || !name.chars().all(is_name) || before.contains('}') {
                return Err(invalid());
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Field(name.to_owned()));
            rest = after;
        }
        if rest.contains('}') {
            return Err(invalid());
        }
        parts.push(Part::Text(rest.to_owned()));
        let has_time = |part: &Part| match part {
            Part::Text(text) if !text.is_empty() => format_time(text).is_some(),
            _ => true,
        };
        if text.contains('\0') || !parts.iter().all(has_time) {
            return Err(InvalidLocation::Time(text.to_owned()));
        }
        Ok(LocationTemplate {
            parts,
            container,
            extension: extension.to_owned(),
        })
    }

    /// Returns the path of a file. `format_time` expands conversions of strftime.
    pub(super) fn expand(
        &self,
        value: impl Fn(&str) -> Option<String>,
        format_time: impl Fn(&str) -> Option<String>,
    ) -> PathBuf {
        let mut path = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) if text.is_empty() => {}
                Part::Text(text) => path.push_str(&format_time(text).unwrap_or_default()),
                Part::Field(name) => path.push_str(&encode(&value(name).unwrap_or_default())),
            }
        }
        let names: Vec<String> = path.split('/').map(shorten_name).collect();
        PathBuf::from(names.join("/"))
    }

    /// Returns the names of these values at any time.
    pub(super) fn pattern(&self, value: impl Fn(&str) -> Option<String>) -> NamePattern {
        let tokens = self.parts.iter().flat_map(|part| match part {
            Part::Text(text) => tokens_of_time(text),
            Part::Field(name) => vec![Token::Field(encode(&value(name).unwrap_or_default()))],
        });
        NamePattern::new(tokens.collect(), &self.extension)
    }
}

/// Returns the path with a number before its extension; 0 stands for no number.
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let (stem, extension) = split_name(path);
    path.with_file_name(format!("{stem}-{number}{extension}"))
}

/// Returns the name of a file while it is written.
pub(super) fn part_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PART_SUFFIX);
    PathBuf::from(name)
}

/// Returns the name that a file gets when it is whole, if this is one that was being written.
pub(super) fn whole_path(part: &Path) -> Option<PathBuf> {
    let name = part.to_str()?.strip_suffix(PART_SUFFIX)?;
    Some(PathBuf::from(name))
}

/// Returns the name without its extension, and the extension with its dot.
fn split_name(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map(|part| part.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    (
        text(path.file_stem()),
        format!(".{}", text(path.extension())),
    )
}

/// Returns a value as a part of a name. Different values stay different.
fn encode(value: &str) -> String {
    if value.is_empty() {
        return UNKNOWN.to_owned();
    }
    let mut encoded = String::with_capacity(value.len());
    for (index, character) in value.chars().enumerate() {
        let is_hidden = index == 0 && character == '.';
        if is_hidden || character.is_control() || RESERVED.contains(character) {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                let _ = write!(encoded, "%{byte:02X}");
            }
        } else {
            encoded.push(character);
        }
    }
    shorten(&encoded, MAX_VALUE, "")
}

fn shorten_name(name: &str) -> String {
    let (_, extension) = split_name(Path::new(name));
    // A long "extension" is none.
    let ending = if name.ends_with(&extension) && extension.len() <= 8 {
        extension
    } else {
        String::new()
    };
    shorten(name, MAX_NAME, &ending)
}

/// Returns a text of at most `limit` bytes. A longer one is cut, and ends with its hash, since
/// texts that differ at their ends must not become one, and with `ending`.
fn shorten(text: &str, limit: usize, ending: &str) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let hash = Sha256::digest(text.as_bytes());
    let hash: String = hash[..6].iter().fold(String::new(), |mut hash, byte| {
        let _ = write!(hash, "{byte:02x}");
        hash
    });
    let mut length = limit - ending.len() - hash.len() - 1;
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    format!("{}~{hash}{ending}", &text[..length])
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> Option<String> {
        (!text.contains("%!")).then(|| text.replace("%Y", "2026"))
    }

    fn expand(template: &str, value: &str) -> PathBuf {
        let template = LocationTemplate::parse(template, time).unwrap();
        template.expand(|_| Some(value.to_owned()), time)
    }

    #[test]
    fn a_template_is_filled_with_fields_and_time() {
        let text = "rec/{application}/{stream-key}/%Y.mp4";
        let template = LocationTemplate::parse(text, time).unwrap();
        let value = |name: &str| Some(format!("the {name}"));
        let path = template.expand(value, time);
        assert_eq!(
            path,
            Path::new("rec/the application/the stream-key/2026.mp4")
        );
        assert_eq!(template.container, Container::Mp4);
    }

    #[test]
    fn unknown_fields_and_empty_values_have_a_name() {
        let template = LocationTemplate::parse("{a}/{b}.ts", time).unwrap();
        let value = |name: &str| (name == "a").then(String::new);
        assert_eq!(
            template.expand(value, time),
            Path::new("unknown/unknown.ts")
        );
    }

    #[test]
    fn values_are_not_times() {
        assert_eq!(expand("{a}-%Y.mkv", "%Y"), Path::new("%25Y-2026.mkv"));
    }

    #[test]
    fn values_that_name_folders_are_encoded() {
        for (value, expected) in [
            ("..", "%2E..mkv"),
            (".", "%2E.mkv"),
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.mkv"),
            ("a\0b", "a%00b.mkv"),
            ("/etc", "%2Fetc.mkv"),
        ] {
            assert_eq!(expand("{a}.mkv", value), Path::new(expected), "{value:?}");
        }
    }

    #[test]
    fn long_values_keep_their_difference() {
        let [first, second] = ["a", "b"].map(|end| {
            let value = "x".repeat(3000) + end;
            expand("{a}{a}{a}.mp4", &value)
        });
        assert_ne!(first, second);
        for path in [first, second] {
            assert!(path.as_os_str().len() <= MAX_NAME, "{path:?}");
            assert_eq!(path.extension().unwrap(), "mp4");
        }
    }

    #[test]
    fn invalid_templates_say_why() {
        let error = |text: &str| LocationTemplate::parse(text, time).unwrap_err();
        assert_eq!(error(""), InvalidLocation::None);
        for text in ["out", "out.avi", "{stream-key}", "out.mp4/"] {
            assert_eq!(error(text), InvalidLocation::Extension(text.to_owned()));
        }
        for text in ["{a.mp4", "a}.mp4", "{}.mp4", "{a b}.mp4", "{a/b}.mp4"] {
            assert_eq!(error(text), InvalidLocation::Field(text.to_owned()));
        }
        assert_eq!(error("%!.mp4"), InvalidLocation::Time("%!.mp4".to_owned()));
    }

    #[test]
    fn numbers_and_endings_are_added_and_removed() {
        let path = Path::new("a.b/c.d.mp4");
        assert_eq!(numbered(path, 0), path);
        assert_eq!(numbered(path, 12), Path::new("a.b/c.d-12.mp4"));
        assert_eq!(whole_path(&part_path(path)).unwrap(), path);
        assert_eq!(whole_path(path), None);
    }

    proptest! {
        #![proptest_config(properties::cases(256))]

        #[test]
        fn no_value_leaves_its_folder(value in any::<String>(), dots in "[./\\\\%\0]{0,6}") {
            for value in [&value, &dots, &format!("{dots}{value}")] {
                for template in ["rec/{a}/x.mp4", "rec/{a}.mp4", "rec/{a}{a}.mp4"] {
                    let path = expand(template, value);
                    let parts: Vec<Component<'_>> = path.components().collect();
                    let depth = template.split('/').count();
                    prop_assert_eq!(parts.len(), depth, "{:?}", path);
                    prop_assert!(parts.iter().all(|p| matches!(p, Component::Normal(_))));
                    prop_assert!(parts.iter().all(|p| p.as_os_str().len() <= MAX_NAME));
                    prop_assert!(!path.to_str().unwrap().contains('\0'));
                }
            }
        }

        #[test]
        fn different_values_have_different_names(one in "[./%a\0]{1,4}", other in "[./%a\0]{1,4}") {
            prop_assert_eq!(one == other, encode(&one) == encode(&other));
        }
    }
}
