//! What the stand-in has seen, for tests that ask how a client behaved rather than what arrived.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use tokio::time::Instant;

use crate::{decode::Version, lock};

/// CONNECTs kept; older ones are dropped.
const CONNECTS: usize = 10_000;
/// Refused handshakes kept as text.
const REFUSALS: usize = 1000;

/// One CONNECT that reached the server.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectRecord {
    /// When, since the stand-in started.
    pub after: Duration,
    /// The client id, as sent.
    pub client_id: String,
    /// The protocol version.
    pub version: Version,
    /// The keep-alive asked for, in seconds.
    pub keep_alive: u16,
    /// Whether it was answered with success.
    pub accepted: bool,
}

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Connected clients now.
    pub connected: usize,
    /// TCP connections accepted.
    pub accepted: u64,
    /// Handshakes that failed: no or a foreign certificate, a wrong server name, a peer that left.
    pub handshakes_refused: u64,
    /// CONNECTs answered with success.
    pub connects: u64,
    /// CONNECTs refused, by rule or by script.
    pub connects_refused: u64,
    /// PUBLISH packets read.
    pub received: u64,
    /// Packets read while stalled.
    pub swallowed: u64,
    /// PUBLISH packets denied by policy.
    pub denied: u64,
    /// PUBLISH packets over a rate.
    pub throttled: u64,
    /// PUBLISH packets answered by a scripted code.
    pub answered: u64,
    /// PUBACKs dropped by script.
    pub acks_dropped: u64,
    /// Connections ended because nothing came for one and a half keep-alives.
    pub keep_alive_timeouts: u64,
    /// Deliveries sent to subscribers.
    pub sent: u64,
}

#[derive(Debug)]
pub(crate) struct Counters {
    started: Instant,
    pub(crate) accepted: AtomicU64,
    pub(crate) connects: AtomicU64,
    pub(crate) connects_refused: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) swallowed: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) throttled: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) acks_dropped: AtomicU64,
    pub(crate) keep_alive_timeouts: AtomicU64,
    pub(crate) sent: AtomicU64,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    connects: VecDeque<ConnectRecord>,
    last: HashMap<String, Instant>,
    refused: u64,
    refusals: VecDeque<String>,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            accepted: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            connects_refused: AtomicU64::new(0),
            received: AtomicU64::new(0),
            swallowed: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            acks_dropped: AtomicU64::new(0),
            keep_alive_timeouts: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            log: Mutex::default(),
        }
    }

    /// Notes a CONNECT and its outcome.
    pub(crate) fn connect(&self, client_id: &str, version: Version, keep_alive: u16, accepted: bool) {
        add(if accepted { &self.connects } else { &self.connects_refused });
        let mut log = lock(&self.log);
        if log.connects.len() == CONNECTS {
            log.connects.pop_front();
        }
        let after = self.started.elapsed();
        log.connects.push_back(ConnectRecord {
            after,
            client_id: client_id.to_owned(),
            version,
            keep_alive,
            accepted,
        });
    }

    /// Notes the time of a CONNECT and returns how long ago the last one of this client id was.
    pub(crate) fn since_last_connect(&self, client_id: &str) -> Option<Duration> {
        let mut log = lock(&self.log);
        if log.last.len() >= CONNECTS {
            log.last.clear();
        }
        log.last.insert(client_id.to_owned(), Instant::now()).map(|last| last.elapsed())
    }

    pub(crate) fn refusal(&self, text: String) {
        tracing::info!(reason = %text, "a handshake was refused");
        let mut log = lock(&self.log);
        log.refused += 1;
        if log.refusals.len() == REFUSALS {
            log.refusals.pop_front();
        }
        log.refusals.push_back(text);
    }

    pub(crate) fn refusals(&self) -> Vec<String> {
        lock(&self.log).refusals.iter().cloned().collect()
    }

    pub(crate) fn records(&self) -> Vec<ConnectRecord> {
        lock(&self.log).connects.iter().cloned().collect()
    }

    pub(crate) fn stats(&self, connected: usize) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            connected,
            accepted: get(&self.accepted),
            handshakes_refused: lock(&self.log).refused,
            connects: get(&self.connects),
            connects_refused: get(&self.connects_refused),
            received: get(&self.received),
            swallowed: get(&self.swallowed),
            denied: get(&self.denied),
            throttled: get(&self.throttled),
            answered: get(&self.answered),
            acks_dropped: get(&self.acks_dropped),
            keep_alive_timeouts: get(&self.keep_alive_timeouts),
            sent: get(&self.sent),
        }
    }
}

/// Counts one.
pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
