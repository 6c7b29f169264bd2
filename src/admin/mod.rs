//! The admin server: `/`, `/metrics`, `/healthz`, `/readyz`, `/status` over plain HTTP.
//!
//! Bound to loopback, everything answers. Elsewhere `/` and `/status` want `Authorization: Bearer` with the token of
//! `admin.token_file`. One request per connection, so that no peer keeps one of the few places.

mod pages;
mod problems;
mod server;
mod status;

#[cfg(test)]
mod tests;

use crate::config::Secret;
use crate::telemetry::Telemetry;

pub(crate) use server::bind;

/// What the pages are made from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct State {
    telemetry: Telemetry,
    token: Option<Secret>,
}

impl State {
    /// Pages about what `telemetry` watches; `token` opens `/status` beyond loopback.
    #[must_use]
    pub(crate) const fn new(telemetry: Telemetry, token: Option<Secret>) -> Self {
        Self { telemetry, token }
    }
}
