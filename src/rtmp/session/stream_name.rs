// SPDX-License-Identifier: MPL-2.0

/// The default instance of an application: `live/_definst_` is `live`.
const DEFAULT_INSTANCE: &str = "_definst_";

/// Returns true if a client means its stream `stream_key` of `application` with `name`. It may
/// repeat the key with or without its query, or the whole path or URL.
pub(super) fn is_name_of(name: &str, application: &str, stream_key: &str) -> bool {
    if name == stream_key {
        return true;
    }
    let (name, application, key) = (parts(name), parts(application), parts(stream_key));
    let path = [&application[..], &key].concat();
    // Some clients put the whole path into the application.
    name == key || name == path || (key.is_empty() && !name.is_empty() && path.ends_with(&name))
}

/// Splits a path into its parts, without the query and the origin of a URL.
fn parts(text: &str) -> Vec<&str> {
    let path = text.split('?').next().unwrap_or_default();
    let path = match path.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => path,
    };
    let parts = path.split('/');
    parts
        .filter(|part| !part.is_empty() && *part != DEFAULT_INSTANCE)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_stream_in_every_form_are_recognized() {
        for (name, application, key) in [
            ("key", "live", "key"),
            ("key", "live", "key?token=x"),
            ("key?token=x", "live", "key"),
            ("/key/", "live", "key"),
            ("live/key", "live", "key"),
            ("rtmp://host:1935/live/key?token=x", "/live/", "key"),
            ("key", "live/key", ""),
            ("", "live", ""),
            ("a/b", "live", "a/b"),
            ("mp4:a.mp4", "live", "mp4:a.mp4"),
            ("live/key", "live/_definst_", "key"),
            ("rtmp://host/live/_definst_/key", "live", "key"),
            ("key", "live", "_definst_/key"),
        ] {
            assert!(is_name_of(name, application, key), "{name} {key}");
        }
    }

    #[test]
    fn names_of_other_streams_are_not() {
        for (name, application, key) in [
            ("other", "live", "key"),
            ("key2", "live", "key"),
            ("b", "live", "a/b"),
            ("live", "live", "key"),
            ("other/key", "live", "key"),
            ("Key", "live", "key"),
            ("other", "live/key", ""),
            ("_definst_", "live/_definst_", "key"),
        ] {
            assert!(!is_name_of(name, application, key), "{name} {key}");
        }
    }
}
