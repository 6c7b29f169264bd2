//! All figures at one moment: what `/metrics`, `/status` and the health checks are made from, so that they never disagree.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_bridge::BridgeStatus;
use forebay_broker::{BoundStatus, DeviceStatus, RouteStatus, StateReport, UnroutedTopic};
use forebay_wal::{Audit, ClockReport, Quarantined, StartReport, Timestamp};

use super::past::Counted;
use crate::check::descriptors::Shortage;
use crate::logging::Losses;
use crate::monitor::canary::CanaryFigures;
use crate::monitor::files::StaleFile;
use crate::monitor::self_check::Findings;
use crate::monitor::signals::{Counters, Moment, Report};
use crate::monitor::tasks::TaskFigures;

/// Where figures come from; a trait so that a test can make them up.
pub(crate) trait Source: Send + Sync {
    /// All figures now, from memory. Called every second.
    fn figures(&self) -> Figures;
    /// The counters.
    fn stats(&self) -> Stats<'_>;
    /// Those of them that problems tell of.
    fn counted(&self) -> Counted;
    /// All devices seen since start, by identity.
    fn devices(&self) -> Vec<DeviceStatus>;
    /// The unrouted topics seen most.
    fn unrouted(&self, limit: usize) -> Vec<UnroutedTopic>;
    /// A device's newest connections, oldest first.
    fn history(&self, identity: &str) -> Vec<Moment>;
    /// The ledger at this moment, over all devices and since the log was made.
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

/// The counters since start, where the parts count them. A new one needs a line there and one in the catalogue.
#[derive(Clone, Copy)]
pub(crate) struct Stats<'a> {
    /// The device side's.
    pub(crate) front: &'a forebay_broker::Stats,
    /// The log's.
    pub(crate) log: &'a forebay_wal::Stats,
    /// The bridge's, if there is a cloud.
    pub(crate) cloud: Option<&'a forebay_bridge::Stats>,
    /// Those of `watch`.
    pub(crate) watch: &'a Counters,
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
    /// The cloud side; `None` if there is none.
    pub(crate) cloud: Option<Cloud>,
    /// What was found when the log was opened.
    pub(crate) start: StartReport,
    /// The machine's clock.
    pub(crate) clock: Clock,
    /// Seconds until the certificate of each TLS listener expires; negative = it has.
    pub(crate) certificates: Vec<(String, i64)>,
    /// Files of listeners that are others on disk now than those in use.
    pub(crate) stale_files: Vec<StaleFile>,
    /// The program on disk is another than the one that runs.
    pub(crate) restart_is_pending: bool,
    /// The version of that one, if it says one.
    pub(crate) installed_version: Option<String>,
    /// Why the files of `cloud.tls` on disk are not used and earlier ones are; `None` if they are used.
    pub(crate) cloud_files: Option<String>,
    /// The outage that the configuration wants to survive.
    pub(crate) survive_outage: Duration,
    /// What became of the spans; `None` if nothing is traced.
    pub(crate) traces: Option<Arc<crate::traces::Counts>>,
    /// Bytes per second that the rate and size of `gateway.survive` make.
    pub(crate) survive_bytes: f64,
    /// The devices in trouble.
    pub(crate) signals: Arc<Report>,
    /// The canary; `None` if it is off.
    pub(crate) canary: Option<CanaryFigures>,
    /// The newest self-check; `None` if the first has not ended.
    pub(crate) check: Option<Arc<Findings>>,
    /// The machine's clock, seconds since 1970.
    pub(crate) now: i64,
    /// What became of the tasks.
    pub(crate) tasks: TaskFigures,
    /// Too few files may be open for the connections.
    pub(crate) shortage: Option<Shortage>,
    /// Lines of our own log that were dropped.
    pub(crate) log_lines: Losses,
    /// Admin requests refused because their `Host` is a foreign name.
    pub(crate) foreign_hosts: u64,
    /// The moment that what expires is counted from, seconds since 1970: the present, or where the wall clock is wrong what has passed.
    pub(crate) judged: i64,
}

/// The device side, apart from its counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Front {
    pub(crate) sessions: u64,
    pub(crate) fanout_alive: bool,
    /// What of it has ended although it must not.
    pub(crate) fault: Option<String>,
    /// In their order.
    pub(crate) routes: Vec<RouteStatus>,
    /// What the start found of sessions and retained messages.
    pub(crate) state: StateReport,
    /// The bounds on what peers leave behind.
    pub(crate) bounds: Vec<BoundStatus>,
    /// Names that devices dialled and our certificates lack.
    pub(crate) wrong_names: ByLabel,
    /// Bytes of publishes that wait for their commit.
    pub(crate) uncommitted: u64,
    /// Listeners that cannot serve now, and why.
    pub(crate) closed_listeners: Vec<(SocketAddr, String)>,
}

/// The log, apart from its counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    /// In order of priority.
    pub(crate) streams: Vec<Stream>,
    pub(crate) disk_bytes: u64,
    pub(crate) max_disk: u64,
    pub(crate) free_bytes: u64,
    pub(crate) keep_free: u64,
    /// Damaged segments that are kept for salvage.
    pub(crate) quarantined: Quarantined,
    /// Why the log cannot write now; `None` if it can.
    pub(crate) unavailable: Option<String>,
    /// How long commits wait on purpose.
    pub(crate) commit_wait: Duration,
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

/// The cloud side, apart from its counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cloud {
    pub(crate) status: BridgeStatus,
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
        // Measured: a record takes 1.1 times its bytes on disk in large commits, 1.4 times when it is committed alone.
        let disk = self.max_disk.min(self.grows_to()).saturating_sub(self.disk_bytes) / 3 * 2;
        self.streams.iter().map(left).fold(0, u64::saturating_add).min(disk)
    }

    /// Whether it is the file system that leaves the least room.
    #[must_use]
    pub(crate) fn is_short_of_space(&self) -> bool {
        let disk = self.grows_to().saturating_sub(self.disk_bytes) / 3 * 2;
        self.headroom() == disk
    }

    /// What the directory may occupy, by what is free.
    const fn grows_to(&self) -> u64 {
        self.disk_bytes.saturating_add(self.free_bytes.saturating_sub(self.keep_free))
    }
}

/// A counter now.
pub(crate) fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_named_only_where_it_leaves_the_least_room() {
        let stream = Stream {
            max_bytes: 1 << 20,
            ..Stream::default()
        };
        let log = |free_bytes, max_disk, streams: &[Stream]| Log {
            streams: streams.to_vec(),
            disk_bytes: 3000,
            keep_free: 500,
            free_bytes,
            max_disk,
            ..Log::default()
        };
        let one = [stream];
        assert!(log(600, 100_000, &one).is_short_of_space());
        assert!(log(0, 100_000, &one).is_short_of_space());
        assert!(!log(90_000, 4000, &one).is_short_of_space(), "max_disk is nearer");
        assert!(!log(10 << 20, 100 << 20, &one).is_short_of_space(), "max_bytes is nearer");
    }
}
