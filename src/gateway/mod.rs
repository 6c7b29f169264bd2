//! The gateway as one process: builds the parts from the configuration, joins them, runs them, and ends them in order.
//!
//! Start: log, front, bridge, admin; then the ready line. End: no more devices, what is committed is answered, the bridge
//! waits for outstanding acks, the log closes cleanly.

mod build;
mod cloud;
mod settings;
mod shutdown;
mod time;

use crate::config::Config;
use crate::monitor::self_check::Origin;

pub(crate) use settings::{log_directory, log_options};
pub(crate) use time::clock;

/// Why the gateway ended, sorted by who can act.
pub(crate) enum Exit {
    /// The operator: a file or a setting.
    Configuration(anyhow::Error),
    /// The disk.
    Disk(anyhow::Error),
    /// Us.
    Internal(anyhow::Error),
}

impl Exit {
    /// The error inside.
    pub(crate) fn into_error(self) -> anyhow::Error {
        match self {
            Self::Configuration(error) | Self::Disk(error) | Self::Internal(error) => error,
        }
    }
}

/// Runs until SIGTERM, SIGINT, or a fault that only a restart fixes.
///
/// # Errors
/// Why it could not start, or had to end.
pub(crate) async fn run(config: Config, origin: Origin) -> Result<(), Exit> {
    let gateway = build::build(config, origin).await?;
    let front = gateway.front;
    let addresses = front.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    // Before the ready line: who has read it may stop the gateway at once.
    let signals = shutdown::signals();
    crate::logging::announce(format!("ready listeners={addresses} admin={}", gateway.admin));
    tokio::spawn(shutdown::signalled(signals, gateway.parts.shutdown.clone()));
    let ended = front.run(shutdown::GRACE).await;
    gateway.parts.end(ended).await
}
