//! What may be changed over the admin API: dead letters put back or dropped, settled records sent again. Each change is
//! logged, and one is made after the other.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

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
/// How long a request's body may take.
const BODY: Duration = Duration::from_secs(10);

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
    let body = match body(request.into_body(), BODY).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
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

/// A request's body, in time, or the refusal.
pub(in crate::admin) async fn body_of<B>(whole: B) -> Result<Bytes, Page>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    body(whole, BODY).await
}

/// All of a request's body, or the refusal: nobody has one of the few connections for as long as it likes.
async fn body<B>(body: B, limit: Duration) -> Result<Bytes, Page>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    match tokio::time::timeout(limit, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(text(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}\n"))),
        Err(_) => Err(text(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not come within {limit:?}\n"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;
    use tokio::time::{Sleep, sleep};

    use super::*;

    /// Gives a byte each few milliseconds, without an end.
    struct Trickle(Pin<Box<Sleep>>);

    impl Body for Trickle {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            std::task::ready!(self.0.as_mut().poll(cx));
            self.0 = Box::pin(sleep(Duration::from_millis(5)));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b" ")))))
        }
    }

    #[tokio::test]
    async fn a_body_that_trickles_ends_at_its_deadline() {
        let trickle = || Trickle(Box::pin(sleep(Duration::ZERO)));
        let read = tokio::time::timeout(Duration::from_secs(30), body(trickle(), Duration::from_millis(100)));
        let refusal = read.await.expect("it ends").unwrap_err();
        assert_eq!(refusal.status(), StatusCode::REQUEST_TIMEOUT);
        let whole = http_body_util::Full::new(Bytes::from_static(b"{}"));
        assert_eq!(body(whole, BODY).await.unwrap(), "{}");
    }
}
