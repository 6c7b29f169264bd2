//! The figures of the running parts.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use forebay_bridge::Handle;
use forebay_broker::tls::CertificateClock;
use forebay_broker::{DeviceStatus, UnroutedTopic, View};
use forebay_wal::{Audit, StartReport, SystemClock};

use super::figures::{self, Cloud, Figures, Front, Log, Source, Stats, Stream};
use super::past::Counted;
use crate::check::descriptors::Shortage;
use crate::check::record_bytes;
use crate::config::{Config, WhenFull};
use crate::inspect::warned_at;
use crate::monitor::canary::Canary;
use crate::monitor::certificate_ends::CertificateEnds;
use crate::monitor::files::ListenerFiles;
use crate::monitor::self_check::SelfCheck;
use crate::monitor::signals::{Moment, Watch};
use crate::monitor::tasks::Tasks;

/// The running parts.
pub(crate) struct Sources {
    /// The device side.
    pub(crate) view: View,
    /// The log.
    pub(crate) log: forebay_wal::Log,
    /// The bridge, if there is a cloud.
    pub(crate) bridge: Option<Handle>,
    /// What was found when the log was opened.
    pub(crate) report: StartReport,
    /// Where time comes from.
    pub(crate) clock: Arc<SystemClock>,
    /// By when certificates are judged.
    pub(crate) judged: CertificateClock,
    /// When each TLS listener's certificate ends.
    pub(crate) certificates: CertificateEnds,
    /// The files that the listeners use.
    pub(crate) files: ListenerFiles,
    /// Why those of the cloud on disk are not used; `None` if they are.
    pub(crate) cloud_files: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    /// What is watched.
    pub(crate) watch: Watch,
    /// The canary; `None` if it is off.
    pub(crate) canary: Option<Canary>,
    /// The self-check.
    pub(crate) check: SelfCheck,
    /// All tasks.
    pub(crate) tasks: Tasks,
    /// Too few files may be open for the connections.
    pub(crate) shortage: Option<Shortage>,
}

/// The running parts, and what the configuration says of them.
pub(super) struct Running {
    pub(super) sources: Sources,
    max_disk: u64,
    keep_free: u64,
    commit_wait: Duration,
    survive_outage: Duration,
    survive_bytes: f64,
    refusing: HashSet<String>,
}

impl Running {
    pub(super) fn new(sources: Sources, config: &Config) -> Self {
        let refusing = config.streams.iter().filter(|stream| stream.when_full == WhenFull::Refuse);
        Self {
            sources,
            max_disk: config.gateway.max_disk,
            keep_free: config.gateway.keep_free,
            commit_wait: config.gateway.commit_wait,
            survive_outage: config.gateway.survive.outage,
            survive_bytes: config.gateway.survive.rate * record_bytes(config) as f64,
            refusing: refusing.map(|stream| stream.name.clone()).collect(),
        }
    }

    fn log(&self) -> Log {
        let status = self.sources.log.status();
        let stream = |stream: forebay_wal::StreamStatus| Stream {
            refuses: self.refusing.contains(&stream.name),
            name: stream.name,
            waiting: stream.waiting,
            waiting_bytes: stream.waiting_bytes,
            max_bytes: stream.max_bytes,
            oldest: stream.oldest,
        };
        Log {
            streams: status.streams.into_iter().map(stream).collect(),
            disk_bytes: status.disk_bytes,
            max_disk: self.max_disk,
            free_bytes: status.free_bytes,
            keep_free: self.keep_free,
            quarantined: status.quarantined,
            unavailable: status.unavailable,
            commit_wait: self.commit_wait,
            writer_ended: !self.sources.log.is_alive(),
        }
    }
}

impl Source for Running {
    fn figures(&self) -> Figures {
        let report = self.sources.clock.report();
        let judged = warned_at(&report, self.sources.judged.judgement().at());
        let judged = judged.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed();
        let left = |(listener, not_after): &(String, i64)| (listener.clone(), not_after.saturating_sub(judged));
        Figures {
            front: Front {
                sessions: self.sources.view.sessions() as u64,
                fanout_alive: self.sources.view.fanout_is_alive(),
                fault: self.sources.view.fault().map(str::to_owned),
                routes: self.sources.view.routes(),
                bounds: self.sources.view.budget().status(),
                state: self.sources.view.state_report(),
                wrong_names: self.sources.view.wrong_names(),
                uncommitted: self.sources.view.uncommitted_bytes() as u64,
                closed_listeners: self.sources.view.closed_listeners(),
            },
            log: self.log(),
            cloud: self.sources.bridge.as_ref().map(|handle| Cloud { status: handle.status() }),
            start: self.sources.report.clone(),
            clock: figures::Clock {
                report,
                last_trusted: self.sources.log.status().last_trusted,
            },
            certificates: self.sources.certificates.list().iter().map(left).collect(),
            stale_files: self.sources.files.stale(),
            restart_is_pending: self.sources.files.restart_is_pending(),
            installed_version: self.sources.files.installed_version(),
            cloud_files: (self.sources.cloud_files)(),
            survive_outage: self.survive_outage,
            // Telemetry knows.
            traces: None,
            survive_bytes: self.survive_bytes,
            signals: self.sources.watch.report(),
            canary: self.sources.canary.as_ref().map(Canary::figures),
            check: self.sources.check.findings(),
            now: i64::try_from(report.now.wall_ms / 1000).unwrap_or(i64::MAX),
            judged,
            tasks: self.sources.tasks.figures(Instant::now()),
            log_lines: crate::logging::losses(),
            shortage: self.sources.shortage,
            // Telemetry knows.
            foreign_hosts: 0,
        }
    }

    fn stats(&self) -> Stats<'_> {
        Stats {
            front: self.sources.view.stats(),
            log: self.sources.log.stats(),
            cloud: self.sources.bridge.as_ref().map(Handle::stats),
            watch: self.sources.watch.counters(),
        }
    }

    fn counted(&self) -> Counted {
        Counted::of(self.stats(), self.sources.view.wrong_names())
    }

    fn devices(&self) -> Vec<DeviceStatus> {
        self.sources.view.devices().list()
    }

    fn unrouted(&self, limit: usize) -> Vec<UnroutedTopic> {
        self.sources.view.unrouted(limit)
    }

    fn history(&self, identity: &str) -> Vec<Moment> {
        self.sources.watch.history(identity)
    }

    fn ledger(&self) -> Audit {
        self.sources.log.totals()
    }
}
