//! `/status`: the gateway at a glance, as JSON. The fields are described in `docs/status.md`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_broker::{DeviceStatus, RouteStatus};
use forebay_wal::{Audit, Timestamp};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::problems::problems;
use crate::check::Severity;
use crate::inspect::{self, ClockLine};
use crate::monitor::canary::CanaryFigures;
use crate::monitor::self_check::Findings;
use crate::monitor::signals::{self, Report, SIGNALS};
use crate::telemetry::{self, Figures, Identity, Look, Source, not_ready};

/// Devices listed; those with trouble come first.
const MAX_DEVICES: usize = 200;
/// Unrouted topics listed.
const MAX_UNROUTED: usize = 20;
/// Suspended pairs listed.
const MAX_SUSPENDED: usize = 200;

/// Troubles of devices listed.
const MAX_TROUBLES: usize = 200;
/// No autonomy is said to be longer: ten years.
const LONGEST: f64 = 10.0 * 365.0 * 86_400.0;

/// The gateway at a glance.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    gateway: String,
    version: &'static str,
    restart_pending: bool,
    installed_version: Option<String>,
    config: String,
    uptime_seconds: u64,
    ready: bool,
    not_ready: Vec<String>,
    problems: Vec<String>,
    flowing: Flowing,
    deadlines: Vec<Deadline>,
    streams: Vec<Stream>,
    disk: Disk,
    autonomy_seconds: Option<u64>,
    survive_seconds: u64,
    survive_autonomy_seconds: u64,
    cloud: Option<Cloud>,
    devices: Devices,
    sessions: Sessions,
    unrouted: Unrouted,
    ledger: Ledger,
    start: Start,
    clock_trusted: bool,
    clock: ClockLine,
    certificates: Vec<Certificate>,
    routes: Vec<Route>,
    wrong_names: Vec<WrongName>,
    watch: Watch,
    canary: Option<Canary>,
    check: Option<Check>,
    tasks: Tasks,
}

/// What became of the gateway's own tasks.
#[derive(Debug, Serialize)]
struct Tasks {
    dead: Vec<String>,
    restarts: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Flowing {
    state: &'static str,
    accepted_per_second: f64,
    delivered_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Stream {
    name: String,
    waiting: u64,
    waiting_bytes: u64,
    max_bytes: u64,
    when_full: &'static str,
    oldest_seconds: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Disk {
    bytes: u64,
    max_bytes: u64,
    free_bytes: u64,
    keep_free_bytes: u64,
    quarantined_segments: u64,
    quarantined_bytes: u64,
    quarantined_until: Option<String>,
}

#[derive(Debug, Serialize)]
struct Cloud {
    state: &'static str,
    since: Option<String>,
    next_try: Option<String>,
    last_error: Option<LastError>,
    in_flight: usize,
    waiting_devices: usize,
    suspended: Vec<Suspended>,
    suspended_routes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Sessions {
    kept: u64,
    connected: u64,
}

#[derive(Debug, Serialize)]
struct LastError {
    text: String,
    at: String,
    times: u64,
}

#[derive(Debug, Serialize)]
struct Suspended {
    stream: String,
    route: String,
    identity: String,
}

#[derive(Debug, Serialize)]
struct Devices {
    known: usize,
    connected: usize,
    list: Vec<Device>,
}

#[derive(Debug, Serialize)]
struct Device {
    identity: String,
    connections: usize,
    connects: u64,
    accepted: u64,
    refused: u64,
    last_seen: Option<String>,
    last_seen_seconds: Option<u64>,
    trouble: Option<String>,
    troubles: Vec<String>,
    signals: Vec<&'static str>,
    history: Vec<Moment>,
}

#[derive(Debug, Serialize)]
struct Moment {
    at: String,
    what: String,
    address: String,
}

#[derive(Debug, Serialize)]
struct Deadline {
    what: &'static str,
    in_seconds: i64,
    at: String,
}

#[derive(Debug, Serialize)]
struct Route {
    from: String,
    cloud: bool,
    matched: u64,
    last_match_seconds: Option<u64>,
}

#[derive(Debug, Serialize)]
struct WrongName {
    name: String,
    handshakes: u64,
}

#[derive(Debug, Serialize)]
struct Watch {
    series: usize,
    in_trouble: usize,
    troubles: Vec<Trouble>,
}

#[derive(Debug, Serialize)]
struct Trouble {
    signal: &'static str,
    device: String,
    topic: String,
    detail: String,
    value: f64,
    lasts_seconds: u64,
    text: String,
}

#[derive(Debug, Serialize)]
struct Canary {
    interval_seconds: u64,
    sent: u64,
    acked: u64,
    waiting_seconds: Option<u64>,
    round_trip_ms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Check {
    at: String,
    config_file: &'static str,
    config_fault: String,
    findings: Vec<Finding>,
    expiries: Vec<Expiry>,
}

#[derive(Debug, Serialize)]
struct Finding {
    severity: &'static str,
    area: &'static str,
    text: String,
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct Expiry {
    what: &'static str,
    file: String,
    expires_in_seconds: i64,
}

#[derive(Debug, Serialize)]
struct Unrouted {
    total: u64,
    topics: Vec<Topic>,
}

#[derive(Debug, Serialize)]
struct Topic {
    topic: String,
    count: u64,
    nearest: Option<String>,
    letters_off: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Ledger {
    accepted: u64,
    requeued: u64,
    delivered: u64,
    waiting: u64,
    expired: u64,
    evicted: u64,
    dead: u64,
    damaged: u64,
}

#[derive(Debug, Serialize)]
struct Start {
    new: bool,
    clean: bool,
    recovered: u64,
    damaged: u64,
    quarantined: u64,
    took_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Certificate {
    listener: String,
    expires_in_seconds: i64,
}

impl Status {
    pub(super) fn new(identity: &Identity, source: &dyn Source, look: Look, now: Instant) -> Self {
        let devices = source.devices();
        let unrouted = source.unrouted(MAX_UNROUTED);
        let stats = source.stats();
        let problems = problems(&look, stats.watch, &unrouted, &devices);
        let not_ready = not_ready(&look);
        let report = Arc::clone(&look.figures.signals);
        let state = state(&look, &not_ready);
        let Look {
            figures,
            flow,
            autonomy,
            outlook,
            ..
        } = look;
        let headroom = figures.log.headroom() as f64;
        Self {
            gateway: identity.gateway.clone(),
            version: identity.version,
            restart_pending: figures.restart_is_pending,
            installed_version: figures.installed_version.clone(),
            config: identity.fingerprint.clone(),
            uptime_seconds: now.duration_since(identity.started).as_secs(),
            ready: not_ready.is_empty(),
            not_ready,
            problems,
            deadlines: outlook.iter().map(|next| deadline(next, figures.judged)).collect(),
            survive_seconds: figures.survive_outage.as_secs(),
            survive_autonomy_seconds: (headroom / figures.survive_bytes.max(f64::MIN_POSITIVE)).min(LONGEST) as u64,
            flowing: Flowing {
                state,
                accepted_per_second: tenths(flow.accepted),
                delivered_per_second: tenths(flow.delivered),
            },
            disk: disk(&figures),
            autonomy_seconds: autonomy.map(|seconds| seconds as u64),
            cloud: figures.cloud.as_ref().map(cloud),
            devices: Devices {
                known: devices.len(),
                connected: devices.iter().filter(|device| device.connections > 0).count(),
                list: worst_first(devices, &report, source, figures.now),
            },
            sessions: Sessions {
                kept: figures.front.sessions,
                connected: telemetry::value(&stats.front.connected),
            },
            unrouted: Unrouted {
                total: telemetry::value(&stats.front.unrouted),
                topics: unrouted.into_iter().map(topic).collect(),
            },
            ledger: ledger(source.ledger()),
            start: Start {
                new: figures.start.new,
                clean: figures.start.clean,
                recovered: figures.start.recovered,
                damaged: figures.start.damaged,
                quarantined: figures.start.quarantined,
                took_seconds: figures.start.took.as_secs_f64(),
            },
            clock_trusted: figures.clock.report.trust.is_ok(),
            clock: inspect::clock(&figures.clock.report, figures.clock.last_trusted),
            routes: figures.front.routes.into_iter().map(route).collect(),
            wrong_names: figures
                .front
                .wrong_names
                .into_iter()
                .map(|(name, handshakes)| WrongName { name, handshakes })
                .collect(),
            watch: watch(&report),
            canary: figures.canary.as_ref().map(canary),
            tasks: Tasks {
                dead: figures
                    .tasks
                    .dead
                    .iter()
                    .map(ToString::to_string)
                    .chain(figures.front.fault.clone())
                    .collect(),
                restarts: figures.tasks.restarts.iter().cloned().collect(),
            },
            check: figures.check.as_ref().map(|found| check(found, figures.judged)),
            streams: figures.log.streams.into_iter().map(stream).collect(),
            certificates: figures
                .certificates
                .into_iter()
                .map(|(listener, expires_in_seconds)| Certificate {
                    listener,
                    expires_in_seconds,
                })
                .collect(),
        }
    }
}

fn stream(stream: telemetry::Stream) -> Stream {
    Stream {
        name: stream.name,
        waiting: stream.waiting,
        waiting_bytes: stream.waiting_bytes,
        max_bytes: stream.max_bytes,
        when_full: if stream.refuses { "refuse" } else { "drop_oldest" },
        oldest_seconds: stream.oldest.filter(|_| stream.waiting > 0).map(|age| age.as_secs()),
    }
}

fn disk(figures: &Figures) -> Disk {
    Disk {
        bytes: figures.log.disk_bytes,
        max_bytes: figures.log.max_disk,
        free_bytes: figures.log.free_bytes,
        keep_free_bytes: figures.log.keep_free,
        quarantined_segments: figures.log.quarantined.segments,
        quarantined_bytes: figures.log.quarantined.bytes,
        quarantined_until: figures.log.quarantined.until.map(|until| wall(until.saturating_mul(1000))),
    }
}

fn cloud(cloud: &telemetry::Cloud) -> Cloud {
    use forebay_bridge::State;
    let status = &cloud.status;
    let (state, next_try) = match status.state {
        State::Connecting => ("connecting", None),
        State::Connected => ("connected", None),
        State::BackingOff { until } => ("backing_off", Some(moment(until))),
        State::Stalled => ("stalled", None),
        State::Stopped => ("stopped", None),
    };
    let suspended = status.suspended.iter().take(MAX_SUSPENDED).map(|pair| Suspended {
        stream: pair.stream.clone(),
        route: pair.route.clone(),
        identity: pair.identity.clone(),
    });
    Cloud {
        state,
        since: status.connected_since.map(moment),
        next_try,
        last_error: status.last_error.as_ref().map(|error| LastError {
            text: error.text.clone(),
            at: moment(error.at),
            times: error.times,
        }),
        in_flight: status.in_flight,
        waiting_devices: status.waiting_devices,
        suspended: suspended.collect(),
        suspended_routes: status.suspended_routes.clone(),
    }
}

/// In one word, what the stream of messages does.
fn state(look: &Look, not_ready: &[String]) -> &'static str {
    let moves = look.flow.accepted > 0.0 || look.flow.delivered > 0.0;
    match &look.figures.cloud {
        _ if !not_ready.is_empty() => "refusing",
        Some(cloud) if cloud.is_stalled() => "stalled",
        Some(cloud) if !cloud.is_connected() => "waiting",
        _ if moves => "flowing",
        _ => "idle",
    }
}

fn deadline(next: &telemetry::Deadline, now: i64) -> Deadline {
    let in_seconds = next.seconds as i64;
    let at = u64::try_from(now.saturating_add(in_seconds)).unwrap_or_default();
    Deadline {
        what: next.what,
        in_seconds,
        at: wall(at.saturating_mul(1000)),
    }
}

fn route(route: RouteStatus) -> Route {
    Route {
        from: route.name,
        cloud: route.is_cloud,
        matched: route.matched,
        last_match_seconds: route.last.map(|last| last.as_secs()),
    }
}

fn watch(report: &Report) -> Watch {
    let trouble = |trouble: &signals::Trouble| Trouble {
        signal: trouble.signal.label(),
        device: trouble.device.clone(),
        topic: trouble.topic.clone(),
        detail: trouble.detail.clone(),
        value: trouble.value,
        lasts_seconds: trouble.lasts.as_secs(),
        text: trouble.text.clone(),
    };
    Watch {
        series: report.series,
        in_trouble: SIGNALS.iter().map(|signal| report.in_trouble(*signal)).sum(),
        troubles: report.troubles.iter().take(MAX_TROUBLES).map(trouble).collect(),
    }
}

fn canary(figures: &CanaryFigures) -> Canary {
    Canary {
        interval_seconds: figures.interval.as_secs(),
        sent: figures.sent,
        acked: figures.acked,
        waiting_seconds: figures.waiting.map(|waiting| waiting.as_secs()),
        round_trip_ms: figures.round_trip.map(|took| took.as_millis() as u64),
    }
}

fn check(found: &Findings, now: i64) -> Check {
    let findings = found.report.findings.iter().filter(|finding| finding.severity != Severity::Ok);
    let finding = |finding: &crate::check::Finding| Finding {
        severity: if finding.severity == Severity::Error { "error" } else { "warn" },
        area: finding.area,
        text: finding.text.clone(),
        hint: finding.hint.clone(),
    };
    let expiry = |expiry: &crate::monitor::self_check::Expiry| Expiry {
        what: expiry.what,
        file: expiry.file.clone(),
        expires_in_seconds: expiry.ends.saturating_sub(now),
    };
    Check {
        at: wall(found.at.saturating_mul(1000)),
        config_file: found.file.label(),
        config_fault: found.fault.clone(),
        findings: findings.map(finding).collect(),
        expiries: found.expiries.iter().map(expiry).collect(),
    }
}

/// The devices that a person should look at come first: those with trouble, then the others, each by identity.
fn worst_first(mut devices: Vec<DeviceStatus>, report: &Report, source: &dyn Source, now: i64) -> Vec<Device> {
    let mut signals: HashMap<&str, Vec<&signals::Trouble>> = HashMap::new();
    for trouble in &report.troubles {
        signals.entry(&trouble.device).or_default().push(trouble);
    }
    // A device that has not come since the start may be in trouble for that very reason.
    let present: HashSet<&str> = devices.iter().map(|device| device.identity.as_str()).collect();
    let absent: Vec<_> = signals
        .keys()
        .filter(|identity| !present.contains(*identity))
        .map(|identity| absent(identity))
        .collect();
    devices.extend(absent);
    let is_well = |device: &DeviceStatus| device.last_end.is_none() && device.refused == 0;
    devices.sort_by_cached_key(|device| {
        let signals = signals.get(device.identity.as_str()).map_or(0, Vec::len);
        (std::cmp::Reverse(signals), is_well(device), device.identity.clone())
    });
    devices.truncate(MAX_DEVICES);
    let told = |status: DeviceStatus| {
        let signals = signals.remove(status.identity.as_str()).unwrap_or_default();
        let history = source.history(&status.identity);
        device(status, &signals, history, now)
    };
    devices.into_iter().map(told).collect()
}

fn absent(identity: &str) -> DeviceStatus {
    DeviceStatus {
        identity: identity.to_owned(),
        connections: 0,
        connects: 0,
        accepted: 0,
        refused: 0,
        last_seen_ms: 0,
        last_end: None,
    }
}

fn device(device: DeviceStatus, signals: &[&signals::Trouble], history: Vec<signals::Moment>, now: i64) -> Device {
    let trouble = match (device.last_end, device.refused) {
        (Some((reason, address)), _) => Some(format!("its last connection, from {address}, ended with {}", reason.label())),
        (None, 0) => None,
        (None, refused) => Some(format!("{refused} of its publishes were refused or dropped")),
    };
    let seen = (device.last_seen_ms > 0).then_some(device.last_seen_ms);
    let moment = |moment: signals::Moment| Moment {
        at: wall(moment.at_ms),
        what: moment.what,
        address: moment.address,
    };
    Device {
        identity: device.identity,
        connections: device.connections,
        connects: device.connects,
        accepted: device.accepted,
        refused: device.refused,
        last_seen: seen.map(wall),
        last_seen_seconds: seen.map(|seen| now.saturating_sub_unsigned(seen / 1000).max(0).unsigned_abs()),
        troubles: signals.iter().map(|trouble| trouble.text.clone()).chain(trouble.clone()).collect(),
        trouble,
        signals: signals.iter().map(|trouble| trouble.signal.label()).collect(),
        history: history.into_iter().map(moment).collect(),
    }
}

fn topic(topic: forebay_broker::UnroutedTopic) -> Topic {
    let (nearest, letters_off) = topic.nearest.unzip();
    Topic {
        topic: topic.topic,
        count: topic.count,
        nearest,
        letters_off,
    }
}

fn ledger(audit: Audit) -> Ledger {
    Ledger {
        accepted: audit.accepted,
        requeued: audit.requeued,
        delivered: audit.delivered,
        waiting: audit.waiting,
        expired: audit.expired,
        evicted: audit.evicted,
        dead: audit.dead_lettered,
        damaged: audit.damaged,
    }
}

fn moment(timestamp: Timestamp) -> String {
    wall(timestamp.wall_ms)
}

fn wall(milliseconds: u64) -> String {
    let moment = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(milliseconds / 1000);
    moment.format(&Rfc3339).unwrap_or_else(|_| format!("{milliseconds} ms since 1970"))
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
