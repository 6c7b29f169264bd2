//! Takes the place of `metrics-exporter-prometheus` 0.13 in the dependency tree.
//!
//! rumqttd names that crate for a listener of its own which Forebay never configures, and the real one
//! brings hyper 0.14 with it. This crate has only the signatures that rumqttd compiles against;
//! `install` refuses, so that starting the listener by mistake is an error and not silence.
//! The reasons are in `docs/decisions/0003`.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

/// The one type of the real crate that rumqttd uses.
#[derive(Debug, Default)]
pub struct PrometheusBuilder;

/// Why [`PrometheusBuilder::install`] did nothing.
#[derive(Debug)]
pub struct BuildError;

impl std::fmt::Display for BuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forebay has its own metrics listener; rumqttd's is not built in")
    }
}

impl std::error::Error for BuildError {}

impl PrometheusBuilder {
    /// Starts nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// Accepts the address as the real builder does.
    #[must_use]
    pub fn with_http_listener(self, _address: impl Into<SocketAddr>) -> Self {
        self
    }

    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn install(self) -> Result<(), BuildError> {
        Err(BuildError)
    }
}
