// SPDX-License-Identifier: MPL-2.0

//! Texts with `{variables}` in them, and the URLs that they make.

use url::Url;

use super::config::Variables;

/// The reason why a text cannot be used. It contains no part of the text but names of variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("there is a {{ without a }}, or the reverse")]
    Braces,
    #[error("the variable \"{name}\" is unknown: set it in variables, or use one of {known}")]
    Unknown { name: String, known: String },
    #[error("it is empty")]
    Empty,
    #[error(
        "it is not the URL of an RTMP server: use rtmp://HOST/APPLICATION/STREAM-KEY, or rtmps://"
    )]
    Url,
}

/// Returns the text with the variables filled in.
pub fn fill(template: &str, variables: &Variables) -> Result<String, TemplateError> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some(open) = rest.find(['{', '}']) {
        filled.push_str(&rest[..open]);
        let inside = rest[open..].strip_prefix('{');
        let found = inside.and_then(|inside| inside.split_once('}'));
        let found = found.filter(|(name, _)| !name.contains('{'));
        let (name, after) = found.ok_or(TemplateError::Braces)?;
        let value = variables.get(name).ok_or_else(|| TemplateError::Unknown {
            name: name.to_owned(),
            known: known(variables),
        })?;
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    if filled.is_empty() {
        return Err(TemplateError::Empty);
    }
    Ok(filled)
}

fn known(variables: &Variables) -> String {
    let names: Vec<&str> = variables.keys().map(String::as_str).collect();
    names.join(", ")
}

/// Returns the URL of a server, filled in. A URL that rtmp2fallbacksink would refuse is refused
/// here, where its place is known.
pub fn url(template: &str, variables: &Variables) -> Result<String, TemplateError> {
    let url = fill(template, variables)?;
    let parsed = Url::parse(&url).map_err(|_| TemplateError::Url)?;
    let is_rtmp = matches!(parsed.scheme(), "rtmp" | "rtmps") && parsed.host_str().is_some();
    let has_space = url.chars().any(|c| c.is_control() || c.is_whitespace());
    let path = parsed.path().trim_start_matches('/');
    let has_path = path
        .split_once('/')
        .is_some_and(|(application, key)| !application.is_empty() && !key.is_empty());
    if !is_rtmp || has_space || !has_path || url.ends_with('/') {
        return Err(TemplateError::Url);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let pairs = [("camera_id", "7"), ("stream_name", "main")];
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn variables_are_filled_in() {
        let filled = url(
            "rtmp://host/live/cam{camera_id}_{stream_name}",
            &variables(),
        );
        assert_eq!(filled.as_deref(), Ok("rtmp://host/live/cam7_main"));
    }

    #[test]
    fn unknown_variables_are_named() {
        let error = fill("{camera}", &variables()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the variable \"camera\" is unknown: set it in variables, or use one of camera_id, stream_name"
        );
        for text in ["{camera_id", "camera_id}", "{a{camera_id}}"] {
            assert_eq!(
                fill(text, &variables()),
                Err(TemplateError::Braces),
                "{text}"
            );
        }
        assert_eq!(fill("", &variables()), Err(TemplateError::Empty));
    }

    #[test]
    fn urls_without_a_stream_key_are_refused() {
        for text in [
            "host/live/key",
            "http://host/live/key",
            "rtmp://host/live",
            "rtmp://host/live/",
            "rtmp:///live/key",
            "rtmp://host/live/a key",
            "rtmp://host:99999/live/key",
        ] {
            assert_eq!(url(text, &variables()), Err(TemplateError::Url), "{text}");
        }
        assert!(url("rtmps://me:word@[::1]:1936/a/b/key?token=1", &variables()).is_ok());
    }
}
