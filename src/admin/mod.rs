//! The admin server: `/`, `/metrics`, `/healthz`, `/readyz`, `/status`, and the log's pages over plain HTTP.
//!
//! Bound to loopback, everything answers. Elsewhere `/` and `/status` want `Authorization: Bearer` with the token of
//! `admin.token_file`. One request per connection, so that no peer keeps one of the few places.

mod log;
pub(crate) mod page;
mod pages;
mod problems;
mod server;
mod status;

#[cfg(test)]
mod tests;

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
}

impl State {
    /// Pages about what `telemetry` watches; `token` opens `/status` beyond loopback.
    #[must_use]
    pub(crate) const fn new(telemetry: Telemetry, token: Option<Secret>) -> Self {
        Self {
            telemetry,
            token,
            log: None,
        }
    }

    /// With pages about the log.
    #[must_use]
    pub(crate) fn with_log(self, log: LogPages) -> Self {
        Self { log: Some(log), ..self }
    }
}
