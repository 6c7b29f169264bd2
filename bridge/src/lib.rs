//! The bridge: sends the records of the log to a cloud over MQTT.
//!
//! # Promise
//!
//! 1. A record is settled as delivered only after the cloud's PUBACK with success (0x00, 0x10), on the connection that sent
//!    it, under the packet id that this connection gave it; at QoS 0, which a route may ask for, when it is written. After the
//!    peer closed on a connection with such publishes they go at QoS 1, so that it can say which one it does not take.
//! 2. Records of a device leave in the order of their offsets, per stream. Named exceptions: what was already in flight
//!    behind a refused record, and suspended pairs.
//! 3. Refused for now (0x97): the *device* waits until the record is in; others go on.
//! 4. Denied (0x87; on 3.1.1 by closing): the pair of route and device is suspended, never a dead letter. Its records wait
//!    in the log and are tried with the oldest once a minute; the whole route when eight devices are denied in a minute.
//! 5. Wrong in itself (no route, too large, bad topic, 0x90, 0x95, 0x99): a dead letter with the reason.
//! 6. Any other answer, readable or not, ends in one of these. A record after which the peer closes, or answers what cannot be
//!    read, is a poison message if that happens three times while it is alone in flight, each after an acked canary.
//! 7. A connection never outlives an error: client, event loop and in-flight window are dropped, the reader starts again at the
//!    oldest record that is not settled. This costs at most one window of duplicates.
//! 8. Tries are unlimited, with jitter, and only a connection that lasted resets the delay.
//!
//! # What it is not for
//!
//! It brings nothing from the cloud to devices: it subscribes to nothing. It does not deliver exactly once; the cloud tells
//! duplicates by `forebay-id`. It keeps nothing itself: what waits is in the log.
//!
//! # Limits
//!
//! | | bound |
//! |---|---|
//! | in flight | [`Config::in_flight`], the cloud's Receive Maximum, and 8 MiB of payload or one larger packet |
//! | read ahead, with the records of waiting devices | [`Config::read_ahead`] bytes |
//! | remembered as perhaps delivered by an earlier connection | 65,536 records |
//! | remembered as topics that the cloud has accepted | 8,192 |
//! | a packet from the cloud | 256 KiB |
//! | addresses of the cloud's name that are tried | 8 |
//! | threads of a resolver that hangs | 1 |
//!
//! Suspended pairs grow with the devices, nothing grows with the backlog.
//!
//! # What it assumes of the cloud
//!
//! A PUBACK with success means that the cloud has the message. It acks in the order of the publishes, more or less: a publish
//! whose turn it is and whose ack does not come within [`Config::ack_timeout`], and a second for each KiB above 8, ends the
//! connection. It takes a client id from one connection at a time.
//!
//! # MQTT 5 user properties
//!
//! `forebay-id` = `gateway/epoch/stream/offset`; `forebay-received-at` = RFC 3339 in UTC with milliseconds, left out while the
//! clock was not to be believed; `forebay-late` = `true` when older than 30 s at first sending; `forebay-retry` = `true` when the
//! cloud may have seen it before: an earlier connection had written it, or it is among the first ones after a restart. A device's
//! own properties travel on, except user properties that begin with `forebay-`.
//!
//! # Example
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use forebay_bridge::{CloudLimits, Config, Handle, Mapping, Observer, Qos, Route, State};
//! use forebay_topic::{Template, TopicFilter};
//! use tokio_util::sync::CancellationToken;
//!
//! # struct Quiet;
//! # impl Observer for Quiet {
//! #     fn delivered(&self, _age: std::time::Duration, _late: bool) {}
//! # }
//! # async fn example(log: forebay_wal::Log, clock: Arc<dyn forebay_wal::Clock>) -> Result<(), Box<dyn std::error::Error>> {
//! let route = Route {
//!     name: "telemetry".to_owned(),
//!     from: TopicFilter::parse("devices/+/telemetry")?,
//!     to: Template::parse("dt/{device}")?,
//!     qos: Qos::AtLeastOnce,
//!     keep_retain: false,
//! };
//! let mapping = Mapping::new("plant-7", vec![route], CloudLimits::mqtt())?;
//! let (handle, shutdown) = (Handle::new(), CancellationToken::new());
//! let config = Config::mqtt("plant-7", "broker.example");
//! let lane = forebay_bridge::run(config, log, Arc::new(mapping), handle.clone(), Arc::new(Quiet), clock, shutdown.clone());
//! let lane = tokio::spawn(lane);
//! println!("{:?}", handle.status().state);
//! shutdown.cancel();
//! lane.await?;
//! assert_eq!(handle.status().state, State::Stopped);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_topic::{PeerLog, Repeated};
use forebay_wal::{Clock, Log};
use tokio_util::sync::CancellationToken;

pub use config::{Backoff, Canary, Config, RateLimit, TlsSource, Version};
pub use mapping::{CloudLimits, Mapped, Mapping, MappingError, Qos, Route, Unmappable};
pub use stats::{Answer, DEAD_REASONS, Ended, Fate, Observer, REFUSAL_CODES, Stats};
pub use status::{BridgeStatus, Handle, LastError, State, Suspension};

mod config;
mod flow;
mod lane;
mod link;
mod mapping;
mod message;
mod refusal;
mod stats;
mod status;
#[cfg(feature = "testing")]
pub mod testing;

/// How often counts of repeated log lines are looked for.
const TELL: Duration = Duration::from_secs(5);

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
    let lane = lane::Lane::new(config, log, mapping, handle, observer, clock);
    let peer_log = Arc::clone(&lane.peer_log);
    tokio::select! {
        () = lane.run(shutdown) => {}
        () = tell_repeated_lines(&peer_log) => {}
    }
}

/// Writes the counts of the lines that were not written in full; never ends.
async fn tell_repeated_lines(peer_log: &PeerLog) {
    loop {
        tokio::time::sleep(TELL).await;
        for Repeated { who, reason, more } in peer_log.due(Instant::now()) {
            tracing::warn!(who, reason, "{more} more in the last minute");
        }
    }
}
