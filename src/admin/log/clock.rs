//! `/clock` and `/clock/reset`: the last trusted time on disk, shown and forgotten.

use std::net::SocketAddr;

use hyper::{Request, StatusCode};

use super::{LogPages, guard};
use crate::admin::State;
use crate::admin::pages::{JSON, Page, page, text};
use crate::inspect::{Change, change, clock};

/// Answers what is asked of the clock; `None` if the path is another.
pub(super) async fn answer<B>(pages: &LogPages, request: &Request<B>, state: &State, peer: SocketAddr, is_local: bool) -> Option<Page> {
    let is_change = match request.uri().path() {
        "/clock" => false,
        "/clock/reset" => true,
        _ => return None,
    };
    if let Some(refusal) = guard::refusal(request, state, is_local, is_change) {
        return Some(refusal);
    }
    if !is_change {
        return Some(json(&clock(&pages.about.clock.report(), pages.log.status().last_trusted)));
    }
    let _turn = pages.turn.lock().await;
    let log = pages.log.clone();
    let done = tokio::task::spawn_blocking(move || change(&log, &Change::ForgetTime)).await;
    Some(match done {
        Ok(Ok(changed)) => {
            tracing::info!(%peer, changed = changed.changed, "the last trusted time was forgotten, as asked over HTTP");
            json(&changed)
        }
        Ok(Err(reason)) => text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}; please report it\n")),
    })
}

fn json(value: &impl serde::Serialize) -> Page {
    match crate::json::to_string(value) {
        Ok(json) => page(StatusCode::OK, JSON, json + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}; please report it\n")),
    }
}
