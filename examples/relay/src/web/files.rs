// SPDX-License-Identifier: MPL-2.0

//! Serves playlists and segments, and no other files of the disk.

use std::path::Path;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE,
};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use tower_http::services::ServeDir;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Playlist,
    Segment,
}

impl Kind {
    /// Returns `None` for files that are not served: hidden ones, and those of a program that is
    /// about to write them.
    fn of(path: &str) -> Option<Self> {
        let lower = path.to_ascii_lowercase();
        // With these a part of the path could become another one, or two.
        let is_masked = ["%2e", "%2f", "%5c", "%00", "\\"]
            .iter()
            .any(|code| lower.contains(code));
        let is_hidden = lower.split('/').any(|part| part.starts_with('.'));
        if is_masked || is_hidden {
            return None;
        }
        match lower.rsplit_once('.')? {
            (_, "m3u8") => Some(Kind::Playlist),
            (_, "ts") => Some(Kind::Segment),
            _ => None,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Kind::Playlist => "application/vnd.apple.mpegurl",
            Kind::Segment => "video/mp2t",
        }
    }

    /// A playlist changes every two seconds. The name of a segment is never used again.
    fn cache_control(self) -> &'static str {
        match self {
            Kind::Playlist => "no-cache",
            Kind::Segment => "public, max-age=3600, immutable",
        }
    }
}

pub(super) fn service(directory: &Path) -> Router {
    let files = ServeDir::new(directory).append_index_html_on_directories(false);
    Router::new().fallback_service(files).layer(from_fn(guard))
}

async fn guard(mut request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::OPTIONS {
        preflight()
    } else if let Some(kind) = Kind::of(request.uri().path()) {
        if kind == Kind::Playlist {
            // Two versions may share second and length: the playlist is always sent whole.
            for name in [IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE] {
                request.headers_mut().remove(name);
            }
        }
        let mut response = next.run(request).await;
        describe(&mut response, kind);
        response
    } else {
        StatusCode::NOT_FOUND.into_response()
    };
    if response.status().is_client_error() {
        set(&mut response, CACHE_CONTROL, "no-store");
    }
    // Players on pages of other sites may read it.
    set(&mut response, ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    set(
        &mut response,
        ACCESS_CONTROL_EXPOSE_HEADERS,
        "Content-Length, Content-Range, Date",
    );
    response
}

fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "Range"),
        (ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn describe(response: &mut Response, kind: Kind) {
    let status = response.status();
    if status.is_success() {
        set(response, CONTENT_TYPE, kind.content_type());
    }
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        set(response, CACHE_CONTROL, kind.cache_control());
    }
    if kind == Kind::Playlist {
        response.headers_mut().remove(LAST_MODIFIED);
        response.headers_mut().remove(ETAG);
    }
}

fn set(response: &mut Response, name: HeaderName, value: &'static str) {
    let value = HeaderValue::from_static(value);
    response.headers_mut().insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_playlists_and_segments_are_served() {
        let kind = |path: &str| Kind::of(path);
        assert_eq!(kind("/live/ann/cam/index.m3u8"), Some(Kind::Playlist));
        assert_eq!(kind("/live/cam/7.ts"), Some(Kind::Segment));
        assert_eq!(kind("/live/caf%C3%A9/7.ts"), Some(Kind::Segment));
        for path in [
            "/",
            "/live/",
            "/live/cam",
            "/live/cam/index.m3u8.tmp",
            "/live/cam/.index.m3u8",
            "/.live/cam/index.m3u8",
            "/../live/cam/index.m3u8",
            "/live/%2e%2e/cam/index.m3u8",
            "/live/cam%2F.index.m3u8",
            "/live/cam/%2Eindex.m3u8",
            "/live\\cam/index.m3u8",
            "/live%5Ccam/index.m3u8",
            "/live/cam/index.m3u8%00",
        ] {
            assert_eq!(kind(path), None, "{path}");
        }
    }
}
