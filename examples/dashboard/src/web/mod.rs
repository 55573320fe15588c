// SPDX-License-Identifier: MPL-2.0

//! The paths that all programs serve.

mod actions;
mod api;
mod page;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use common::connection::LimitedListener;
use common::statistics;
use tokio::net::TcpListener;

use crate::board::Board;
use crate::stat;

pub use page::{Page, Script};

/// Connections of a program whose only visitors are operators and Prometheus.
const MAX_CONNECTIONS: usize = 64;
/// Time for each request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns everything: the page, its data, `/metrics` and `/stat`. Other programs than these have
/// routers of their own.
pub fn router(board: &Arc<Board>) -> Router {
    let metrics = Router::new().route("/metrics", get(metrics_text));
    let metrics = metrics.with_state(board.clone());
    data_router(board)
        .merge(Page::default().router(board.title))
        .merge(metrics)
        .layer(map_response(harden))
}

/// Returns the data of the page, what operators may do, and `/stat`.
pub fn data_router(board: &Arc<Board>) -> Router {
    Router::new()
        .route("/stat", get(stat_document))
        .route("/api/streams", get(api::streams))
        .route("/api/refusals", get(api::refusals))
        .route(
            "/api/streams/{*path}",
            get(api::of_stream).post(actions::of_stream),
        )
        .route("/api/drain", post(actions::drain))
        .route("/uplot.js", get(page::plot_script))
        .route("/uplot.css", get(page::plot_style))
        .with_state(board.clone())
}

/// Serves everything until the program ends. The future never ends by itself.
pub async fn serve(socket: TcpListener, board: Arc<Board>) -> std::io::Result<()> {
    tokio::spawn(board.clone().run());
    let listener = LimitedListener::new(socket, MAX_CONNECTIONS, REQUEST_TIMEOUT);
    axum::serve(listener, router(&board)).await
}

/// Serves everything on a thread of its own, for programs without a runtime. Returns the address.
pub fn serve_on_thread(address: SocketAddr, board: Arc<Board>) -> std::io::Result<SocketAddr> {
    let socket = std::net::TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    let local = socket.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let thread = std::thread::Builder::new().name("http".to_owned());
    thread.spawn(move || {
        runtime.block_on(async {
            let socket = TcpListener::from_std(socket)?;
            serve(socket, board).await
        })
    })?;
    Ok(local)
}

/// Hardens every answer: browsers neither guess its type nor tell where a viewer came from.
pub async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    let no_referrer = HeaderValue::from_static("no-referrer");
    headers.insert(header::REFERRER_POLICY, no_referrer);
    response
}

type Headers = [(HeaderName, &'static str); 2];

fn headers(kind: &'static str, cache: &'static str) -> Headers {
    [(CONTENT_TYPE, kind), (CACHE_CONTROL, cache)]
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response {
    let headers = headers("application/json", "no-store");
    match serde_json::to_vec(value) {
        Ok(text) => (status, headers, text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Returns an answer that says what to do.
fn problem(status: StatusCode, text: &str) -> Response {
    json(status, &serde_json::json!({ "error": text }))
}

async fn metrics_text(State(board): State<Arc<Board>>) -> Response {
    statistics::respond(board.metrics())
}

async fn stat_document(State(board): State<Arc<Board>>) -> impl IntoResponse {
    (
        headers("text/xml; charset=utf-8", "no-store"),
        stat::document(&board),
    )
}

#[cfg(test)]
mod tests;
