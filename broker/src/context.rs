//! What all connections share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use forebay_wal::{Clock, Log};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fanout::Fanout;
use crate::observe::{Devices, Observer, Stats, WrongNames};
use crate::policy::{AccessRules, Admission, RouteStats, Routes, Unrouted};
use crate::retained::Retained;
use crate::session::Registry;

/// Bounds that the configuration names.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; more are closed at accept.
    pub max_connections: usize,
    /// Bytes of one packet; a larger one ends its connection (0x95 on MQTT 5).
    pub max_packet: usize,
    /// Publishes of one connection that are not answered yet; the Receive Maximum of MQTT 5, back-pressure on 3.1.1.
    pub max_in_flight: u16,
    /// Longest keep-alive granted on MQTT 5 (Server Keep Alive).
    pub max_keep_alive: Duration,
    /// Retained messages.
    pub max_topics: usize,
    /// Bytes of retained messages.
    pub max_retained_bytes: u64,
    /// Longest life of a session without a connection.
    pub max_session_expiry: Duration,
    /// TLS handshakes and CONNECTs going on at once; when more come, peers silent for a second go.
    pub max_pending_handshakes: usize,
    /// How long a peer may take from accept to CONNECT.
    pub connect_deadline: Duration,
    /// Bytes of publishes taken in and not committed, of all connections together; beyond it sockets are not read.
    pub max_uncommitted_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 2000,
            max_packet: 128 << 10,
            max_in_flight: 100,
            max_keep_alive: Duration::from_secs(20 * 60),
            max_topics: 100_000,
            max_retained_bytes: 256 << 20,
            max_session_expiry: Duration::from_secs(7 * 24 * 3600),
            max_pending_handshakes: 64,
            connect_deadline: Duration::from_secs(10),
            max_uncommitted_bytes: 64 << 20,
        }
    }
}

/// Everything a connection needs besides its socket.
pub(crate) struct Context {
    pub(crate) gateway: String,
    pub(crate) log: Log,
    pub(crate) fanout: Fanout,
    pub(crate) registry: Registry,
    pub(crate) retained: Arc<Retained>,
    pub(crate) access: AccessRules,
    /// The identities that listeners give as fixed words: no certificate and no client id may claim one.
    pub(crate) fixed_words: Vec<String>,
    pub(crate) routes: Routes,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) limits: Limits,
    pub(crate) stats: Arc<Stats>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) unrouted: Arc<Unrouted>,
    pub(crate) route_stats: RouteStats,
    pub(crate) wrong_names: WrongNames,
    pub(crate) devices: Arc<Devices>,
    /// What is left of `limits.max_uncommitted_bytes`.
    pub(crate) budget: Semaphore,
    /// Bytes parked by all connections: 3.1.1 publishes that wait for room in the log.
    pub(crate) parked_bytes: AtomicUsize,
    pub(crate) shutdown: CancellationToken,
    /// What must end before the front does: listeners, connections, wills that wait.
    pub(crate) tasks: TaskTracker,
}
