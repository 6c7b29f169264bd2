//! Who may ask about the log, and who may change it.
//!
//! What the log holds is for those on this machine and for those with the token. A web page that a browser on this
//! machine shows is neither: it gives itself away by its `Origin` (its `Host` is checked before, on every path), and it cannot send
//! the header that a change wants without asking first, which is never allowed.

use hyper::header::{ALLOW, HeaderValue, ORIGIN, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};

use crate::admin::State;
use crate::admin::pages::{Page, has_token, text};

/// The header that a change wants; its value does not matter.
pub(crate) const CHANGE: &str = "forebay-change";

/// Why a request is not answered; `None` if it is.
pub(in crate::admin) fn refusal<B>(request: &Request<B>, state: &State, is_local: bool, is_change: bool) -> Option<Page> {
    let headers = request.headers();
    if !is_local && !has_token(request, state) {
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
    if is_change && !headers.contains_key(CHANGE) {
        let advice = format!("a change requires the header `{CHANGE}: yes`, which a web page cannot send\n");
        return Some(text(StatusCode::FORBIDDEN, advice));
    }
    None
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
        let origin = ("Origin", "http://127.0.0.1:9464");
        assert_eq!(status(true, false, &[]), 200);
        assert_eq!(status(true, false, &[origin]), 403);
        assert_eq!(status(true, true, &[]), 403, "no header: any form could send this");
        assert_eq!(status(true, true, &[(CHANGE, "yes")]), 200);
        assert_eq!(status(true, true, &[(CHANGE, "yes"), origin]), 403);
        assert_eq!(status(false, false, &[]), 401, "from elsewhere only with the token");
        assert_eq!(status(false, true, &[(CHANGE, "yes")]), 401);
    }
}
