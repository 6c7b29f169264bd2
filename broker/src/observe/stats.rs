//! What the device side counts, each counter by what its name says, and the reasons it tells apart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_wal::{Offset, StreamId, Timestamp};

use super::traced_publish::TracedPublish;
use crate::tls::HandshakeFault;

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }

        impl $name {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The metric's label, stable once released.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

reasons! {
    /// Why a publish was not taken.
    Refusal {
        /// No access rule allows the topic.
        NotAuthorized = "not_authorized",
        /// The cloud would never take it (MQTT 5; on 3.1.1 it becomes a dead letter).
        Undeliverable = "undeliverable",
        /// The stream, or the disk, is at its bound and the policy is `refuse`.
        LogFull = "log_full",
        /// The log cannot write at the moment.
        LogUnavailable = "log_unavailable",
        /// The commit failed after the publish was taken in; it was not acked.
        CommitFailed = "commit_failed",
    }
}

reasons! {
    /// Why a publish with RETAIN was not kept for later subscribers.
    Unretained {
        /// As many are kept as `limits.max_topics` allows.
        TooMany = "max_topics",
        /// With it they would have more bytes than `sessions.max_bytes`.
        TooLarge = "max_bytes",
        /// Its identity keeps a quarter of what may be kept, and half is taken.
        IdentityQuota = "identity",
        /// At QoS 0, and the log cannot store it.
        LogUnavailable = "log",
        /// At QoS 0, and too much waits for `state.redb`.
        Behind = "checkpoint",
    }
}

reasons! {
    /// Why a connection was not accepted, or ended other than by the device's own DISCONNECT.
    Disconnection {
        /// More connections than `limits.max_connections`.
        TooManyConnections = "too_many_connections",
        /// TLS failed; counted by its own reasons too.
        Handshake = "handshake",
        /// No CONNECT within the deadline.
        ConnectTimeout = "connect_timeout",
        /// No CONNECT for a second, while more connections came than may wait for theirs.
        Evicted = "evicted",
        /// Bytes that are not MQTT, or a protocol rule broken.
        Protocol = "protocol_error",
        /// A packet over `limits.max_packet`.
        PacketTooLarge = "packet_too_large",
        /// A protocol version that is not spoken here.
        UnsupportedVersion = "unsupported_version",
        /// A client id that cannot be used.
        BadClientId = "bad_client_id",
        /// The certificate's name cannot be an identity (C12).
        BadIdentity = "bad_identity",
        /// A publish or will outside the access rules on MQTT 3.1.1, which has no other answer.
        NotAuthorized = "not_authorized",
        /// Nothing heard for 1.5 times the keep-alive (MQTT-3.1.2-24).
        KeepAlive = "keep_alive",
        /// Another connection took the session over (MQTT-3.1.4-3).
        TakenOver = "taken_over",
        /// The peer closed without DISCONNECT, or the network failed.
        ConnectionLost = "connection_lost",
        /// The peer did not read what it was sent.
        SlowReader = "slow_reader",
        /// The log failed under a 3.1.1 connection, which has no other answer.
        LogFailed = "log_failed",
        /// The gateway stops.
        Shutdown = "shutdown",
    }
}

/// One counter per variant of a reason.
#[derive(Debug)]
pub struct ByReason<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for ByReason<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> ByReason<N> {
    fn add(&self, index: usize) {
        if let Some(counter) = self.0.get(index) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn value(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

/// Counters since start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Publishes taken in and allowed, whatever their QoS and route.
    pub accepted: AtomicU64,
    /// PUBACK and PUBREC that say success, sent.
    pub acked: AtomicU64,
    /// Publishes that match no route and no `local: true`.
    pub unrouted: AtomicU64,
    /// Publishes of routes with `local: true`.
    pub local: AtomicU64,
    /// QoS 2 publishes recognised as sent again; not stored a second time.
    pub qos2_duplicates: AtomicU64,
    /// Publishes with the DUP flag set, QoS 1.
    pub resent_by_devices: AtomicU64,
    /// Bytes of payload accepted.
    pub payload_bytes: AtomicU64,
    /// Connections accepted through CONNACK.
    pub connects: AtomicU64,
    /// Connections open now.
    pub connected: AtomicU64,
    /// DISCONNECT by the device with no error.
    pub clean_disconnects: AtomicU64,
    /// TLS handshakes in progress now.
    pub handshakes_pending: AtomicU64,
    /// Subscriptions granted.
    pub subscriptions_granted: AtomicU64,
    /// Subscriptions refused: outside the access rules, not valid, or beyond a bound. The log says which.
    pub subscriptions_refused: AtomicU64,
    /// Messages delivered to local subscribers.
    pub fanned_out: AtomicU64,
    /// Messages that a slow local subscriber lost.
    pub fanout_dropped: AtomicU64,
    /// Publishes parked now: 3.1.1, log full.
    pub parked: AtomicU64,
    /// Retained messages now.
    pub retained: AtomicU64,
    /// Bytes of their topics, payloads and properties.
    pub retained_bytes: AtomicU64,
    /// Retained messages sent to new subscriptions.
    pub retained_sent: AtomicU64,
    /// Retained messages removed because their expiry had run out.
    pub retained_expired: AtomicU64,
    /// Subscriptions whose retained messages could not be looked up.
    pub retained_unread: AtomicU64,
    unretained: ByReason<{ Unretained::ALL.len() }>,
    refused: ByReason<{ Refusal::ALL.len() }>,
    refused_qos0: ByReason<{ Refusal::ALL.len() }>,
    disconnected: ByReason<{ Disconnection::ALL.len() }>,
    handshake_faults: std::sync::Mutex<std::collections::BTreeMap<&'static str, u64>>,
}

impl Stats {
    pub(crate) fn refuse(&self, reason: Refusal, qos0: bool) {
        if qos0 {
            self.refused_qos0.add(reason as usize)
        } else {
            self.refused.add(reason as usize)
        }
    }

    pub(crate) fn unretain(&self, reason: Unretained) {
        self.unretained.add(reason as usize);
    }

    pub(crate) fn disconnect(&self, reason: Disconnection) {
        self.disconnected.add(reason as usize);
    }

    pub(crate) fn handshake_fault(&self, label: &'static str) {
        let mut faults = self.handshake_faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *faults.entry(label).or_insert(0) += 1;
    }

    /// QoS 1 and 2 publishes refused for this reason: the device knows.
    #[must_use]
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refused.value(reason as usize)
    }

    /// QoS 0 publishes dropped for this reason: the device cannot know.
    #[must_use]
    pub fn dropped(&self, reason: Refusal) -> u64 {
        self.refused_qos0.value(reason as usize)
    }

    /// Publishes with RETAIN that were not kept for this reason; they went their way.
    #[must_use]
    pub fn unretained(&self, reason: Unretained) -> u64 {
        self.unretained.value(reason as usize)
    }

    /// Connections refused or ended for this reason.
    #[must_use]
    pub fn disconnected(&self, reason: Disconnection) -> u64 {
        self.disconnected.value(reason as usize)
    }

    /// TLS handshakes failed, by label; every label is there from the start, so that the first failure is a rise.
    #[must_use]
    pub fn handshake_faults(&self) -> Vec<(&'static str, u64)> {
        let faults = self.handshake_faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = |label| faults.get(label).copied().unwrap_or(0);
        HandshakeFault::LABELS.iter().map(|label| (*label, count(label))).collect()
    }
}

/// A publish that was accepted.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    /// On which topic.
    pub topic: &'a str,
    /// What it says; it shares the connection's read buffer, so copy what is to be kept.
    pub payload: &'a [u8],
    /// When.
    pub received: Timestamp,
}

/// Hears of what happens on the device side as it happens; implementations must not block.
pub trait Observer: Send + Sync {
    /// Acks left for `count` publishes, the oldest of which waited `oldest` since it was read from the socket.
    fn acked(&self, oldest: Duration, count: u64);

    /// Whether the record that a publish became is traced: asked once, right after it was appended.
    fn traces(&self, _stream: StreamId, _offset: Offset) -> bool {
        false
    }

    /// What became of a publish that is traced.
    fn traced(&self, _publish: &TracedPublish) {}

    /// What is to hear of the publishes of a connection that begins; none = nobody wants to.
    fn publishes(&self, _identity: &Arc<str>) -> Option<Box<dyn Publishes>> {
        None
    }

    /// A device's connection was accepted through CONNACK.
    fn connected(&self, _identity: &Arc<str>, _address: SocketAddr, _at: Timestamp) {}

    /// A device's connection ended; no cause = by its own DISCONNECT.
    fn ended(&self, _identity: &Arc<str>, _address: SocketAddr, _cause: Option<Disconnection>, _at: Timestamp) {}
}

/// Hears of one connection's publishes, so that it can keep what it knows of them at hand; it must not block.
pub trait Publishes: Send + Sync {
    /// A publish was accepted; called in its connection's order, before its ack.
    fn accepted(&mut self, publish: &Accepted<'_>);

    /// What was read at a time has been handled: whatever was gathered of it can be told to others in one go.
    fn handled(&mut self) {}
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(crate) fn sub(counter: &AtomicU64, n: u64) {
    counter.fetch_sub(n, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_handshake_fault_is_counted_from_zero() {
        let stats = Stats::default();
        assert!(stats.handshake_faults().iter().all(|(_, count)| *count == 0));
        stats.handshake_fault("refused_ours");
        let faults = stats.handshake_faults();
        assert_eq!(faults.len(), HandshakeFault::LABELS.len());
        assert_eq!(faults.iter().map(|(_, count)| count).sum::<u64>(), 1);
        assert!(faults.contains(&("refused_ours", 1)));
    }
}
