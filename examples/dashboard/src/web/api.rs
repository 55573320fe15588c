// SPDX-License-Identifier: MPL-2.0

//! The data of the page, which other programs may read too.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{headers, json, problem};
use crate::board::{Board, Snapshot};
use crate::facts::Facts;
use crate::history::{CAPACITY, Columns, INTERVAL};
use crate::program::Detail;
use crate::rejected_clients::RejectedClient;
use crate::state::StreamState;
use crate::watch::unix_time;

#[derive(Serialize)]
struct Listing {
    program: &'static str,
    /// In seconds since the Unix epoch.
    time: f64,
    uptime_seconds: f64,
    interval_seconds: u64,
    /// Samples that are kept of each stream.
    capacity: usize,
    /// The page can draw plots.
    plots: bool,
    /// There is a token, so operators may act.
    actions: bool,
    draining: bool,
    totals: Totals,
    streams: Vec<Stream>,
    refusals: Vec<RejectedClient>,
}

#[derive(Serialize)]
struct Totals {
    streams: usize,
    active: usize,
    bitrate: u64,
    /// Since the program started.
    refused: u64,
}

#[derive(Serialize)]
struct Stream {
    name: String,
    application: String,
    state: StreamState,
    /// When it entered that state, in seconds since the Unix epoch.
    since: f64,
    bitrate: u64,
    frame_rate: Option<f64>,
    resolution: Option<String>,
    #[serde(flatten)]
    facts: Facts,
    details: Vec<Detail>,
    /// There is a publisher that could be disconnected.
    publisher: bool,
    thumbnail: bool,
    /// Samples later than `after` in the query.
    history: Columns,
}

impl Stream {
    fn new(snapshot: Snapshot, history: Columns) -> Self {
        Stream {
            name: snapshot.name,
            application: snapshot.application,
            state: snapshot.sample.state,
            since: snapshot.since,
            bitrate: snapshot.sample.bitrate,
            frame_rate: snapshot.sample.frame_rate,
            resolution: snapshot.facts.resolution(),
            facts: snapshot.facts,
            details: snapshot.details,
            publisher: snapshot.has_publisher,
            thumbnail: snapshot.has_picture,
            history,
        }
    }
}

/// The history of one stream.
#[derive(Serialize)]
struct StreamHistory<'a> {
    name: &'a str,
    interval_seconds: u64,
    capacity: usize,
    #[serde(flatten)]
    columns: Columns,
}

/// Returns everything that the page shows, with the samples later than `after`.
pub(super) async fn streams(
    State(board): State<Arc<Board>>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(after) = after(query.as_deref()) else {
        return bad_time();
    };
    let snapshots = board.snapshots(after).into_iter();
    let streams: Vec<Stream> = snapshots
        .map(|(snapshot, history)| Stream::new(snapshot, history))
        .collect();
    let is_active = |stream: &&Stream| stream.state == StreamState::Active;
    let counts = board.refusals.counts();
    let listing = Listing {
        program: board.title,
        time: unix_time(),
        uptime_seconds: board.uptime().as_secs_f64(),
        interval_seconds: INTERVAL,
        capacity: CAPACITY,
        plots: board.plots.is_some(),
        actions: board.token.is_some(),
        draining: board.is_draining(),
        totals: Totals {
            streams: streams.len(),
            active: streams.iter().filter(is_active).count(),
            bitrate: streams.iter().map(|stream| stream.bitrate).sum(),
            refused: counts.iter().map(|(_, count)| count).sum(),
        },
        streams,
        refusals: board.refusals.last(),
    };
    json(StatusCode::OK, &listing)
}

pub(super) async fn refusals(State(board): State<Arc<Board>>) -> Response {
    let counts: serde_json::Map<String, serde_json::Value> = board
        .refusals
        .counts()
        .into_iter()
        .map(|(reason, count)| (reason, count.into()))
        .collect();
    let value = serde_json::json!({ "counts": counts, "last": board.refusals.last() });
    json(StatusCode::OK, &value)
}

/// Answers `/api/streams/NAME/history` and `/api/streams/NAME/thumbnail`. Names may have slashes.
pub(super) async fn of_stream(
    State(board): State<Arc<Board>>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    match path.rsplit_once('/') {
        Some((name, "history")) => history(&board, name, query.as_deref()),
        Some((name, "thumbnail")) => thumbnail(&board, name).await,
        _ => problem(
            StatusCode::NOT_FOUND,
            "use /api/streams/NAME/history or /api/streams/NAME/thumbnail",
        ),
    }
}

fn history(board: &Board, name: &str, query: Option<&str>) -> Response {
    let Some(after) = after(query) else {
        return bad_time();
    };
    match board.history(name, after) {
        Some(columns) => json(
            StatusCode::OK,
            &StreamHistory {
                name,
                interval_seconds: INTERVAL,
                capacity: CAPACITY,
                columns,
            },
        ),
        None => no_stream(),
    }
}

async fn thumbnail(board: &Board, name: &str) -> Response {
    let Some(observation) = board.observation(name) else {
        return no_stream();
    };
    let jpeg = match observation.picture {
        Some(picture) => tokio::task::spawn_blocking(move || picture.jpeg()).await,
        None => Ok(None),
    };
    match jpeg {
        Ok(Some(jpeg)) => (headers("image/jpeg", "no-store"), jpeg).into_response(),
        _ => problem(StatusCode::NOT_FOUND, "there is no picture of this stream"),
    }
}

pub(super) fn no_stream() -> Response {
    problem(
        StatusCode::NOT_FOUND,
        "there is no such stream: /api/streams lists them",
    )
}

/// Returns the time from which on samples are wanted; `None` for a text that is no time.
fn after(query: Option<&str>) -> Option<f64> {
    let pairs = query.unwrap_or_default().split('&');
    let mut values = pairs.filter_map(|pair| pair.strip_prefix("after="));
    let Some(value) = values.next() else {
        return Some(0.0);
    };
    value.parse().ok().filter(|time: &f64| time.is_finite())
}

fn bad_time() -> Response {
    problem(
        StatusCode::BAD_REQUEST,
        "after is a time in seconds since 1970",
    )
}
