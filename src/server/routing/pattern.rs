// SPDX-License-Identifier: MPL-2.0

//! Applications and stream keys with variables: `cam{camera_id}_{stream_name}`.

use std::collections::HashSet;

use crate::server::publisher::Variables;

/// Reason why a template can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    #[error("a brace has no partner: a variable is {{name}}, and within one part of the path")]
    Unbalanced,
    #[error("a variable needs a name of letters, digits and underscores, starting with no digit")]
    Name,
    #[error("two variables stand side by side, so that nothing says where the first one ends")]
    Adjacent,
    #[error("the variable {0} is there twice")]
    Twice(String),
    #[error("it is empty: leave it unset to accept any")]
    Empty,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable(String),
}

/// Pattern of one part of a path, between slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let literal = rest.find(['{', '}']).unwrap_or(rest.len());
            if literal > 0 {
                parts.push(Part::Literal(rest[..literal].to_owned()));
            } else if !parts.is_empty() && rest.starts_with('{') {
                return Err(InvalidTemplate::Adjacent);
            }
            rest = &rest[literal..];
            if rest.is_empty() {
                break;
            }
            let inner = rest.strip_prefix('{').ok_or(InvalidTemplate::Unbalanced)?;
            let (name, behind) = inner.split_once('}').ok_or(InvalidTemplate::Unbalanced)?;
            if name.contains('{') {
                return Err(InvalidTemplate::Unbalanced);
            }
            if !is_name(name) {
                return Err(InvalidTemplate::Name);
            }
            parts.push(Part::Variable(name.to_owned()));
            rest = behind;
        }
        Ok(Pattern { parts })
    }

    pub(crate) fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    pub(crate) fn is_literal(&self) -> bool {
        self.literal().is_some()
    }

    /// Returns the text of a pattern without variables.
    pub(crate) fn literal(&self) -> Option<&str> {
        match &self.parts[..] {
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the name of the variable that is the whole pattern.
    pub(crate) fn lone_variable(&self) -> Option<&str> {
        match &self.parts[..] {
            [Part::Variable(name)] => Some(name),
            _ => None,
        }
    }

    /// Returns true where both may match the same text. For two templates that is assumed.
    pub(crate) fn may_meet(&self, other: &Self) -> bool {
        let matches = |pattern: &Self, text: &str| pattern.matches(text, &mut Variables::new());
        match (&self.parts[..], &other.parts[..]) {
            ([Part::Literal(text)], _) => matches(other, text),
            (_, [Part::Literal(text)]) => matches(self, text),
            _ => true,
        }
    }

    /// Returns the number of literal characters. A template with more of them is narrower.
    pub(crate) fn literal_length(&self) -> usize {
        let lengths = self.parts.iter().map(|part| match part {
            Part::Literal(text) => text.len(),
            Part::Variable(_) => 0,
        });
        lengths.sum()
    }

    /// Compares two patterns without the names of their variables.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same = |(a, b): (&Part, &Part)| match (a, b) {
            (Part::Literal(a), Part::Literal(b)) => a == b,
            (Part::Variable(_), Part::Variable(_)) => true,
            _ => false,
        };
        self.parts.len() == other.parts.len() && self.parts.iter().zip(&other.parts).all(same)
    }

    /// Matches a text. A variable matches at least one character, and everything up to the literal
    /// that follows; before the last literal it matches everything that is left.
    pub(crate) fn matches(&self, text: &str, variables: &mut Variables) -> bool {
        let mut rest = text;
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Literal(literal) => match rest.strip_prefix(literal.as_str()) {
                    Some(behind) => rest = behind,
                    None => return false,
                },
                Part::Variable(name) => {
                    let following = parts.next();
                    let is_last = parts.peek().is_none();
                    let Some((value, behind)) = split_value(rest, following, is_last) else {
                        return false;
                    };
                    variables.push((name.clone(), value.to_owned()));
                    rest = behind;
                }
            }
        }
        rest.is_empty()
    }
}

/// Returns the text of a variable, and the text after the literal that follows it.
fn split_value<'a>(
    text: &'a str,
    following: Option<&Part>,
    is_last: bool,
) -> Option<(&'a str, &'a str)> {
    let first = text.chars().next()?.len_utf8();
    let Some(Part::Literal(literal)) = following else {
        return Some((text, ""));
    };
    let at = if is_last {
        text.len().checked_sub(literal.len())?
    } else {
        first + text[first..].find(literal.as_str())?
    };
    let found = at >= first && text.get(at..)?.starts_with(literal.as_str());
    found.then(|| (&text[..at], &text[at + literal.len()..]))
}

fn is_name(name: &str) -> bool {
    let mut characters = name.chars();
    let first = characters.next();
    first.is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Checks that no variable has two values.
pub(crate) fn check_unique<'a>(
    patterns: impl Iterator<Item = &'a Pattern>,
) -> Result<(), InvalidTemplate> {
    let mut seen = HashSet::new();
    for name in patterns.flat_map(Pattern::variables) {
        if !seen.insert(name) {
            return Err(InvalidTemplate::Twice(name.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(template: &str, text: &str) -> Option<String> {
        let mut variables = Variables::new();
        let matches = Pattern::parse(template)
            .unwrap()
            .matches(text, &mut variables);
        let shown = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        matches.then(|| shown.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn variables_take_what_is_between_literals() {
        for (template, text, expected) in [
            ("cam{id}_{name}", "cam12_main", Some("id=12 name=main")),
            ("cam{id}_{name}", "cam1_a_b", Some("id=1 name=a_b")),
            ("cam{id}_{name}", "cam__x", Some("id=_ name=x")),
            ("cam{id}_{name}", "cam_", None),
            ("cam{id}_{name}", "cam1_", None),
            ("cam{id}_{name}", "cam_1_x", Some("id=_1 name=x")),
            ("cam{id}_{name}", "xcam1_a", None),
            ("{id}.live", "a.live.live", Some("id=a.live")),
            ("{id}.live", ".live", None),
            ("{id}", "ä€", Some("id=ä€")),
            ("{a}-{b}x", "ä-€x", Some("a=ä b=€")),
            ("{a}-{b}x", "x", None),
            ("plain", "plain", Some("")),
            ("plain", "plain2", None),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(matched(template, text), expected, "{template} {text}");
        }
    }

    #[test]
    fn errors_name_the_problem_of_a_template() {
        for (template, error) in [
            ("cam{id", InvalidTemplate::Unbalanced),
            ("cam}", InvalidTemplate::Unbalanced),
            ("{a{b}}", InvalidTemplate::Unbalanced),
            ("{}", InvalidTemplate::Name),
            ("{camera id}", InvalidTemplate::Name),
            ("{1}", InvalidTemplate::Name),
            ("{a}{b}", InvalidTemplate::Adjacent),
        ] {
            assert_eq!(Pattern::parse(template), Err(error), "{template}");
        }
        let twice = Pattern::parse("{a}_{a}").unwrap();
        let error = check_unique([&twice].into_iter());
        assert_eq!(error, Err(InvalidTemplate::Twice("a".into())));
    }
}
