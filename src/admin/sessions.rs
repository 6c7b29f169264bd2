//! `/sessions` and `/sessions/drop`: the sessions of devices, connected or not.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use forebay_broker::{SessionStatus, View};
use hyper::body::Body;
use hyper::{Request, StatusCode};
use serde::{Deserialize, Serialize};

use super::State;
use super::log::{body_of, refusal};
use super::pages::{JSON, Page, page, text};

/// A session by its device and client id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionName {
    /// The device.
    pub(crate) identity: String,
    /// Its client id.
    pub(crate) client_id: String,
}

/// A session as JSON.
#[derive(Debug, Serialize)]
struct SessionLine {
    identity: String,
    client_id: String,
    connected: bool,
    absent_seconds: Option<u64>,
    expiry_seconds: Option<u32>,
    subscriptions: Option<usize>,
    packet_ids: Option<usize>,
}

/// Whether a path is about sessions.
pub(super) fn has(path: &str) -> bool {
    matches!(path, "/sessions" | "/sessions/show" | "/sessions/drop")
}

/// Answers one request; `is_local` = it came over this machine's loopback.
pub(super) async fn answer<B>(view: &View, request: Request<B>, state: &State, peer: SocketAddr, is_local: bool) -> Page
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let path = request.uri().path().to_owned();
    let is_list = path == "/sessions";
    if let Some(refusal) = refusal(&request, state, is_local, !is_list) {
        return refusal;
    }
    if is_list {
        let lines: Vec<_> = view.session_list().iter().map(line).collect();
        return json(&serde_json::json!({ "sessions": lines }));
    }
    let body = match body_of(request.into_body()).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    let name: SessionName = match serde_json::from_slice(&body) {
        Ok(name) => name,
        Err(error) => {
            let advice = format!("the body must be {{\"identity\": \"...\", \"client_id\": \"...\"}}: {error}\n");
            return text(StatusCode::BAD_REQUEST, advice);
        }
    };
    if path == "/sessions/show" {
        return match view.session(&name.identity, &name.client_id) {
            Some(found) => json(&shown(&found)),
            None => text(StatusCode::NOT_FOUND, "there is no such session\n".to_owned()),
        };
    }
    let is_dropped = view.drop_session(&name.identity, &name.client_id).await;
    if is_dropped {
        tracing::info!(%peer, identity = name.identity, client_id = name.client_id, "a session was dropped, as asked over the admin API");
    }
    json(&serde_json::json!({ "changed": u32::from(is_dropped) }))
}

fn line(session: &SessionStatus) -> SessionLine {
    let absent = session.absent.as_ref();
    SessionLine {
        identity: session.identity.to_string(),
        client_id: session.client_id.to_string(),
        connected: absent.is_none(),
        absent_seconds: absent.and_then(|absent| absent.seconds),
        expiry_seconds: absent.map(|absent| absent.expiry_seconds),
        subscriptions: absent.map(|absent| absent.subscriptions.len()),
        packet_ids: absent.map(|absent| absent.packet_ids),
    }
}

/// With the filters themselves.
fn shown(session: &SessionStatus) -> serde_json::Value {
    let mut value = serde_json::json!(line(session));
    value["filters"] = serde_json::json!(session.absent.as_ref().map(|absent| &absent.subscriptions));
    value
}

fn json(value: &impl Serialize) -> Page {
    match crate::json::to_string(value) {
        Ok(json) => page(StatusCode::OK, JSON, json + "\n"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}; please report it\n")),
    }
}
