//! What the device side counts, and the reasons that its counters are split by.

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
    /// Why a publish was not accepted.
    Refusal {
        /// No access rule allows the topic.
        NotAuthorized = "not_authorized",
        /// The topic is longer or deeper than `limits.max_topic` and `limits.max_levels` allow, or has control characters.
        TopicBounds = "topic_bounds",
        /// The cloud can never accept it (MQTT 5; on 3.1.1 it becomes a dead letter).
        Undeliverable = "undeliverable",
        /// It carries an id of this gateway: what was sent to the cloud comes back.
        Loop = "loop",
        /// The stream, or the disk, is at its bound and the policy is `refuse`.
        LogFull = "log_full",
        /// The log cannot write at the moment.
        LogUnavailable = "log_unavailable",
        /// Its commit failed; it was not acked.
        CommitFailed = "commit_failed",
    }
}

reasons! {
    /// Why a publish with RETAIN was delivered but not retained.
    Unretained {
        /// There are as many retained messages as `limits.max_topics` allows.
        TooMany = "max_topics",
        /// With it, retained messages would exceed `sessions.max_bytes`.
        TooLarge = "max_bytes",
        /// Its identity has a quarter of what may be retained, and half of that is in use.
        IdentityQuota = "identity",
        /// At QoS 0, and the log cannot append it.
        LogUnavailable = "log",
        /// At QoS 0, and too many changes wait for `state.redb`.
        Behind = "checkpoint",
    }
}

reasons! {
    /// Why a session without a connection, or a part of one, was dropped before its expiry.
    DroppedSession {
        /// An empty session made room for a new one.
        MadeRoom = "made_room",
        /// There was no empty one: the one that had been without a connection for longest made room.
        LongestGone = "longest_gone",
        /// At the start: a session, a subscription or a packet id over a bound, or without its session.
        AtStart = "at_start",
        /// `forebay sessions drop`, connected or not.
        Operator = "operator",
    }
}

reasons! {
    /// Why a message that a session was owed at QoS 1 or 2 did not reach it.
    DroppedOwed {
        /// The session, or its identity, had its share of what may wait; its oldest message made room.
        SessionBound = "session_bound",
        /// All sessions together had what may wait; the session's oldest message made room.
        AllSessionsBound = "all_sessions_bound",
        /// The message's own expiry was over before it was sent.
        MessageExpiry = "message_expiry",
        /// It is larger than the client's Maximum Packet Size.
        TooLarge = "too_large",
        /// The client answered with a code of 0x80 or above.
        Refused = "refused",
        /// The session ended, with its connection, before the client's answer.
        SessionEnd = "session_end",
    }
}

reasons! {
    /// Why a connection was not accepted, or ended without the device's DISCONNECT.
    Disconnection {
        /// More connections than `limits.max_connections`, or than `access[].max_connections` of one identity.
        TooManyConnections = "too_many_connections",
        /// More connections before CONNECT than `limits.max_pending`, and none of them gave way.
        TooManyPending = "too_many_pending",
        /// TLS failed; counted by its own reasons too.
        Handshake = "handshake",
        /// No CONNECT within the deadline, or no session for it.
        ConnectTimeout = "connect_timeout",
        /// Silent for seconds before CONNECT, and its place was needed for a new connection.
        Evicted = "evicted",
        /// The bytes are not MQTT, or break a rule of the protocol.
        Protocol = "protocol_error",
        /// A packet over `limits.max_packet`.
        PacketTooLarge = "packet_too_large",
        /// More QoS 2 publishes without PUBREL than `limits.max_in_flight`.
        ReceiveMaximum = "receive_maximum",
        /// A protocol version that is not supported.
        UnsupportedVersion = "unsupported_version",
        /// A client id that cannot be used.
        BadClientId = "bad_client_id",
        /// The certificate's name cannot be an identity (C12).
        BadIdentity = "bad_identity",
        /// A will outside the access rules or the bounds of topics, or enhanced authentication.
        NotAuthorized = "not_authorized",
        /// No packet within 1.5 times the keep-alive (MQTT-3.1.2-24).
        KeepAlive = "keep_alive",
        /// Another connection took the session over (MQTT-3.1.4-3).
        TakenOver = "taken_over",
        /// The operator dropped its session.
        SessionDropped = "session_dropped",
        /// The peer closed without DISCONNECT, or the network failed.
        ConnectionLost = "connection_lost",
        /// The peer did not read what it was sent.
        SlowReader = "slow_reader",
        /// The peer did not answer a message of QoS 1 or 2 in time.
        AckTimeout = "ack_timeout",
        /// It would have taken more memory than its share, or than there is for all.
        OverBudget = "over_budget",
        /// The log failed, and MQTT 3.1.1 has no other answer.
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
    /// Publishes accepted, whatever their QoS and route.
    pub accepted: AtomicU64,
    /// PUBACK and PUBREC that say success, sent.
    pub acked: AtomicU64,
    /// Publishes that match no route and no `local: true`.
    pub unrouted: AtomicU64,
    /// Publishes of routes with `local: true`.
    pub local: AtomicU64,
    /// QoS 2 publishes sent again; they are not appended a second time.
    pub qos2_duplicates: AtomicU64,
    /// Publishes with the DUP flag set, QoS 1.
    pub resent_by_devices: AtomicU64,
    /// Bytes of payload accepted.
    pub payload_bytes: AtomicU64,
    /// Connections accepted through CONNACK.
    pub connects: AtomicU64,
    /// Connections open now.
    pub connected: AtomicU64,
    /// The most connections that were open at a time.
    pub most_connected: AtomicU64,
    /// Packets of connections that have their CONNACK.
    pub packets_received: AtomicU64,
    /// Packets for them; not their CONNACK.
    pub packets_sent: AtomicU64,
    /// Bytes of the same.
    pub bytes_received: AtomicU64,
    /// Bytes of the same.
    pub bytes_sent: AtomicU64,
    /// Bytes of payload sent to local subscribers.
    pub payload_bytes_sent: AtomicU64,
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
    /// Messages dropped because a local subscriber was slow.
    pub fanout_dropped: AtomicU64,
    /// Messages whose search for local subscribers ended at its bound.
    pub fanout_cut: AtomicU64,
    /// Messages owed to sessions at QoS 1 or 2.
    pub owed: AtomicU64,
    /// Of these, those that the client has acknowledged.
    pub owed_acked: AtomicU64,
    /// Of these, those that wait now, or are in flight.
    pub owed_waiting: AtomicU64,
    owed_dropped: ByReason<{ DroppedOwed::ALL.len() }>,
    /// Publishes parked now: 3.1.1, log full.
    pub parked: AtomicU64,
    /// Retained messages now.
    pub retained: AtomicU64,
    /// Bytes of their topics, payloads and properties.
    pub retained_bytes: AtomicU64,
    /// Retained messages sent to new subscriptions.
    pub retained_sent: AtomicU64,
    /// Retained messages removed because they had expired.
    pub retained_expired: AtomicU64,
    /// Subscriptions whose retained messages could not be looked up.
    pub retained_unread: AtomicU64,
    dropped_sessions: ByReason<{ DroppedSession::ALL.len() }>,
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

    pub(crate) fn drop_owed(&self, reason: DroppedOwed) {
        self.owed_dropped.add(reason as usize);
    }

    /// Messages owed at QoS 1 or 2 that did not reach their session for this reason.
    #[must_use]
    pub fn owed_dropped(&self, reason: DroppedOwed) -> u64 {
        self.owed_dropped.value(reason as usize)
    }

    pub(crate) fn drop_session(&self, reason: DroppedSession) {
        self.dropped_sessions.add(reason as usize);
    }

    /// Sessions, and parts of sessions, dropped for this reason.
    #[must_use]
    pub fn dropped_sessions(&self, reason: DroppedSession) -> u64 {
        self.dropped_sessions.value(reason as usize)
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

    /// Publishes with RETAIN that were delivered but not retained for this reason.
    #[must_use]
    pub fn unretained(&self, reason: Unretained) -> u64 {
        self.unretained.value(reason as usize)
    }

    /// Connections refused or ended for this reason.
    #[must_use]
    pub fn disconnected(&self, reason: Disconnection) -> u64 {
        self.disconnected.value(reason as usize)
    }

    /// Failed TLS handshakes by label. Every label is present from the start, so that the first failure is seen as an increase.
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
    /// Its topic.
    pub topic: &'a str,
    /// Its payload. It shares the connection's read buffer: copy what is to be kept.
    pub payload: &'a [u8],
    /// When it was received.
    pub received: Timestamp,
}

/// Is told what happens on the device side. Implementations must not block.
pub trait Observer: Send + Sync {
    /// `count` publishes were acked; the oldest had been read from the socket `oldest` ago.
    fn acked(&self, oldest: Duration, count: u64);

    /// Whether the record of a publish is traced. Asked once, right after it was appended.
    fn traces(&self, _stream: StreamId, _offset: Offset) -> bool {
        false
    }

    /// What became of a publish that is traced.
    fn traced(&self, _publish: &TracedPublish) {}

    /// What is told of the publishes of a new connection; `None` if nothing is.
    fn publishes(&self, _identity: &Arc<str>) -> Option<Box<dyn Publishes>> {
        None
    }

    /// A device's connection was accepted through CONNACK.
    fn connected(&self, _identity: &Arc<str>, _address: SocketAddr, _at: Timestamp) {}

    /// A device's connection ended; the cause is `None` for its own DISCONNECT.
    fn ended(&self, _identity: &Arc<str>, _address: SocketAddr, _cause: Option<Disconnection>, _at: Timestamp) {}
}

/// Is told of one connection's publishes, so that it can keep state for that connection. It must not block.
pub trait Publishes: Send + Sync {
    /// A publish was accepted; called in its connection's order, before its ack.
    fn accepted(&mut self, publish: &Accepted<'_>);

    /// All packets of one read have been handled: what was collected of them can be passed on at once.
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
