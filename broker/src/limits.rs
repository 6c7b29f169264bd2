//! The bounds that the configuration sets.

use std::time::Duration;

/// Members of one shared subscription. All of them are looked at for each of its messages.
pub(crate) const MAX_MEMBERS: usize = 256;
/// Distinct filters of all sessions that are connected.
pub(crate) const MAX_FILTERS: usize = 20_000;

/// Memory of one connection without what has a bound of its own: sockets, TLS, tasks. Measured: 20 KiB idle with TLS.
pub(crate) const CONNECTION_BYTES: usize = 24 << 10;
/// Memory of all distinct filters at their bounds: 4 MiB of text of levels, 60,000 nodes of some 150 bytes.
pub(crate) const FILTERS_BYTES: usize = 14 << 20;
/// Memory for each retained message that is in `state.redb`.
pub(crate) const RETAINED_INDEX_BYTES: usize = 48;
/// Memory of retained messages that are not in `state.redb` yet.
pub(crate) const RETAINED_BEHIND_BYTES: usize = 8 << 20;

/// Memory of a session whatever it has, key included.
pub(crate) const SESSION_BYTES: usize = 512;

/// Sessions that may be kept for each connection that is allowed.
const SESSIONS_PER_CONNECTION: usize = 4;
/// The least for the sessions of one identity: one with a hundred subscriptions at the longest filter, or some 600 of a usual length.
const MIN_SESSION_SHARE: usize = 128 << 10;
/// What is left for traffic, however small the memory is.
const MIN_TRAFFIC_BYTES: usize = 16 << 20;
/// The least of publishes that are not committed for one identity: two of the largest packets, and what comes beside them.
const MIN_UNCOMMITTED_SHARE: usize = 256 << 10;
/// The least that one identity may leave unread: the backlog of a slow subscriber and its answers.
const MIN_OUTPUT_SHARE: usize = 1088 << 10;
/// The least for the aliases of one identity: a connection with all of them at the longest topic, and some.
const MIN_ALIAS_SHARE: usize = 128 << 10;

/// The least for the packets of one identity: two of the largest.
const MIN_INPUT_SHARE: usize = 256 << 10;
/// The least for the wills of one identity: one of the largest packet, and some.
const MIN_WILL_SHARE: usize = 256 << 10;

/// The least for the messages that one identity is owed: four of the largest packets.
const MIN_OWED_SHARE: usize = 512 << 10;
/// How long a client may take to answer a message of QoS 1 or 2.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);

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
    /// Subscriptions of one session; more are refused.
    pub max_subscriptions: usize,
    /// Retained messages.
    pub max_topics: usize,
    /// Bytes of retained messages.
    pub max_retained_bytes: u64,
    /// Bytes of subscriptions and packet ids of one session.
    pub max_session_bytes: u64,
    /// The same of all sessions together.
    pub max_session_pool: usize,
    /// Bytes of messages that sessions are owed at QoS 1 and 2; beyond it a session loses the oldest that waits.
    pub max_owed_bytes: usize,
    /// How long a client may take to answer a message of QoS 1 or 2; then its connection is closed.
    pub ack_timeout: Duration,
    /// Longest time that a session is kept without a connection.
    pub max_session_expiry: Duration,
    /// Connections before CONNECT, handshakes among them. Beyond it a peer that is silent gives way to a new one.
    pub max_pending: usize,
    /// How long a peer may take from accept to CONNECT.
    pub connect_timeout: Duration,
    /// Bytes of publishes that are not committed yet, of all connections together; beyond it sockets are not read.
    pub max_uncommitted_bytes: usize,
    /// Bytes of publishes on 3.1.1 that wait for room in the log, of all connections together; beyond it those are not read.
    pub max_parked_bytes: usize,
    /// Bytes of packets above 4 KiB that have not come whole, of all connections together; beyond it they are not read on.
    pub max_input_bytes: usize,
    /// Bytes that peers have not read, of all connections together; beyond it deliveries are dropped.
    pub max_output_bytes: usize,
    /// Bytes of the topics of aliases, of all connections together; beyond it a connection ends.
    pub max_alias_bytes: usize,
    /// Bytes of wills, of all sessions together; beyond it a CONNECT with a will is refused.
    pub max_will_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = Self {
            max_connections: 2000,
            max_packet: 128 << 10,
            max_in_flight: 100,
            max_keep_alive: Duration::from_secs(20 * 60),
            max_levels: 32,
            max_topic: 1 << 10,
            max_subscriptions: 1000,
            max_topics: 100_000,
            max_retained_bytes: 256 << 20,
            max_session_bytes: 8 << 20,
            max_session_pool: 0,
            max_owed_bytes: 0,
            ack_timeout: ACK_TIMEOUT,
            max_session_expiry: Duration::from_secs(7 * 24 * 3600),
            max_pending: 2000,
            connect_timeout: Duration::from_secs(30),
            max_uncommitted_bytes: 0,
            max_parked_bytes: 0,
            max_output_bytes: 0,
            max_input_bytes: 0,
            max_alias_bytes: 0,
            max_will_bytes: 0,
        };
        limits.within(128 << 20)
    }
}

impl Limits {
    /// Divides this much memory, in bytes: what connections, filters and retained messages do not take is shared out to
    /// traffic, 16 MiB at least.
    #[must_use]
    pub fn within(self, max_memory: usize) -> Self {
        let connections = self.max_connections.saturating_add(self.max_connections.div_ceil(10));
        let fixed = connections
            .saturating_mul(CONNECTION_BYTES)
            .saturating_add(self.max_sessions().saturating_mul(SESSION_BYTES))
            .saturating_add(FILTERS_BYTES + RETAINED_BEHIND_BYTES)
            .saturating_add(self.max_topics.saturating_mul(RETAINED_INDEX_BYTES));
        let part = max_memory.saturating_sub(fixed).max(MIN_TRAFFIC_BYTES) / 32;
        Self {
            // Counted twice: in the buffers of connections, and in the open batch.
            max_uncommitted_bytes: 6 * part,
            max_input_bytes: 2 * part,
            max_parked_bytes: part,
            max_output_bytes: 4 * part,
            max_alias_bytes: part,
            max_will_bytes: part,
            max_owed_bytes: 2 * part,
            max_session_pool: 3 * part,
            ..self
        }
    }

    /// Sessions, connected or not.
    pub(crate) fn max_sessions(&self) -> usize {
        self.max_connections.saturating_mul(SESSIONS_PER_CONNECTION)
    }

    /// Of [`Limits::max_session_pool`], what one identity may have.
    pub(crate) fn session_share(&self) -> u64 {
        share(self.max_session_pool, MIN_SESSION_SHARE)
    }

    /// Of [`Limits::max_owed_bytes`], what one identity may have.
    pub(crate) fn owed_share(&self) -> u64 {
        share(self.max_owed_bytes, MIN_OWED_SHARE)
    }

    /// Of [`Limits::max_pending`], what one address keeps while there is no place left.
    pub(crate) fn pending_share(&self) -> usize {
        (self.max_pending / 16).max(8)
    }

    /// Of [`Limits::max_input_bytes`], what one identity may have.
    pub(crate) fn input_share(&self) -> u64 {
        share(self.max_input_bytes, MIN_INPUT_SHARE)
    }

    /// Of [`Limits::max_output_bytes`], what one identity may have.
    pub(crate) fn output_share(&self) -> u64 {
        share(self.max_output_bytes, MIN_OUTPUT_SHARE)
    }

    /// Of [`Limits::max_uncommitted_bytes`], what one identity may have. The others' acks wait for the commit of all that one has.
    pub(crate) fn uncommitted_share(&self) -> u64 {
        (self.max_uncommitted_bytes / 32)
            .max(MIN_UNCOMMITTED_SHARE)
            .min(self.max_uncommitted_bytes) as u64
    }

    /// Of [`Limits::max_alias_bytes`], what one identity may have.
    pub(crate) fn alias_share(&self) -> u64 {
        share(self.max_alias_bytes, MIN_ALIAS_SHARE)
    }

    /// Of [`Limits::max_will_bytes`], what one identity may have.
    pub(crate) fn will_share(&self) -> u64 {
        share(self.max_will_bytes, MIN_WILL_SHARE)
    }
}

/// An eighth of the whole, but at least `least`, within the whole.
fn share(whole: usize, least: usize) -> u64 {
    (whole / 8).max(least).min(whole) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_memory_are_within_it() {
        for (memory, connections) in [(128 << 20, 2000), (64 << 20, 200), (1 << 30, 10_000), (1 << 20, 1_000_000)] {
            let limits = Limits {
                max_connections: connections,
                ..Limits::default()
            }
            .within(memory);
            let traffic = 2 * (limits.max_uncommitted_bytes + limits.max_output_bytes + limits.max_input_bytes)
                + limits.max_parked_bytes
                + limits.max_alias_bytes
                + limits.max_will_bytes
                + limits.max_owed_bytes
                + limits.max_session_pool;
            assert!(traffic <= memory.max(MIN_TRAFFIC_BYTES), "{memory} {connections}: {limits:?}");
            assert!(limits.alias_share() > 0 && limits.output_share() as usize <= limits.max_output_bytes);
        }
    }
}
