//! What each path answers, and to whom.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};

use super::{State, status};
use crate::telemetry::{Look, not_ready, restart_helps};

const PATHS: &str = "not found; there are /metrics, /healthz, /readyz and /status\n";
const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) type Page = Response<Full<Bytes>>;

/// Answers one request; `is_local` = it came over this machine's loopback.
pub(super) fn answer<B>(request: &Request<B>, state: &State, is_local: bool) -> Page {
    let path = request.uri().path();
    if !matches!(path, "/metrics" | "/healthz" | "/readyz" | "/status") {
        return text(StatusCode::NOT_FOUND, PATHS.to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut page = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        page.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return page;
    }
    if path == "/status" && !is_local && !has_token(request, state) {
        let advice = "wants the header `Authorization: Bearer TOKEN` with the token of admin.token_file\n";
        let mut page = text(StatusCode::UNAUTHORIZED, advice.to_owned());
        page.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return page;
    }
    let now = Instant::now();
    if path == "/metrics" {
        return match state.telemetry.metrics(now) {
            Ok(metrics) => page(StatusCode::OK, PROMETHEUS, metrics),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}; please report it\n")),
        };
    }
    let Some(look) = state.telemetry.look(now) else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the gateway is starting\n".to_owned());
    };
    match path {
        "/healthz" => verdict(&restart_helps(&look)),
        "/readyz" => verdict(&not_ready(&look)),
        _ => status_page(state, look, now),
    }
}

fn verdict(missing: &[String]) -> Page {
    if missing.is_empty() {
        text(StatusCode::OK, "ok\n".to_owned())
    } else {
        text(
            StatusCode::SERVICE_UNAVAILABLE,
            missing.iter().map(|line| format!("{line}\n")).collect(),
        )
    }
}

fn status_page(state: &State, look: Look, now: Instant) -> Page {
    let status = state
        .telemetry
        .source()
        .map(|source| status::Status::new(state.telemetry.identity(), source, look, now));
    match status.map(|status| serde_json::to_string_pretty(&status)) {
        Some(Ok(json)) => page(StatusCode::OK, JSON, json + "\n"),
        Some(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}; please report it\n")),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the gateway is starting\n".to_owned()),
    }
}

pub(super) fn has_token<B>(request: &Request<B>, state: &State) -> bool {
    let Some(token) = &state.token else { return false };
    let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let Some((scheme, given)) = given.and_then(|value| value.split_at_checked("Bearer ".len())) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"Bearer ") && is_same(token.expose().as_bytes(), given)
}

/// Compares in a time that depends on the lengths alone, so that the token cannot be guessed letter by letter.
fn is_same(secret: &[u8], given: &[u8]) -> bool {
    let differing = secret
        .iter()
        .zip(given)
        .fold(0, |differing, (a, b)| std::hint::black_box(differing | (a ^ b)));
    differing == 0 && secret.len() == given.len()
}

pub(super) fn text(status: StatusCode, body: String) -> Page {
    page(status, TEXT, body)
}

pub(super) fn page(status: StatusCode, content_type: &'static str, body: String) -> Page {
    let mut page = Response::new(Full::new(Bytes::from(body)));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    page.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}
