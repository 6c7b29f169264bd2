//! The bridge: replays the log to a cloud over MQTT.
//!
//! # The contract
//!
//! 1. A record is settled as delivered only after the cloud's PUBACK with success (0x00, 0x10), on the connection that sent
//!    it, under the packet id that this connection gave it; at QoS 0, which a route may ask for, when it is written. After the
//!    peer closed on a connection with such publishes they go at QoS 1, so that it can say which one it does not take.
//! 2. Records of a device leave in the order of their offsets, per stream. Named exceptions: what was already in flight
//!    behind a refused record, and suspended pairs.
//! 3. Refused for now (0x97): the *device* waits until the record is in; others go on.
//! 4. Denied (0x87; on 3.1.1 by closing): the pair of route and device is suspended, never a dead letter. Its records wait
//!    in the log and are tried with the oldest once a minute; the whole route when eight devices are denied in a minute.
//! 5. Wrong in itself (no route, too large, bad topic, 0x90, 0x99): a dead letter with the reason.
//! 6. A connection never outlives an error: client, event loop and window are dropped, the reader starts again at the oldest
//!    record that is not settled. This costs at most one window of duplicates.
//! 7. Tries are unlimited, with jitter, and only a connection that lasted resets the delay.
//!
//! # MQTT 5 user properties
//!
//! `forebay-id` = `gateway/epoch/stream/offset`; `forebay-received-at` = RFC 3339 in UTC with milliseconds, left out while the
//! clock was not to be believed; `forebay-late` = `true` when older than 30 s at first sending; `forebay-retry` = `true` when the
//! cloud may have seen it before: an earlier connection had written it, or it is among the first ones after a restart. A device's
//! own properties travel on, except user properties that begin with `forebay-`.
//!
//! # Limits
//!
//! In flight: [`Config::in_flight`], the cloud's Receive Maximum, and 8 MiB of payload. Read ahead, and those of waiting
//! devices: [`Config::read_ahead`].
//! Remembered as perhaps seen: 65,536 records. Nothing else grows with the backlog; suspended pairs grow with the devices.
#![forbid(unsafe_code)]

mod config;
mod flow;
mod lane;
mod link;
mod log_throttle;
mod mapping;
mod message;
mod refusal;
mod stats;
mod status;

use std::sync::Arc;

use forebay_wal::{Clock, Log};
use tokio_util::sync::CancellationToken;

pub use config::{Backoff, Canary, Config, RateLimit, Version};
pub use mapping::{CloudLimits, Mapped, Mapping, MappingError, Qos, Route, Unmappable};
pub use stats::{Answer, DEAD_REASONS, Ended, Fate, Observer, REFUSAL_CODES, Stats};
pub use status::{BridgeStatus, Handle, LastError, State, Suspension};

/// Runs one lane until `shutdown`: then nothing more is sent, outstanding acks are waited for within the grace period, and
/// the cloud is told goodbye. Returns when that is done. Wants a Tokio runtime with time and I/O; reads of the log go to its
/// blocking pool.
pub async fn run(
    config: Config,
    log: Log,
    mapping: Arc<Mapping>,
    handle: Handle,
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
) {
    lane::Lane::new(config, log, mapping, handle, observer, clock).run(shutdown).await;
}
