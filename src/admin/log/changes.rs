//! What may be changed over the admin API: dead letters put back or dropped, settled records sent again. Each change is
//! logged, and one is made after the other.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;
use hyper::{Request, StatusCode};

use super::{LogPages, guard};
use crate::admin::State;
use crate::admin::pages::{JSON, Page, page, text};
use crate::inspect::{Change, MAX_AT_ONCE, Numbers, change};

/// Bytes of a request's body; a thousand numbers have far less.
const MAX_BODY: usize = 64 << 10;

/// The change that a path asks for.
pub(super) fn of_path(path: &str) -> Option<fn(Numbers) -> Change> {
    match path {
        "/dead/requeue" => Some(Change::Requeue),
        "/dead/drop" => Some(Change::Drop),
        "/log/replay" => Some(Change::Replay),
        _ => None,
    }
}

/// Makes a change.
pub(super) async fn answer<B>(
    pages: &LogPages,
    request: Request<B>,
    state: &State,
    peer: SocketAddr,
    is_local: bool,
    make: fn(Numbers) -> Change,
) -> Page
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    if let Some(refusal) = guard::refusal(&request, state, is_local, true) {
        return refusal;
    }
    let path = request.uri().path().to_owned();
    let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}\n")),
    };
    let numbers: Numbers = match serde_json::from_slice(&body) {
        Ok(numbers) => numbers,
        Err(error) => {
            return text(
                StatusCode::BAD_REQUEST,
                format!("the body must be {{\"numbers\": [...]}}: {error}\n"),
            );
        }
    };
    let count = numbers.numbers.len();
    if count == 0 || count > MAX_AT_ONCE {
        return text(
            StatusCode::BAD_REQUEST,
            format!("{count} numbers; a request may have 1 to {MAX_AT_ONCE}\n"),
        );
    }
    let _turn = pages.turn.lock().await;
    let (log, wanted) = (pages.log.clone(), make(numbers));
    let done = tokio::task::spawn_blocking(move || change(&log, &wanted)).await;
    match done {
        Ok(Ok(changed)) => {
            tracing::info!(%peer, path, changed = changed.changed, kept = changed.kept.len(), "the log was changed over the admin API");
            match crate::json::to_string(&changed) {
                Ok(json) => page(StatusCode::OK, JSON, json + "\n"),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}; please report it\n")),
            }
        }
        Ok(Err(reason)) => {
            tracing::warn!(%peer, path, reason, "a change of the log over the admin API failed");
            text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n")
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}; please report it\n")),
    }
}
