//! Bounds for connections and sessions.

use std::time::Duration;

use super::Config;
use super::schema::{Reading, Section};
use super::units::show_bytes;

/// Retained messages have at most this part of `gateway.max_disk`.
const RETAINED_PART: u64 = 8;

/// `limits`: bounds for each connection and for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Connections at once. Default 2000.
    pub(crate) max_connections: u32,
    /// Connections before CONNECT. Default as `max_connections`.
    pub(crate) max_pending: u32,
    /// From accept to CONNECT. Default 30 s.
    pub(crate) connect_timeout: Duration,
    /// The largest MQTT packet in bytes. Default 128 KiB, at most 2 MiB.
    pub(crate) max_packet: u32,
    /// Unacked publishes per connection. Default 100.
    pub(crate) max_in_flight: u16,
    /// The longest keep-alive. Default 20 min.
    pub(crate) max_keep_alive: Duration,
    /// Levels of a topic or filter. Default 32.
    pub(crate) max_levels: u32,
    /// Bytes of a topic or filter. Default 1 KiB.
    pub(crate) max_topic: u32,
    /// Subscriptions of a session. Default 1000.
    pub(crate) max_subscriptions: u32,
    /// Retained messages. Default 100000.
    pub(crate) max_topics: u32,
}

/// `sessions`: bounds for persistent sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sessions {
    /// Bytes waiting for all absent sessions together. Default 256 MiB.
    pub(crate) max_bytes: u64,
    /// Bytes waiting for one session. Default 8 MiB.
    pub(crate) per_session: u64,
    /// How long a session outlives its connection. Default 7 days.
    pub(crate) max_expiry: Duration,
    /// How long a subscriber may take to acknowledge a message. Default 60 s.
    pub(crate) ack_timeout: Duration,
}

impl Config {
    /// The front's bounds.
    pub(crate) fn front_limits(&self) -> forebay_broker::Limits {
        let limits = forebay_broker::Limits {
            max_connections: self.limits.max_connections as usize,
            max_pending: self.limits.max_pending as usize,
            connect_timeout: self.limits.connect_timeout,
            max_packet: self.limits.max_packet as usize,
            max_in_flight: self.limits.max_in_flight,
            max_keep_alive: self.limits.max_keep_alive,
            max_levels: self.limits.max_levels as usize,
            max_topic: self.limits.max_topic as usize,
            max_subscriptions: self.limits.max_subscriptions as usize,
            max_topics: self.limits.max_topics as usize,
            // They are in state.redb, which takes up to twice as much and counts in max_disk.
            max_retained_bytes: self.sessions.max_bytes.min(self.gateway.max_disk / RETAINED_PART),
            max_session_bytes: self.sessions.per_session,
            max_session_expiry: self.sessions.max_expiry,
            ack_timeout: self.sessions.ack_timeout,
            ..forebay_broker::Limits::default()
        };
        limits.within(usize::try_from(self.gateway.max_memory).unwrap_or(usize::MAX))
    }
}

pub(super) fn read_limits(root: &Section<'_>) -> Limits {
    let section = root.section("limits");
    let max_connections = small(section.integer("max_connections"));
    Limits {
        max_connections,
        max_pending: section.integer("max_pending").map_or(max_connections, |value| small(Some(value))),
        connect_timeout: section.duration("connect_timeout").unwrap_or_default(),
        max_packet: small(section.bytes("max_packet")),
        max_in_flight: section
            .integer("max_in_flight")
            .and_then(|value| u16::try_from(value).ok())
            .unwrap_or_default(),
        max_keep_alive: section.duration("max_keep_alive").unwrap_or_default(),
        max_levels: small(section.integer("max_levels")),
        max_topic: small(section.bytes("max_topic")),
        max_subscriptions: small(section.integer("max_subscriptions")),
        max_topics: small(section.integer("max_topics")),
    }
}

pub(super) fn read_sessions(root: &Section<'_>, reading: &mut Reading<'_>) -> Sessions {
    let section = root.section("sessions");
    let sessions = Sessions {
        max_bytes: section.bytes("max_bytes").unwrap_or_default(),
        per_session: section.bytes("per_session").unwrap_or_default(),
        max_expiry: section.duration("max_expiry").unwrap_or_default(),
        ack_timeout: section.duration("ack_timeout").unwrap_or_default(),
    };
    if sessions.per_session > sessions.max_bytes {
        let reason = format!(
            "one session must not have more than all sessions together (sessions.max_bytes, {})",
            show_bytes(sessions.max_bytes)
        );
        reading.faults.push(section.fault("per_session", reason));
    }
    sessions
}

/// The table of keys bounds these values well within 32 bits.
fn small(value: Option<u64>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or_default()
}
