// SPDX-License-Identifier: MPL-2.0

//! Actions of operators, who need their token.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use common::journal;

use super::api::no_stream;
use super::{json, problem};
use crate::board::Board;

/// Answers POST of `/api/streams/NAME/disconnect` and `/api/streams/NAME/reconnect`.
pub(super) async fn of_stream(
    State(board): State<Arc<Board>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = check(&board, &headers) {
        return refusal;
    }
    let Some((name, action @ ("disconnect" | "reconnect"))) = path.rsplit_once('/') else {
        return problem(
            StatusCode::NOT_FOUND,
            "use /api/streams/NAME/disconnect or /api/streams/NAME/reconnect",
        );
    };
    let Some(observation) = board.observation(name) else {
        return no_stream();
    };
    let Some(control) = observation.control else {
        return problem(StatusCode::CONFLICT, "this stream has no publisher");
    };
    journal::info(if action == "disconnect" {
        "operator-disconnects"
    } else {
        "operator-reconnects"
    })
    .with("stream", name)
    .say(format!("{name}: an operator asks to {action}"));
    // A disconnected publisher is waited for.
    let is_done = tokio::task::spawn_blocking({
        let is_disconnect = action == "disconnect";
        move || match is_disconnect {
            true => {
                control.disconnect();
                true
            }
            false => control.request_reconnect(),
        }
    });
    match is_done.await {
        Ok(true) => done(),
        Ok(false) => problem(
            StatusCode::CONFLICT,
            "there is no publisher, or it does not support that (Enhanced RTMP): disconnect it instead",
        ),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Answers POST of `/api/drain`.
pub(super) async fn drain(State(board): State<Arc<Board>>, headers: HeaderMap) -> Response {
    if let Some(refusal) = check(&board, &headers) {
        return refusal;
    }
    match tokio::task::spawn_blocking(move || board.drain()).await {
        Ok(()) => done(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn done() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "status": "ok" }))
}

/// Returns the answer to a request without the token.
fn check(board: &Board, headers: &HeaderMap) -> Option<Response> {
    let Some(token) = &board.token else {
        return Some(problem(
            StatusCode::FORBIDDEN,
            "this program has no token for operators: start it with --token-file",
        ));
    };
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let given = given.and_then(|value| value.strip_prefix(b"Bearer "));
    if given.is_some_and(|given| token.is(given)) {
        return None;
    }
    let text = "the header Authorization: Bearer has to have the token of --token-file";
    let mut answer = problem(StatusCode::UNAUTHORIZED, text);
    let bearer = HeaderValue::from_static("Bearer");
    answer.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    Some(answer)
}
