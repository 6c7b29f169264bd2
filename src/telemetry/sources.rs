//! The figures of the running parts.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use forebay_bridge::Handle;
use forebay_broker::tls::CertificateClock;
use forebay_broker::{DeviceStatus, Disconnection, Refusal, Unretained, UnroutedTopic, View};
use forebay_wal::{Audit, StartReport, SystemClock};

use super::figures::{self, ByLabel, Cloud, Figures, Front, Log, Source, Stream};
use crate::check::record_bytes;
use crate::config::{Config, WhenFull};
use crate::gateway::Tasks;
use crate::inspect::warned_at;
use crate::monitor::canary::Canary;
use crate::monitor::self_check::SelfCheck;
use crate::monitor::signals::{Counters, Moment, Watch};

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
    /// When each TLS listener's certificate ends, in seconds since 1970.
    pub(crate) certificates: Vec<(String, i64)>,
    /// What is watched.
    pub(crate) watch: Watch,
    /// The canary; none = off.
    pub(crate) canary: Option<Canary>,
    /// The self-check.
    pub(crate) check: SelfCheck,
    /// All tasks.
    pub(crate) tasks: Tasks,
}

/// The running parts, and what the configuration says of them.
pub(super) struct Running {
    pub(super) sources: Sources,
    max_disk: u64,
    keep_free: u64,
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
            survive_outage: config.gateway.survive.outage,
            survive_bytes: config.gateway.survive.rate * record_bytes(config) as f64,
            refusing: refusing.map(|stream| stream.name.clone()).collect(),
        }
    }

    fn log(&self) -> Log {
        let stats = self.sources.log.stats();
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
            records_committed: value(&stats.records_committed),
            bytes_committed: value(&stats.bytes_committed),
            commits: value(&stats.commits),
            commits_failed: value(&stats.commits_failed),
            delivered: value(&stats.delivered),
            expired: value(&stats.expired),
            evicted: value(&stats.evicted),
            dead_lettered: value(&stats.dead_lettered),
            damaged: value(&stats.damaged),
            quarantined: value(&stats.quarantined),
            compacted: value(&stats.compacted),
            device_bytes: value(&stats.device_bytes),
            device_syncs: value(&stats.device_syncs),
            late_settlements: value(&stats.late_settlements),
            rotations: value(&stats.rotations),
            streams: status.streams.into_iter().map(stream).collect(),
            disk_bytes: status.disk_bytes,
            max_disk: self.max_disk,
            free_bytes: status.free_bytes,
            keep_free: self.keep_free,
            unavailable: status.unavailable,
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
            front: front(&self.sources.view),
            log: self.log(),
            cloud: self.sources.bridge.as_ref().map(cloud),
            start: self.sources.report.clone(),
            clock: figures::Clock {
                report,
                last_trusted: self.sources.log.status().last_trusted,
            },
            certificates: self.sources.certificates.iter().map(left).collect(),
            survive_outage: self.survive_outage,
            // Telemetry knows.
            traces: None,
            survive_bytes: self.survive_bytes,
            watch: watch(&self.sources.watch),
            canary: self.sources.canary.as_ref().map(Canary::figures),
            check: self.sources.check.findings(),
            now: i64::try_from(report.now.wall_ms / 1000).unwrap_or(i64::MAX),
            judged,
            tasks: self.sources.tasks.figures(Instant::now()),
            log_lines: crate::logging::losses(),
        }
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
        let mut sum = Audit::default();
        for line in self.sources.log.ledger() {
            sum.accepted += line.counts.accepted;
            sum.requeued += line.counts.requeued;
            sum.delivered += line.counts.delivered;
            sum.waiting += line.counts.waiting;
            sum.expired += line.counts.expired;
            sum.evicted += line.counts.evicted;
            sum.dead_lettered += line.counts.dead_lettered;
            sum.damaged += line.counts.damaged;
        }
        sum
    }
}

fn front(view: &View) -> Front {
    let stats = view.stats();
    let refusals = |count: &dyn Fn(Refusal) -> u64| {
        Refusal::ALL
            .iter()
            .map(|reason| (reason.label().to_owned(), count(*reason)))
            .collect()
    };
    let disconnects = Disconnection::ALL
        .iter()
        .map(|reason| (reason.label().to_owned(), stats.disconnected(*reason)));
    let unretained = Unretained::ALL
        .iter()
        .map(|reason| (reason.label().to_owned(), stats.unretained(*reason)));
    Front {
        accepted: value(&stats.accepted),
        acked: value(&stats.acked),
        refused: refusals(&|reason| stats.refused(reason)),
        dropped: refusals(&|reason| stats.dropped(reason)),
        unrouted: value(&stats.unrouted),
        local: value(&stats.local),
        qos2_duplicates: value(&stats.qos2_duplicates),
        resent_by_devices: value(&stats.resent_by_devices),
        payload_bytes: value(&stats.payload_bytes),
        connects: value(&stats.connects),
        connections: value(&stats.connected),
        sessions: view.sessions() as u64,
        clean_disconnects: value(&stats.clean_disconnects),
        disconnects: disconnects.collect(),
        handshake_faults: labelled(stats.handshake_faults()),
        handshakes_pending: value(&stats.handshakes_pending),
        subscriptions_granted: value(&stats.subscriptions_granted),
        subscriptions_refused: value(&stats.subscriptions_refused),
        fanned_out: value(&stats.fanned_out),
        fanout_dropped: value(&stats.fanout_dropped),
        fanout_alive: view.fanout_is_alive(),
        fault: view.fault().map(str::to_owned),
        retained: value(&stats.retained),
        retained_bytes: value(&stats.retained_bytes),
        retained_sent: value(&stats.retained_sent),
        retained_expired: value(&stats.retained_expired),
        retained_unread: value(&stats.retained_unread),
        unretained: unretained.collect(),
        parked: value(&stats.parked),
        routes: view.routes(),
        wrong_names: view.wrong_names(),
    }
}

fn watch(watch: &Watch) -> figures::Watch {
    let counters = watch.counters();
    figures::Watch {
        report: watch.report(),
        seen: counters.seen.iter().map(|(item, count)| (item.clone(), value(count))).collect(),
        fields: fields(counters),
        unreadable: labelled(counters.unreadable()),
        flaps: labelled(counters.flaps()),
        unfollowed: value(&counters.unfollowed),
        forgotten: value(&counters.forgotten),
        checkpoint_failures: value(&counters.checkpoint_failures),
        silences: value(&counters.silences),
        gaps: value(&counters.gaps),
        missing: value(&counters.missing),
        duplicates: value(&counters.duplicates),
        reordered: value(&counters.reordered),
        restarts: value(&counters.restarts),
        out_of_range: value(&counters.out_of_range),
        stuck: value(&counters.stuck),
        drifts: value(&counters.drifts),
    }
}

fn fields(counters: &Counters) -> Vec<(String, String, u64)> {
    let items = counters.seen.iter().zip(&counters.fields);
    let of_item = items.flat_map(|((item, _), fields)| fields.iter().map(move |field| (item, field)));
    of_item
        .map(|(item, (field, count))| (item.clone(), field.clone(), value(count)))
        .collect()
}

fn cloud(handle: &Handle) -> Cloud {
    let stats = handle.stats();
    Cloud {
        status: handle.status(),
        sent: value(&stats.sent),
        sent_bytes: value(&stats.sent_bytes),
        delivered: value(&stats.delivered),
        expired: value(&stats.expired),
        retried: value(&stats.retried),
        replayed: value(&stats.replayed),
        replayed_perhaps: value(&stats.replayed_perhaps),
        duplicates_suspected: value(&stats.duplicates_suspected),
        late_acks: value(&stats.late_acks),
        connects: value(&stats.connects),
        probes: value(&stats.probes),
        read_errors: value(&stats.read_errors),
        reconnects: stats
            .reconnects()
            .map(|(reason, count)| (reason.label().to_owned(), count))
            .collect(),
        refused: stats.refused().map(|(code, count)| (format!("0x{code:02x}"), count)).collect(),
        dead: labelled(stats.dead()),
    }
}

fn labelled(counts: impl IntoIterator<Item = (&'static str, u64)>) -> ByLabel {
    counts.into_iter().map(|(label, count)| (label.to_owned(), count)).collect()
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
