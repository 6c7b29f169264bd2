//! Who may ask about the log, and who may change it.
//!
//! What the log holds is for those on this machine and for those with the token. A web page that a browser on this
//! machine shows is neither: it gives itself away by its `Origin`, by a `Host` that is a name of its own (DNS
//! rebinding), and it cannot send the header that a change wants without asking first, which is never allowed.

use std::net::IpAddr;

use hyper::header::{ALLOW, HOST, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};

use crate::admin::State;
use crate::admin::pages::{Page, has_token, text};

/// The header that a change wants; its value does not matter.
pub(crate) const CHANGE: &str = "forebay-change";

/// Why a request is not answered; none = it is.
pub(super) fn refusal<B>(request: &Request<B>, state: &State, is_local: bool, is_change: bool) -> Option<Page> {
    let headers = request.headers();
    let is_trusted = has_token(request, state);
    if !is_trusted && !is_local {
        let advice = "requires the header `Authorization: Bearer TOKEN` with the token of admin.token_file\n";
        let mut page = text(StatusCode::UNAUTHORIZED, advice.to_owned());
        page.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return Some(page);
    }
    let allowed = if is_change { Method::POST } else { Method::GET };
    if *request.method() != allowed {
        let mut page = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed}\n"));
        page.headers_mut()
            .insert(ALLOW, HeaderValue::from_static(if is_change { "POST" } else { "GET" }));
        return Some(page);
    }
    if headers.contains_key(ORIGIN) {
        return Some(text(
            StatusCode::FORBIDDEN,
            "refused: the request has an Origin, so it comes from a web page\n".to_owned(),
        ));
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_trusted && !is_numeric(host) {
        let advice = "without the token the Host must be an address or localhost, so that a web page cannot send the request under a name of its own\n";
        return Some(text(StatusCode::FORBIDDEN, advice.to_owned()));
    }
    if is_change && !headers.contains_key(CHANGE) {
        let advice = format!("a change requires the header `{CHANGE}: yes`, which a web page cannot send\n");
        return Some(text(StatusCode::FORBIDDEN, advice));
    }
    None
}

/// Whether a Host cannot be a name that somebody else answers for.
fn is_numeric(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::{Fake, watching};

    fn status(is_local: bool, is_change: bool, headers: &[(&str, &str)]) -> u16 {
        let state = State::new(watching(&Fake::new()), None);
        let mut request = Request::builder().method(if is_change { "POST" } else { "GET" });
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let page = refusal(&request.body(()).unwrap(), &state, is_local, is_change);
        page.map_or(200, |page| page.status().as_u16())
    }

    #[test]
    fn a_web_page_can_neither_read_nor_change_the_log() {
        let local = ("Host", "127.0.0.1:9464");
        assert_eq!(status(true, false, &[local]), 200);
        assert_eq!(status(true, false, &[("Host", "[::1]:9464")]), 200);
        assert_eq!(status(true, false, &[("Host", "localhost")]), 200);
        // DNS rebinding: the page's own name resolves to this machine.
        assert_eq!(status(true, false, &[("Host", "evil.example:9464")]), 403);
        assert_eq!(status(true, false, &[("Host", "localhost.evil.example")]), 403);
        assert_eq!(status(true, false, &[]), 403);
        assert_eq!(status(true, true, &[local]), 403, "no header: any form could send this");
        assert_eq!(status(true, true, &[local, (CHANGE, "yes")]), 200);
        assert_eq!(
            status(true, true, &[local, (CHANGE, "yes"), ("Origin", "http://127.0.0.1:9464")]),
            403
        );
        assert_eq!(status(true, true, &[("Host", "evil.example"), (CHANGE, "yes")]), 403);
        assert_eq!(status(false, false, &[local]), 401, "from elsewhere only with the token");
        assert_eq!(status(false, true, &[local, (CHANGE, "yes")]), 401);
    }
}
