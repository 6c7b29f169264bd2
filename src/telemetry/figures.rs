//! All figures at one moment: what `/metrics`, `/status` and the health checks are made from, so that they never disagree.

use std::sync::Arc;
use std::time::Duration;

use forebay_bridge::BridgeStatus;
use forebay_broker::{DeviceStatus, RouteStatus, UnroutedTopic};
use forebay_wal::{Audit, ClockReport, StartReport, Timestamp};

use crate::gateway::TaskFigures;
use crate::logging::Losses;
use crate::monitor::canary::CanaryFigures;
use crate::monitor::self_check::Findings;
use crate::monitor::signals::{Moment, Report};

/// Where figures come from; a trait so that a test can make them up.
pub(crate) trait Source: Send + Sync {
    /// All figures now, from memory. Called every second.
    fn figures(&self) -> Figures;
    /// All devices seen since start, by identity.
    fn devices(&self) -> Vec<DeviceStatus>;
    /// The unrouted topics seen most.
    fn unrouted(&self, limit: usize) -> Vec<UnroutedTopic>;
    /// A device's newest connections, oldest first.
    fn history(&self, identity: &str) -> Vec<Moment>;
    /// The ledger as of the last commit, over all devices and since the log was made.
    fn ledger(&self) -> Audit;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// What it is like.
    pub(crate) report: ClockReport,
    /// The last trusted time on disk.
    pub(crate) last_trusted: Option<Timestamp>,
}

/// Counters by reason.
pub(crate) type ByLabel = Vec<(String, u64)>;

/// All figures at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// The device side.
    pub(crate) front: Front,
    /// The log.
    pub(crate) log: Log,
    /// The cloud side; none = a local broker without a cloud.
    pub(crate) cloud: Option<Cloud>,
    /// What was found when the log was opened.
    pub(crate) start: StartReport,
    /// The machine's clock.
    pub(crate) clock: Clock,
    /// Seconds until the certificate of each TLS listener expires; negative = it has.
    pub(crate) certificates: Vec<(String, i64)>,
    /// The outage that the configuration wants to survive.
    pub(crate) survive_outage: Duration,
    /// What became of the spans; none = nothing is traced.
    pub(crate) traces: Option<Arc<crate::traces::Counts>>,
    /// Bytes per second that the rate and size of `gateway.survive` make.
    pub(crate) survive_bytes: f64,
    /// What is watched.
    pub(crate) watch: Watch,
    /// The canary; none = off.
    pub(crate) canary: Option<CanaryFigures>,
    /// The newest self-check; none = the first has not ended.
    pub(crate) check: Option<Arc<Findings>>,
    /// The machine's clock, seconds since 1970.
    pub(crate) now: i64,
    /// What became of the tasks.
    pub(crate) tasks: TaskFigures,
    /// Lines of our own log that were dropped.
    pub(crate) log_lines: Losses,
    /// The moment that what expires is counted from, seconds since 1970: the present, or where the wall clock is wrong what has passed.
    pub(crate) judged: i64,
}

/// What is watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    /// Who is in trouble.
    pub(crate) report: Arc<Report>,
    /// Publishes by item.
    pub(crate) seen: ByLabel,
    /// Values found, by item and field.
    pub(crate) fields: Vec<(String, String, u64)>,
    pub(crate) unreadable: ByLabel,
    pub(crate) flaps: ByLabel,
    pub(crate) unfollowed: u64,
    pub(crate) forgotten: u64,
    pub(crate) checkpoint_failures: u64,
    pub(crate) silences: u64,
    pub(crate) gaps: u64,
    pub(crate) missing: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    pub(crate) restarts: u64,
    pub(crate) out_of_range: u64,
    pub(crate) stuck: u64,
    pub(crate) drifts: u64,
}

/// The device side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Front {
    pub(crate) accepted: u64,
    pub(crate) acked: u64,
    pub(crate) refused: ByLabel,
    pub(crate) dropped: ByLabel,
    pub(crate) unrouted: u64,
    pub(crate) local: u64,
    pub(crate) qos2_duplicates: u64,
    pub(crate) resent_by_devices: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) connects: u64,
    pub(crate) connections: u64,
    pub(crate) sessions: u64,
    pub(crate) clean_disconnects: u64,
    pub(crate) disconnects: ByLabel,
    pub(crate) handshake_faults: ByLabel,
    pub(crate) handshakes_pending: u64,
    pub(crate) subscriptions_granted: u64,
    pub(crate) subscriptions_refused: u64,
    pub(crate) fanned_out: u64,
    pub(crate) fanout_dropped: u64,
    pub(crate) fanout_alive: bool,
    /// What of it has ended although it must not.
    pub(crate) fault: Option<String>,
    pub(crate) retained: u64,
    pub(crate) retained_bytes: u64,
    pub(crate) retained_sent: u64,
    pub(crate) retained_expired: u64,
    pub(crate) retained_unread: u64,
    pub(crate) unretained: ByLabel,
    pub(crate) parked: u64,
    /// In their order.
    pub(crate) routes: Vec<RouteStatus>,
    /// Names that were dialled in vain.
    pub(crate) wrong_names: ByLabel,
}

/// The log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) records_committed: u64,
    pub(crate) bytes_committed: u64,
    pub(crate) commits: u64,
    pub(crate) commits_failed: u64,
    pub(crate) delivered: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) damaged: u64,
    pub(crate) quarantined: u64,
    pub(crate) compacted: u64,
    pub(crate) device_bytes: u64,
    pub(crate) device_syncs: u64,
    pub(crate) late_settlements: u64,
    pub(crate) rotations: u64,
    /// In order of priority.
    pub(crate) streams: Vec<Stream>,
    pub(crate) disk_bytes: u64,
    pub(crate) max_disk: u64,
    pub(crate) free_bytes: u64,
    pub(crate) keep_free: u64,
    /// Why the log cannot write now; none = it can.
    pub(crate) unavailable: Option<String>,
    /// Whether its writer thread has ended, which only a restart fixes.
    pub(crate) writer_ended: bool,
}

/// One stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) waiting: u64,
    pub(crate) waiting_bytes: u64,
    pub(crate) max_bytes: u64,
    /// As far as it can be proved.
    pub(crate) oldest: Option<Duration>,
    /// At its bound it refuses; otherwise it drops its oldest.
    pub(crate) refuses: bool,
}

/// The cloud side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cloud {
    pub(crate) status: BridgeStatus,
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) delivered: u64,
    pub(crate) expired: u64,
    pub(crate) retried: u64,
    pub(crate) replayed: u64,
    pub(crate) replayed_perhaps: u64,
    pub(crate) duplicates_suspected: u64,
    pub(crate) late_acks: u64,
    pub(crate) connects: u64,
    pub(crate) probes: u64,
    pub(crate) read_errors: u64,
    pub(crate) reconnects: ByLabel,
    pub(crate) refused: ByLabel,
    pub(crate) dead: ByLabel,
}

impl Cloud {
    /// Whether the connection stands.
    #[must_use]
    pub(crate) const fn is_connected(&self) -> bool {
        matches!(self.status.state, forebay_bridge::State::Connected | forebay_bridge::State::Stalled)
    }

    /// Whether the connection stands but the cloud owes acks and gives none.
    #[must_use]
    pub(crate) const fn is_stalled(&self) -> bool {
        matches!(self.status.state, forebay_bridge::State::Stalled)
    }
}

impl Stream {
    /// Whether one more record of the size that waits in it would go over the bound: what refuses that one never lets
    /// the stream reach the bound itself.
    #[must_use]
    pub(crate) const fn is_full(&self) -> bool {
        let usual = match self.waiting_bytes.checked_div(self.waiting) {
            Some(usual) => usual,
            None => 0,
        };
        self.waiting_bytes >= self.max_bytes || self.waiting_bytes + usual > self.max_bytes
    }

    /// Whether over nine tenths of the bound are used.
    #[must_use]
    pub(crate) const fn is_nearly_full(&self) -> bool {
        self.waiting_bytes >= self.max_bytes / 10 * 9
    }
}

impl Log {
    /// Bytes of records that may still come to wait before a bound is reached: of the streams together, of `max_disk`, or
    /// of the file system. Rather too few: what the directory holds of delivered records goes when space is wanted. Zero
    /// as soon as one stream has less than a sixty-fourth of its bound left: that one loses or refuses already.
    #[must_use]
    pub(crate) fn headroom(&self) -> u64 {
        let left = |stream: &Stream| stream.max_bytes.saturating_sub(stream.waiting_bytes);
        if self.unavailable.is_some() || self.streams.iter().any(|stream| left(stream) < stream.max_bytes / 64) {
            return 0;
        }
        let streams = self.streams.iter().map(left).fold(0, u64::saturating_add);
        let grows_to = self.disk_bytes.saturating_add(self.free_bytes.saturating_sub(self.keep_free));
        // Measured: a record takes 1.1 times its bytes on disk in large commits, 1.4 times when it is committed alone.
        let disk = self.max_disk.min(grows_to).saturating_sub(self.disk_bytes) / 3 * 2;
        streams.min(disk)
    }
}
