//! What each path answers, and to whom.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};

use super::{State, page, status};
use crate::telemetry::{Look, not_ready, restart_helps};

const PATHS: &str = "not found; known paths: /, /metrics, /healthz, /readyz, /status\n";
/// How often the page in a browser fetches itself anew, in seconds.
const REFRESH: u32 = 5;
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
/// The page brings its style and needs nothing else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
pub(super) const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) type Page = Response<Full<Bytes>>;

/// Answers one request; `is_local` = it came over this machine's loopback.
pub(super) fn answer<B>(request: &Request<B>, state: &State, is_local: bool) -> Page {
    let path = request.uri().path();
    if !matches!(path, "/" | "/metrics" | "/healthz" | "/readyz" | "/status") {
        return text(StatusCode::NOT_FOUND, PATHS.to_owned());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut page = text(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD\n".to_owned());
        page.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return page;
    }
    if matches!(path, "/" | "/status") && !is_local && !has_token(request, state) {
        let advice =
            "requires the header `Authorization: Bearer TOKEN` with the token of admin.token_file; a browser asks for it as a password\n";
        let mut page = text(StatusCode::UNAUTHORIZED, advice.to_owned());
        let challenge = if path == "/" { "Basic realm=\"forebay\"" } else { "Bearer" };
        page.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
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
        // Opening a large log may take long on a slow disk: a restart would only begin it again.
        return match path {
            "/healthz" => verdict(&[]),
            _ => starting(state),
        };
    };
    match path {
        "/healthz" => verdict(&restart_helps(&look)),
        "/readyz" => verdict(&not_ready(&look)),
        "/" => screen_page(state, look, now),
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
    match status.map(|status| crate::json::to_string_pretty(&status)) {
        Some(Ok(json)) => page(StatusCode::OK, JSON, json + "\n"),
        Some(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}; please report it\n")),
        None => starting(state),
    }
}

fn starting(state: &State) -> Page {
    verdict(&[state.telemetry.starting()])
}

/// The screen of `forebay status`, for a browser.
fn screen_page(state: &State, look: Look, now: Instant) -> Page {
    let Some(source) = state.telemetry.source() else {
        return starting(state);
    };
    let identity = state.telemetry.identity();
    match serde_json::to_value(status::Status::new(identity, source, look, now)) {
        Ok(status) => {
            let document = page::document(&identity.gateway, &page::page(&status), REFRESH);
            let mut page = page(StatusCode::OK, HTML, document);
            page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
            page
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}; please report it\n")),
    }
}

pub(super) fn has_token<B>(request: &Request<B>, state: &State) -> bool {
    let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let Some(given) = given else { return false };
    let Some(token) = state.token() else { return false };
    let after = |scheme: &str| {
        let (found, rest) = given.split_at_checked(scheme.len())?;
        found.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
    };
    if let Some(given) = after("Bearer ") {
        return is_same(token.expose().as_bytes(), given);
    }
    // A browser knows no Bearer: there the token is the password, of whatever user.
    let password = after("Basic ").and_then(|pair| BASE64.decode(pair).ok()).and_then(|pair| {
        let colon = pair.iter().position(|byte| *byte == b':')?;
        Some(pair[colon + 1..].to_vec())
    });
    password.is_some_and(|password| is_same(token.expose().as_bytes(), &password))
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
