//! The bounds that the configuration sets.

use std::time::Duration;

/// The bounds of the device side. Each has a policy for what is beyond it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time; more are closed at accept.
    pub max_connections: usize,
    /// Bytes of one packet; a larger one ends its connection (0x95 on MQTT 5).
    pub max_packet: usize,
    /// Unanswered publishes of one connection: the Receive Maximum of MQTT 5; on 3.1.1 the socket is not read beyond it.
    pub max_in_flight: u16,
    /// Longest keep-alive granted on MQTT 5 (Server Keep Alive).
    pub max_keep_alive: Duration,
    /// Levels of a topic or filter of a peer; more are refused.
    pub max_levels: usize,
    /// Bytes of a topic or filter of a peer; more are refused.
    pub max_topic: usize,
    /// Retained messages.
    pub max_topics: usize,
    /// Bytes of retained messages.
    pub max_retained_bytes: u64,
    /// Longest time that a session is kept without a connection.
    pub max_session_expiry: Duration,
    /// Connections before CONNECT, handshakes among them. Beyond it, those that have been silent for 1 s are closed.
    pub max_pending_handshakes: usize,
    /// How long a peer may take from accept to CONNECT.
    pub connect_deadline: Duration,
    /// Bytes of publishes that are not committed yet, of all connections together; beyond it sockets are not read.
    pub max_uncommitted_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 2000,
            max_packet: 128 << 10,
            max_in_flight: 100,
            max_keep_alive: Duration::from_secs(20 * 60),
            max_levels: 32,
            max_topic: 1 << 10,
            max_topics: 100_000,
            max_retained_bytes: 256 << 20,
            max_session_expiry: Duration::from_secs(7 * 24 * 3600),
            max_pending_handshakes: 64,
            connect_deadline: Duration::from_secs(10),
            max_uncommitted_bytes: 64 << 20,
        }
    }
}
