// SPDX-License-Identifier: MPL-2.0

//! The files of the page, and the parts that a program adds to it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{CONTENT_SECURITY_POLICY, headers};
use crate::board::Board;

const INDEX: &str = include_str!("../../page/index.html");
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The modules of the page.
const MODULES: [(&str, &str); 6] = [
    ("/dashboard.js", include_str!("../../page/dashboard.js")),
    ("/actions.js", include_str!("../../page/actions.js")),
    ("/card.js", include_str!("../../page/card.js")),
    ("/format.js", include_str!("../../page/format.js")),
    ("/plots.js", include_str!("../../page/plots.js")),
    ("/samples.js", include_str!("../../page/samples.js")),
];

/// Everything that the page needs, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// Parts that a program adds to the page.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Elements of the head.
    pub head: &'static str,
    /// A section before the streams.
    pub section: &'static str,
    /// The content security policy, where the parts need another one.
    pub policy: &'static str,
    /// Scripts of the parts, with their paths.
    pub scripts: &'static [Script],
}

/// A path and the script that is served there.
pub type Script = (&'static str, &'static str);

impl Default for Page {
    fn default() -> Self {
        Page {
            head: "",
            section: "",
            policy: POLICY,
            scripts: &[],
        }
    }
}

impl Page {
    fn text(&self, title: &str) -> String {
        INDEX
            .replace("<!-- head -->", self.head)
            .replace("<!-- section -->", self.section)
            .replace("TITLE", title)
    }

    /// Returns the page at `/`, and its files.
    pub fn router(&self, title: &str) -> Router {
        let text: Arc<str> = self.text(title).into();
        let policy = [(CONTENT_SECURITY_POLICY, self.policy)];
        let index = move || async move {
            let headers = headers("text/html; charset=utf-8", "no-cache");
            (headers, policy, text.to_string())
        };
        let style = || async {
            let headers = headers("text/css; charset=utf-8", "no-cache");
            (headers, include_str!("../../page/dashboard.css"))
        };
        let router = Router::new()
            .route("/", get(index))
            .route("/dashboard.css", get(style));
        let scripts = MODULES.iter().chain(self.scripts);
        scripts.fold(router, |router, (path, text)| {
            router.route(
                path,
                get(|| async { (headers(JAVASCRIPT, "no-cache"), *text) }),
            )
        })
    }
}

pub(super) async fn plot_script(State(board): State<Arc<Board>>) -> Response {
    match &board.plots {
        Some(plots) => file(JAVASCRIPT, plots.script.clone()),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

pub(super) async fn plot_style(State(board): State<Arc<Board>>) -> Response {
    match &board.plots {
        Some(plots) => file("text/css; charset=utf-8", plots.style.clone()),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn file(kind: &'static str, content: bytes::Bytes) -> Response {
    (headers(kind, "public, max-age=3600"), content).into_response()
}
