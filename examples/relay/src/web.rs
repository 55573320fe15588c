// SPDX-License-Identifier: MPL-2.0

//! The HTTP server: the page, the HLS files, the list of streams, health, metrics, and what operators
//! see.

mod files;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use common::journal;
use dashboard::Board;
use dashboard::web::{Page, data_router, harden};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use tokio::net::TcpListener;
use url::Url;

use crate::catalog::{Catalog, PLAYLIST, StreamInfo, StreamName};
use crate::health::Health;
use crate::metrics;
use crate::notify::DeliveryCounters;
use crate::reconnect::Reconnect;
use common::connection::LimitedListener;

/// The path under which viewers get the files in the directory of all streams.
const HLS: &str = "hls";
/// Time that connections may take to end when the program does.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections; each costs some memory.
const MAX_CONNECTIONS: usize = 2000;
/// A connection needs a descriptor, and another one for its file. Publishers and their segments
/// need the rest.
const SHARE_OF_DESCRIPTORS: u64 = 4;
/// Requests are short, and a player fetches a segment every two seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Everything that the page needs, and nothing else: hls.js makes a worker of a blob, and plays
/// from one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    media-src 'self' blob:; worker-src 'self' blob:; img-src 'self' data: blob:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'self'";

/// The page of operators, with the player.
const PAGE: Page = Page {
    head: include_str!("../page/head.html"),
    section: include_str!("../page/player.html"),
    policy: POLICY,
    scripts: &[("/page.js", include_str!("../page/page.js"))],
};

/// The content of the site.
#[derive(Debug)]
pub struct Site {
    pub catalog: Arc<Catalog>,
    /// The directory of all streams.
    pub directory: PathBuf,
    /// The address at which viewers reach this server.
    pub base: Url,
    /// The script that the page plays with, if it is installed.
    pub hls_js: Option<Bytes>,
    pub health: Arc<Health>,
    pub deliveries: Arc<DeliveryCounters>,
    pub reconnect: Arc<Reconnect>,
}

/// The site, and the board of operators where there is one.
#[derive(Debug, Clone)]
pub struct Served {
    pub site: Arc<Site>,
    pub board: Option<Arc<Board>>,
}

impl From<Arc<Site>> for Served {
    fn from(site: Arc<Site>) -> Self {
        Served { site, board: None }
    }
}

impl FromRef<Served> for Arc<Site> {
    fn from_ref(served: &Served) -> Self {
        served.site.clone()
    }
}

/// Returns the address of a stream's playlist for viewers who use this base.
pub fn playlist(base: &Url, name: &StreamName) -> Url {
    let mut url = base.clone();
    let parts = [
        Some(&name.application),
        name.user.as_ref(),
        Some(&name.stream),
    ];
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push(HLS);
        path.extend(parts.into_iter().flatten()).push(PLAYLIST);
    }
    url
}

/// Reads the script of the npm package. Without it the program says how to get it, and goes on.
pub fn read_hls_js(path: &Path) -> Option<Bytes> {
    match std::fs::read(path) {
        Ok(script) => Some(script.into()),
        Err(error) => {
            journal::warning("no-player").say(format!(
                "no hls.js at {}: {error}. The page plays only in browsers that play HLS themselves. \
                 Install it with npm ci --prefix examples/relay/page, or set --hls-js",
                path.display()
            ));
            None
        }
    }
}

/// Serves until the shutdown, and a moment longer for requests in progress.
pub async fn serve(
    socket: TcpListener,
    served: impl Into<Served>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (over, is_over) = tokio::sync::oneshot::channel();
    let listener = LimitedListener::new(socket, max_connections(), REQUEST_TIMEOUT);
    let server = axum::serve(listener, router(served.into()));
    let server = server.with_graceful_shutdown(async move {
        shutdown.await;
        // The server may have ended by itself.
        let _ = over.send(());
    });
    let close_timeout = async {
        let _ = is_over.await;
        tokio::time::sleep(CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        result = async { server.await } => result,
        () = close_timeout => Ok(()),
    }
}

fn max_connections() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current;
    let share = descriptors.map(|count| count / SHARE_OF_DESCRIPTORS);
    let share = share.and_then(|share| usize::try_from(share).ok());
    share.unwrap_or(MAX_CONNECTIONS).clamp(1, MAX_CONNECTIONS)
}

fn router(served: Served) -> Router {
    let operators = served.board.as_ref().map(data_router);
    Router::new()
        .route("/page.css", get(style))
        .route("/hls.js", get(hls_js))
        .route("/streams", get(streams))
        .route("/health", get(health))
        .route("/metrics", get(metrics_text))
        .nest_service(&format!("/{HLS}"), files::service(&served.site.directory))
        .with_state(served)
        .merge(PAGE.router("rtmp2-relay"))
        .merge(operators.unwrap_or_default())
        .layer(map_response(harden))
}

type Headers = [(HeaderName, &'static str); 2];

fn headers(kind: &'static str, cache: &'static str) -> Headers {
    [(CONTENT_TYPE, kind), (CACHE_CONTROL, cache)]
}

async fn style() -> impl IntoResponse {
    let headers = headers("text/css; charset=utf-8", "no-cache");
    (headers, include_str!("../page/page.css"))
}

async fn hls_js(State(site): State<Arc<Site>>) -> Response {
    match &site.hls_js {
        Some(script) => {
            (headers(JAVASCRIPT, "public, max-age=3600"), script.clone()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A stream in the list for the page and other clients.
#[derive(Serialize)]
struct StreamListing {
    application: String,
    user: Option<String>,
    stream: String,
    /// The playlist at the program's public address.
    playlist: String,
    /// The playlist relative to the page.
    path: String,
    ready: bool,
    interrupted: bool,
    passed_through: bool,
    failing: bool,
    seconds: f64,
    segments: u64,
    segment_bytes: u64,
    discontinuities: u64,
    frames_in: u64,
    frames_out: u64,
    frames_duplicated: u64,
    frames_dropped: u64,
}

impl StreamListing {
    fn new(base: &Url, name: StreamName, stream: &StreamInfo) -> Self {
        let playlist = playlist(base, &name);
        let path = base.make_relative(&playlist).unwrap_or_default();
        let counts = stream.counts;
        StreamListing {
            application: name.application,
            user: name.user,
            stream: name.stream,
            playlist: playlist.into(),
            path,
            ready: stream.is_ready,
            interrupted: stream.is_interrupted,
            passed_through: stream.is_passed_through,
            failing: stream.failure.is_some(),
            seconds: stream.since.elapsed().as_secs_f64(),
            segments: counts.segments,
            segment_bytes: counts.segment_bytes,
            discontinuities: counts.discontinuities,
            frames_in: counts.frames_in,
            frames_out: counts.frames_out,
            frames_duplicated: counts.frames_duplicated,
            frames_dropped: counts.frames_dropped,
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    let headers = headers("application/json", "no-store");
    match serde_json::to_vec(value) {
        Ok(text) => (status, headers, text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn streams(State(site): State<Arc<Site>>) -> Response {
    let streams = site.catalog.streams().into_iter();
    let listed = streams.map(|(name, stream)| StreamListing::new(&site.base, name, &stream));
    let listed: Vec<StreamListing> = listed.collect();
    json(StatusCode::OK, &serde_json::json!({ "streams": listed }))
}

async fn health(State(site): State<Arc<Site>>) -> Response {
    let problems = site.health.problems().await;
    if problems.is_empty() {
        json(StatusCode::OK, &serde_json::json!({ "status": "ok" }))
    } else {
        let value = serde_json::json!({ "status": "failing", "problems": problems });
        json(StatusCode::SERVICE_UNAVAILABLE, &value)
    }
}

async fn metrics_text(State(served): State<Served>) -> Response {
    let healthy = served.site.health.problems().await.is_empty();
    let common = served.board.map(|board| board.metrics());
    match metrics::text(&served.site, healthy, common.unwrap_or_default()) {
        Ok(text) => (headers(prometheus::TEXT_FORMAT, "no-store"), text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests;
