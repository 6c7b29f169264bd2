//! The admin server: `/`, `/metrics`, `/healthz`, `/readyz`, `/status`, and the log's pages over plain HTTP.
//!
//! Bound to loopback, everything answers. Elsewhere `/` and `/status` want `Authorization: Bearer` with the token of
//! `admin.token_file`. A `Host` that is a foreign name is refused on every path. One request per connection, so that no peer keeps one of the few places.

mod host;
mod log;
pub(crate) mod page;
mod pages;
mod problems;
mod server;
mod status;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use forebay_topic::PeerLog;

use crate::config::Secret;
use crate::telemetry::Telemetry;

pub(crate) use log::{CHANGE, LogPages};
pub(crate) use server::{Server, bind};

/// What the pages are made from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct State {
    telemetry: Telemetry,
    token: Option<Secret>,
    log: Option<LogPages>,
    /// Names beside addresses and `localhost` that requests may be for.
    names: Arc<[String]>,
    /// Which lines that a peer can cause are written to the log.
    peer_log: Arc<PeerLog>,
}

impl State {
    /// Pages about what `telemetry` watches; `token` opens `/status` beyond loopback.
    #[must_use]
    pub(crate) fn new(telemetry: Telemetry, token: Option<Secret>) -> Self {
        Self {
            telemetry,
            token,
            log: None,
            names: Arc::default(),
            peer_log: Arc::default(),
        }
    }

    /// Answering to these names too.
    #[must_use]
    pub(crate) fn with_names(self, names: Vec<String>) -> Self {
        Self {
            names: names.into(),
            ..self
        }
    }

    /// With pages about the log.
    #[must_use]
    pub(crate) fn with_log(self, log: LogPages) -> Self {
        Self { log: Some(log), ..self }
    }
}
