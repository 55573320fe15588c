// SPDX-License-Identifier: MPL-2.0

//! Names that a location makes for one stream at any time: they tell the files of earlier runs.
//!
//! A name counts only where no other reading of it is possible. With `{stream-key}.mp4`, `cam-1.mp4`
//! may be a second file of `cam`, or the first one of `cam-1`, so it counts for neither.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Files of one name that are told apart by numbers.
pub(super) const MAX_NUMBER: u32 = 100_000;

/// A part of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Text(String),
    /// A number of so many digits.
    Number {
        digits: RangeInclusive<usize>,
        values: RangeInclusive<u64>,
    },
    /// The value of a field, as it is in names.
    Field(String),
    /// A time in words, or in another form that names can't be compared with.
    Other,
}

/// Names of files, and of their folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamePattern {
    folders: Vec<Vec<Token>>,
    /// The name of the file without its extension.
    stem: Vec<Token>,
    /// With its dot.
    extension: String,
}

impl NamePattern {
    /// Text is separated into folders. The last text ends with the extension.
    pub(super) fn new(tokens: Vec<Token>, extension: &str) -> Self {
        let extension = format!(".{extension}");
        let mut names = vec![Vec::new()];
        for token in tokens {
            match token {
                Token::Text(text) => {
                    for (index, text) in text.split('/').enumerate() {
                        if index > 0 {
                            names.push(Vec::new());
                        }
                        push_text(&mut names, text);
                    }
                }
                other => push(&mut names, other),
            }
        }
        let mut stem = names.pop().unwrap_or_default();
        if let Some(Token::Text(text)) = stem.last_mut()
            && let Some(text_without) = text.strip_suffix(&extension)
        {
            *text = text_without.to_owned();
        }
        NamePattern {
            folders: names,
            stem,
            extension,
        }
    }

    /// Returns whether a path was certainly made by this location for this stream.
    pub(super) fn is_certain_of(&self, path: &Path) -> bool {
        let Some(path) = path.to_str() else {
            return false;
        };
        let names: Vec<&str> = path.split('/').collect();
        let Some((file, folders)) = names.split_last() else {
            return false;
        };
        let mut pairs = folders.iter().zip(&self.folders);
        folders.len() == self.folders.len()
            && pairs.all(|(name, tokens)| is_certain(name, tokens))
            && self.is_certain_file(file)
    }

    /// Returns the files that exist.
    pub(super) fn find(&self) -> Vec<PathBuf> {
        let mut folders = vec![String::new()];
        for tokens in &self.folders {
            let mut found = Vec::new();
            for folder in folders {
                match fixed(tokens) {
                    Some(name) if is_certain(&name, tokens) => found.push(folder + &name + "/"),
                    Some(_) => {}
                    None => found.extend(
                        names_in(&folder, std::fs::FileType::is_dir)
                            .filter(|name| is_certain(name, tokens))
                            .map(|name| format!("{folder}{name}/")),
                    ),
                }
            }
            folders = found;
        }
        let files = folders.iter().flat_map(|folder| {
            names_in(folder, std::fs::FileType::is_file)
                .filter(|name| self.is_certain_file(name))
                .map(move |name| PathBuf::from(format!("{folder}{name}")))
        });
        files.collect()
    }

    fn is_certain_file(&self, name: &str) -> bool {
        let Some(stem) = name.strip_suffix(&self.extension) else {
            return false;
        };
        let as_first = readings(stem, &self.stem);
        let as_numbered = without_number(stem).map(|stem| readings(stem, &self.stem));
        let as_numbered = as_numbered.unwrap_or_default();
        (as_first.own || as_numbered.own) && !as_first.other && !as_numbered.other
    }
}

fn push(names: &mut [Vec<Token>], token: Token) {
    if let Some(name) = names.last_mut() {
        name.push(token);
    }
}

fn push_text(names: &mut [Vec<Token>], more: &str) {
    match names.last_mut().and_then(|name| name.last_mut()) {
        Some(Token::Text(text)) => text.push_str(more),
        _ if more.is_empty() => {}
        _ => push(names, Token::Text(more.to_owned())),
    }
}

/// Returns the only name of these tokens, if there is only one.
fn fixed(tokens: &[Token]) -> Option<String> {
    let texts = tokens.iter().map(|token| match token {
        Token::Text(text) | Token::Field(text) => Some(text.as_str()),
        Token::Number { .. } | Token::Other => None,
    });
    texts.collect()
}

/// Returns names of entries of one kind. Links are of neither.
fn names_in(
    folder: &str,
    is_kind: impl Fn(&std::fs::FileType) -> bool,
) -> impl Iterator<Item = String> {
    let folder = if folder.is_empty() { "." } else { folder };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(move |entry| entry.file_type().is_ok_and(|kind| is_kind(&kind)))
        .filter_map(|entry| entry.file_name().into_string().ok())
}

/// Returns a stem without the number that tells it from others of its name.
fn without_number(stem: &str) -> Option<&str> {
    let (stem, number) = stem.rsplit_once('-')?;
    let is_canonical = number.starts_with(|c: char| matches!(c, '1'..='9'));
    let number: u32 = number.parse().ok().filter(|_| is_canonical)?;
    (number < MAX_NUMBER).then_some(stem)
}

fn is_certain(name: &str, tokens: &[Token]) -> bool {
    let readings = readings(name, tokens);
    readings.own && !readings.other
}

/// Ways to read a name.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Readings {
    /// With the values of this stream.
    own: bool,
    /// With other values, of another stream.
    other: bool,
}

fn readings(name: &str, tokens: &[Token]) -> Readings {
    // Ends of what is read so far, and whether a value was another one.
    let mut ends = BTreeSet::from([(0, false)]);
    for token in tokens {
        let mut next = BTreeSet::new();
        for (at, is_other) in ends {
            let rest = &name[at..];
            match token {
                Token::Text(text) => {
                    next.extend(
                        rest.starts_with(text)
                            .then_some((at + text.len(), is_other)),
                    );
                }
                Token::Number { digits, values } => {
                    let lengths = digits.clone().filter(|length| {
                        let number = rest.get(..*length);
                        number.is_some_and(|n| is_number(n, values))
                    });
                    next.extend(lengths.map(|length| (at + length, is_other)));
                }
                Token::Field(value) => {
                    let lengths = rest.char_indices().map(|(start, c)| start + c.len_utf8());
                    next.extend(
                        lengths.map(|length| (at + length, is_other || rest[..length] != *value)),
                    );
                }
                Token::Other => {}
            }
        }
        ends = next;
    }
    Readings {
        own: ends.contains(&(name.len(), false)),
        other: ends.contains(&(name.len(), true)),
    }
}

fn is_number(text: &str, values: &RangeInclusive<u64>) -> bool {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits
        && text
            .parse::<u64>()
            .is_ok_and(|number| values.contains(&number))
}

/// Returns the tokens of a text with conversions of strftime.
pub(super) fn tokens_of_time(text: &str) -> Vec<Token> {
    let number = |digits: usize, values: RangeInclusive<u64>| Token::Number {
        digits: digits..=digits,
        values,
    };
    let dash = || Token::Text("-".to_owned());
    let colon = || Token::Text(":".to_owned());
    let mut tokens = Vec::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            tokens.push(Token::Text(character.to_string()));
            continue;
        }
        match characters.next() {
            Some('%') => tokens.push(Token::Text("%".to_owned())),
            Some('Y') => tokens.push(number(4, 1970..=9999)),
            Some('m') => tokens.push(number(2, 1..=12)),
            Some('d') => tokens.push(number(2, 1..=31)),
            Some('H') => tokens.push(number(2, 0..=23)),
            Some('I') => tokens.push(number(2, 1..=12)),
            Some('M') => tokens.push(number(2, 0..=59)),
            Some('S') => tokens.push(number(2, 0..=60)),
            Some('y') => tokens.push(number(2, 0..=99)),
            Some('j') => tokens.push(number(3, 1..=366)),
            Some('V') => tokens.push(number(2, 1..=53)),
            Some('u') => tokens.push(number(1, 1..=7)),
            Some('s') => tokens.push(Token::Number {
                digits: 9..=12,
                values: 0..=u64::MAX,
            }),
            Some('F') => tokens.extend([
                number(4, 1970..=9999),
                dash(),
                number(2, 1..=12),
                dash(),
                number(2, 1..=31),
            ]),
            Some('T') => tokens.extend([
                number(2, 0..=23),
                colon(),
                number(2, 0..=59),
                colon(),
                number(2, 0..=60),
            ]),
            // Names of days and months, and modifiers.
            _ => tokens.push(Token::Other),
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::location::{LocationTemplate, numbered};
    use super::*;

    const TIME: &str = "20261130-120507";

    fn time(text: &str) -> Option<String> {
        let text = text.replace("%Y%m%d-%H%M%S", TIME);
        Some(text.replace("%Y%m%d", &TIME[..8]).replace("%H%M", "1205"))
    }

    fn template(text: &str) -> LocationTemplate {
        LocationTemplate::parse(text, time).unwrap()
    }

    fn is_certain_of(text: &str, key: &str, name: &str) -> bool {
        let value = |_: &str| Some(key.to_owned());
        template(text).pattern(value).is_certain_of(Path::new(name))
    }

    #[test]
    fn names_of_any_time_are_told_from_other_names() {
        let text = "rec/{stream-key}/a-%Y%m%d-%H%M%S.mp4";
        for (name, expected) in [
            ("rec/cam/a-20261130-120507.mp4", true),
            ("rec/cam/a-19990101-000000-12.mp4", true),
            // Neither a time nor a number.
            ("rec/cam/a-20261330-120507.mp4", false),
            ("rec/cam/a-20261130-120507-012.mp4", false),
            ("rec/cam/a-20261130-120507-x.mp4", false),
            ("rec/cam/a-20261130-12050.mp4", false),
            // Other files and streams.
            ("rec/cam/a-20261130-120507.mkv", false),
            ("rec/cam/b-20261130-120507.mp4", false),
            ("rec/cam/a-20261130-120507.mp4.rec.part", false),
            ("rec/other/a-20261130-120507.mp4", false),
            ("a-20261130-120507.mp4", false),
            ("rec/cam/cam/a-20261130-120507.mp4", false),
        ] {
            assert_eq!(is_certain_of(text, "cam", name), expected, "{name}");
        }
    }

    #[test]
    fn names_that_another_stream_may_have_made_do_not_count() {
        for (text, name, expected) in [
            ("{stream-key}.mp4", "cam.mp4", true),
            // The first file of `cam-1`, perhaps.
            ("{stream-key}.mp4", "cam-1.mp4", false),
            ("{stream-key}/out.mp4", "cam/out-1.mp4", true),
            ("{stream-key}-%Y%m%d.mp4", "cam-20261130.mp4", true),
            ("{stream-key}-%H%M.mp4", "cam-1205-1205.mp4", false),
            ("{stream-key}{stream-key}.mp4", "camcam.mp4", false),
        ] {
            assert_eq!(is_certain_of(text, "cam", name), expected, "{text} {name}");
        }
        assert!(!is_certain_of("rec-%A.mp4", "cam", "rec-Monday.mp4"));
    }

    #[test]
    fn files_are_found_in_folders_of_any_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in [
            "cam/20261129/a.mp4",
            "cam/20261130/a-3.mp4",
            "cam/x/a.mp4",
            "b/20261130/a.mp4",
        ] {
            std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            std::fs::write(path(name), name).unwrap();
        }
        std::fs::create_dir_all(path("cam/20261130/a-4.mp4")).unwrap();
        std::os::unix::fs::symlink(path("cam/x/a.mp4"), path("cam/20261130/a-5.mp4")).unwrap();
        let text = format!("{}/{{stream-key}}/%Y%m%d/a.mp4", folder.path().display());
        let pattern = template(&text).pattern(|_| Some("cam".to_owned()));
        let mut found = pattern.find();
        found.sort();
        assert_eq!(
            found,
            [path("cam/20261129/a.mp4"), path("cam/20261130/a-3.mp4")]
        );
        assert!(found.iter().all(|path| pattern.is_certain_of(path)));
    }

    const TEMPLATES: [&str; 7] = [
        "{a}.mp4",
        "{a}-{b}.mp4",
        "{a}{b}/x.mp4",
        "{a}/{b}-%H%M.mp4",
        "x-%Y%m%d/{b}-{a}.mp4",
        "{a}-%Y%m%d-%H%M%S.mp4",
        "%H%M-{a}.mp4",
    ];

    proptest! {
        #![proptest_config(properties::cases(512))]

        #[test]
        fn no_file_of_another_stream_is_certain(
            index in 0..TEMPLATES.len(),
            own in prop::array::uniform2("[-a1%]{0,4}|a(-1205)?|20261130"),
            other in prop::array::uniform2("[-a1%]{0,4}|a(-1205)?|20261130"),
            number in prop_oneof![Just(0u32), 0..30u32, Just(1205)],
        ) {
            let template = template(TEMPLATES[index]);
            let value = |values: &[String; 2], name: &str| {
                Some(values[usize::from(name == "b")].clone())
            };
            let pattern = template.pattern(|name| value(&own, name));
            let theirs = template.expand(|name| value(&other, name), time);
            let ours = template.expand(|name| value(&own, name), time);
            if ours != theirs {
                prop_assert!(!pattern.is_certain_of(&numbered(&theirs, number)));
            }
        }
    }
}
