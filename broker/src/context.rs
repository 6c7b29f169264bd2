//! What all connections share.

use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use forebay_topic::{PeerLog, Repeated};
use forebay_wal::{Clock, Log};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::Budget;
use crate::delivery::Groups;
use crate::fanout::Fanout;
use crate::limits::Limits;
use crate::local_state::StateReport;
use crate::observe::{BrokerTopics, ClosedListeners, Devices, Observer, Stats, WrongNames};
use crate::policy::{AccessRules, Admission, RouteStats, Routes, Unrouted};
use crate::retained::Retained;
use crate::session::Registry;
use crate::wills::Wills;

/// How often counts of repeated log lines are looked for.
const TELL: Duration = Duration::from_secs(5);

/// Everything a connection needs besides its socket.
pub(crate) struct Context {
    pub(crate) gateway: String,
    pub(crate) log: Log,
    pub(crate) fanout: Fanout,
    /// The shared subscriptions.
    pub(crate) groups: Groups,
    pub(crate) registry: Registry,
    pub(crate) wills: Wills,
    /// What is told at `$SYS/broker/...`.
    pub(crate) broker_topics: BrokerTopics,
    pub(crate) retained: Arc<Retained>,
    pub(crate) access: AccessRules,
    /// The identities that listeners set as fixed words: no certificate and no client id may claim one.
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
    /// What the start found of sessions and retained messages.
    pub(crate) state_report: StateReport,
    /// What peers may leave behind.
    pub(crate) budget: Arc<Budget>,
    /// Bytes parked by all connections: publishes of 3.1.1 that wait for room in the log.
    pub(crate) parked_bytes: AtomicUsize,
    /// What of the front has ended although it must not.
    pub(crate) fault: OnceLock<String>,
    /// Listeners that cannot serve yet.
    pub(crate) closed_listeners: ClosedListeners,
    /// Which lines that a peer can cause are written to the log.
    pub(crate) peer_log: PeerLog,
    pub(crate) shutdown: CancellationToken,
    /// What must end before the front does: listeners, connections, delayed wills.
    pub(crate) tasks: TaskTracker,
}

impl Context {
    /// Whether a line about this identity and for this reason is written in full; otherwise it is counted.
    pub(crate) fn is_first(&self, identity: &str, reason: &'static str) -> bool {
        self.peer_log.is_first(identity, reason, Instant::now())
    }

    /// As [`Context::is_first`], for a peer that has no identity yet.
    pub(crate) fn is_first_from(&self, address: IpAddr, reason: &'static str) -> bool {
        self.peer_log.is_first_from(address, reason, Instant::now())
    }

    /// As [`Context::is_first_from`], for a peer that claims these names in its handshake.
    pub(crate) fn is_first_claiming(&self, address: IpAddr, names: &str, reason: &'static str) -> bool {
        self.peer_log.is_first_claiming(address, names, reason, Instant::now())
    }

    /// Writes the counts of the lines that were not written in full, until shutdown.
    pub(crate) async fn tell_repeated_lines(&self) {
        while tokio::time::timeout(TELL, self.shutdown.cancelled()).await.is_err() {
            for Repeated { who, reason, more } in self.peer_log.due(Instant::now()) {
                tracing::warn!(who, reason, "{more} more in the last minute");
            }
        }
    }
}
