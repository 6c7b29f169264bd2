//! The gateway as one process: builds the parts from the configuration, joins them, runs them, and ends them in order.
//!
//! Start: admin, log, front, bridge; then the ready line. End: no more devices, what is committed is answered, the bridge
//! waits for outstanding acks, the log closes cleanly.

mod build;
mod cloud;
mod cloud_files;
mod descriptors;
mod os_signals;
mod private;
mod settings;
mod shutdown;
mod time;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::monitor::self_check::Origin;
use crate::monitor::tasks::Tasks;

pub(crate) use os_signals::OsSignals;
pub(crate) use private::make_private;
pub(crate) use settings::{log_directory, log_options};
pub(crate) use time::clock;

/// How long a gateway that must end still serves, so that its pages can say why.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Why the gateway ended, by what has to be fixed.
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

/// Runs until `stop`, or until a fault that only a restart fixes. The signals cancel `stop`; `tasks` watches all parts.
///
/// # Errors
/// Why it could not start, or had to end.
pub(crate) async fn run(config: Config, origin: Origin, tasks: Tasks, stop: CancellationToken) -> Result<(), Exit> {
    let Some(gateway) = build::build(config, origin, &tasks, &stop).await? else {
        return Ok(());
    };
    let front = gateway.front;
    let addresses = front.addresses().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    crate::logging::announce(format!("ready listeners={addresses} admin={}", gateway.admin));
    let mut serving = std::pin::pin!(front.run(shutdown::GRACE));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = tasks.death() => {
            // So that whoever looks at `/status` and `/healthz` now sees why.
            tokio::time::sleep(LAST_LOOK).await;
            stop.cancel();
            serving.await
        }
    };
    gateway.parts.end(ended).await
}
