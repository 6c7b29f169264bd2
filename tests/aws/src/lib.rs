//! A small strict MQTT server that behaves like AWS IoT Core: the judge of the bridge in tests, and the cloud of `forebay demo`.
//!
//! It speaks MQTT 3.1.1 and 5 on one port, over mutual TLS with SNI or plain TCP, and reads packets with another codec
//! than the product, so that neither confirms the other's mistakes. A run ends with two verdicts:
//!
//! 1. **no loss**: what the gateway calls delivered is in the [`Ledger`];
//! 2. **no violation**: the client never did what AWS forbids ([`Standin::violations`]), even if it recovered.
//!
//! Where AWS documents an outcome it is the default; where it does not, [`Switches`] names both. What AWS answers
//! by version (a denied QoS 1 publish: PUBACK 0x87 on 5, a closed socket on 3.1.1) is answered by version here.
//! [`Faults`] makes it refuse, stall, lose acks, answer any code, cut lines and go away, at any moment.
//!
//! Limits: one CONNECT of at most 149,504 bytes within 10 s; 1000 stored messages per session; ledger entries as
//! [`LedgerConfig`] says. Not built: retained delivery, shared subscriptions, shadow, Jobs, provisioning and streams.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use forebay_aws_standin::{Standin, StandinConfig, Which};
//!
//! let cloud = Standin::start(StandinConfig::default()).await?;
//! cloud.faults().drop_pubacks(Which::Next(1));
//! cloud.ledger().wait_for(std::time::Duration::from_secs(10), |ledger| ledger.count() == 1).await?;
//! assert!(cloud.violations().is_empty());
//! cloud.shutdown().await;
//! # Ok(()) }
//! ```

#[cfg(feature = "testing")]
pub mod certificates;
mod config;
mod connection;
pub mod control;
mod decode;
mod encode;
mod faults;
mod glob;
mod hub;
mod ledger;
mod policy;
mod rate;
mod rules;
mod standin;
mod stats;
mod tls;
mod violations;
mod wire;

pub use config::{Limits, Qos2, RateOutcome, Rates, StandinConfig, Switches, TlsConfig, TlsConfigError, Undeliverable};
pub use decode::Version;
pub use faults::{Cut, Faults, Flap, ListenError, Point, Which};
pub use ledger::{Arrival, DeviceReport, Entry, Ledger, LedgerConfig, LedgerReport, PayloadKey, WaitTimeout, json_device_and_seq};
pub use policy::Policy;
pub use standin::{Standin, StartError};
pub use stats::{ConnectRecord, Stats};

/// Locks, going on with what a panicked holder left: every critical section here leaves its data whole.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
