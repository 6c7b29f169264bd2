//! The bridge: replays the log to a cloud over MQTT.
#![forbid(unsafe_code)]

mod config;
mod mapping;
mod stats;
mod status;

use std::sync::Arc;

use forebay_wal::{Clock, Log};
use tokio_util::sync::CancellationToken;

pub use config::{Backoff, Config, Pacing, Version};
pub use mapping::{CloudLimits, Mapped, Mapping, MappingError, Qos, Route, Unmappable};
pub use stats::{DEAD_REASONS, Ended, Observer, REFUSAL_CODES, Stats};
pub use status::{BridgeStatus, Handle, LastError, State, Suspension};

/// Runs one lane until `shutdown`.
pub async fn run(
    _config: Config,
    _log: Log,
    _mapping: Arc<Mapping>,
    _handle: Handle,
    _observer: Arc<dyn Observer>,
    _clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) {
    shutdown.cancelled().await;
}
