//! The admin server: `/`, `/metrics`, `/healthz`, `/readyz`, `/status`, and the log's pages over plain HTTP.
//!
//! Bound to loopback, everything answers. Elsewhere `/` and `/status` want `Authorization: Bearer` with the token of
//! `admin.token_file`. A `Host` that is a foreign name is refused on every path. One request per connection, so that no peer keeps one of the few places.

mod host;
mod log;
pub(crate) mod page;
mod pages;
mod places;
mod problems;
mod server;
mod sessions;
mod status;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use forebay_broker::View;
use forebay_topic::PeerLog;

use crate::config::{Secret, read_token};
use crate::telemetry::Telemetry;

pub(crate) use log::{CHANGE, LogPages};
pub(crate) use server::bind;
pub(crate) use sessions::SessionName;

/// What the pages are made from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct State {
    telemetry: Telemetry,
    token: Option<Secret>,
    /// Where to look for the token while there is none: its file may come later than the gateway.
    token_file: Option<PathBuf>,
    late_token: Arc<OnceLock<Secret>>,
    /// None until the log is open.
    log: Arc<OnceLock<LogPages>>,
    /// None until there is a front.
    front: Arc<OnceLock<View>>,
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
            token_file: None,
            late_token: Arc::default(),
            log: Arc::default(),
            front: Arc::default(),
            names: Arc::default(),
            peer_log: Arc::default(),
        }
    }

    /// Looking there for the token if there is none yet.
    #[must_use]
    pub(crate) fn with_token_file(self, token_file: Option<PathBuf>) -> Self {
        Self { token_file, ..self }
    }

    /// The token, if it is known by now.
    fn token(&self) -> Option<&Secret> {
        if let Some(known) = self.token.as_ref().or_else(|| self.late_token.get()) {
            return Some(known);
        }
        let found = read_token(self.token_file.as_ref()?)?.ok()?;
        Some(self.late_token.get_or_init(|| found))
    }

    /// Answering to these names too.
    #[must_use]
    pub(crate) fn with_names(self, names: Vec<String>) -> Self {
        Self {
            names: names.into(),
            ..self
        }
    }

    /// With pages about sessions from now on.
    pub(crate) fn open_front(&self, front: View) {
        // There is one front.
        self.front.set(front).ok();
    }

    /// With pages about the log from now on.
    pub(crate) fn open_log(&self, log: LogPages) {
        // There is one log.
        self.log.set(log).ok();
    }
}
