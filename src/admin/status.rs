//! `/status`: the gateway at a glance, as JSON. The fields are described in `docs/status.md`.

use std::time::{Duration, Instant};

use forebay_broker::DeviceStatus;
use forebay_wal::{Audit, Timestamp};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::problems::problems;
use crate::telemetry::{self, Figures, Identity, Look, Source, not_ready};

/// Devices listed; those with trouble come first.
const MAX_DEVICES: usize = 200;
/// Unrouted topics listed.
const MAX_UNROUTED: usize = 20;
/// Suspended pairs listed.
const MAX_SUSPENDED: usize = 200;

/// The gateway at a glance.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    gateway: String,
    version: &'static str,
    config: String,
    uptime_seconds: u64,
    ready: bool,
    not_ready: Vec<String>,
    problems: Vec<String>,
    flowing: Flowing,
    streams: Vec<Stream>,
    disk: Disk,
    autonomy_seconds: Option<u64>,
    cloud: Option<Cloud>,
    devices: Devices,
    unrouted: Unrouted,
    ledger: Ledger,
    start: Start,
    clock_trusted: bool,
    certificates: Vec<Certificate>,
}

#[derive(Debug, Serialize)]
struct Flowing {
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
}

#[derive(Debug, Serialize)]
struct Cloud {
    state: &'static str,
    since: Option<String>,
    next_try: Option<String>,
    last_error: Option<LastError>,
    in_flight: usize,
    held_devices: usize,
    suspended: Vec<Suspended>,
    suspended_routes: Vec<String>,
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
    trouble: Option<String>,
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
    clean: bool,
    recovered: u64,
    damaged: u64,
    set_aside: u64,
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
        let problems = problems(&look, &unrouted);
        let not_ready = not_ready(&look);
        let Look {
            figures, flow, autonomy, ..
        } = look;
        Self {
            gateway: identity.gateway.clone(),
            version: identity.version,
            config: identity.fingerprint.clone(),
            uptime_seconds: now.duration_since(identity.started).as_secs(),
            ready: not_ready.is_empty(),
            not_ready,
            problems,
            flowing: Flowing {
                accepted_per_second: tenths(flow.accepted),
                delivered_per_second: tenths(flow.delivered),
            },
            disk: disk(&figures),
            autonomy_seconds: autonomy.map(|seconds| seconds as u64),
            cloud: figures.cloud.as_ref().map(cloud),
            devices: Devices {
                known: devices.len(),
                connected: devices.iter().filter(|device| device.connections > 0).count(),
                list: worst_first(devices),
            },
            unrouted: Unrouted {
                total: figures.front.unrouted,
                topics: unrouted.into_iter().map(topic).collect(),
            },
            ledger: ledger(source.ledger()),
            start: Start {
                clean: figures.start.clean,
                recovered: figures.start.recovered,
                damaged: figures.start.damaged,
                set_aside: figures.start.set_aside,
                took_seconds: figures.start.took.as_secs_f64(),
            },
            clock_trusted: figures.clock_trusted,
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
        held_devices: status.held_devices,
        suspended: suspended.collect(),
        suspended_routes: status.suspended_routes.clone(),
    }
}

/// The devices that a person should look at come first: those with trouble, then the others, each by identity.
fn worst_first(mut devices: Vec<DeviceStatus>) -> Vec<Device> {
    devices.sort_by_cached_key(|device| (device.last_end.is_none() && device.refused == 0, device.identity.clone()));
    devices.truncate(MAX_DEVICES);
    devices.into_iter().map(device).collect()
}

fn device(device: DeviceStatus) -> Device {
    let trouble = match (device.last_end, device.refused) {
        (Some((reason, address)), _) => Some(format!("its last connection, from {address}, ended: {}", reason.label())),
        (None, 0) => None,
        (None, refused) => Some(format!("{refused} of its publishes were refused or dropped")),
    };
    Device {
        identity: device.identity,
        connections: device.connections,
        connects: device.connects,
        accepted: device.accepted,
        refused: device.refused,
        last_seen: (device.last_seen_ms > 0).then(|| wall(device.last_seen_ms)),
        trouble,
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
