//! The log at a glance.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay_wal::{Clock as _, Inspector, SegmentCondition, Stats, Status, SystemClock};
use serde::{Deserialize, Serialize};

use super::wall;
use crate::config::{Config, WhenFull};

const DAY: f64 = 86_400.0;

/// What the configuration says of the log.
#[derive(Clone)]
pub(crate) struct About {
    pub(crate) gateway: String,
    pub(crate) max_disk: u64,
    pub(crate) keep_free: u64,
    /// Name, bound and policy of each stream.
    pub(crate) streams: Vec<(String, u64, &'static str)>,
    pub(crate) clock: Arc<SystemClock>,
}

/// What only a running gateway knows.
pub(crate) struct Live<'a> {
    pub(crate) status: Status,
    pub(crate) stats: &'a Stats,
    pub(crate) uptime: Duration,
    pub(crate) accepted_per_second: f64,
    pub(crate) delivered_per_second: f64,
}

/// The log at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stat {
    pub(crate) running: bool,
    pub(crate) gateway: String,
    pub(crate) directory: String,
    pub(crate) epoch: String,
    pub(crate) clean: Option<bool>,
    pub(crate) notes: Vec<String>,
    pub(crate) streams: Vec<StreamStat>,
    pub(crate) segments: SegmentsStat,
    pub(crate) disk: DiskStat,
    pub(crate) accepted_per_second: Option<f64>,
    pub(crate) delivered_per_second: Option<f64>,
    pub(crate) since_start: Option<SinceStart>,
}

/// One stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StreamStat {
    pub(crate) name: String,
    pub(crate) internal: bool,
    pub(crate) waiting: u64,
    pub(crate) waiting_bytes: u64,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) when_full: Option<String>,
    pub(crate) oldest_at: Option<String>,
    pub(crate) oldest_seconds: Option<u64>,
    pub(crate) first_offset: Option<u64>,
    pub(crate) next_offset: u64,
}

/// The segments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SegmentsStat {
    pub(crate) count: u64,
    pub(crate) unclean: u64,
    pub(crate) damaged: u64,
    pub(crate) quarantined: u64,
    pub(crate) bytes: u64,
}

/// The disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DiskStat {
    pub(crate) max_bytes: u64,
    pub(crate) free_bytes: Option<u64>,
    pub(crate) keep_free_bytes: u64,
}

/// What was written since the process started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SinceStart {
    pub(crate) seconds: f64,
    pub(crate) records: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) encoded_bytes: u64,
    pub(crate) commits: u64,
    pub(crate) syncs: u64,
    pub(crate) written_bytes: u64,
    pub(crate) written_per_payload_byte: Option<f64>,
    pub(crate) projected_gb_per_day: f64,
}

impl About {
    pub(crate) fn new(config: &Config, clock: Arc<SystemClock>) -> Self {
        let policy = |when_full| match when_full {
            WhenFull::Refuse => "refuse",
            WhenFull::DropOldest => "drop_oldest",
        };
        Self {
            gateway: config.gateway.id.to_string(),
            max_disk: config.gateway.max_disk,
            keep_free: config.gateway.keep_free,
            streams: config
                .streams
                .iter()
                .map(|stream| (stream.name.clone(), stream.max_bytes, policy(stream.when_full)))
                .collect(),
            clock,
        }
    }
}

/// Puts it together. Blocks on the disk.
pub(crate) fn stat(about: &About, inspector: &Inspector, live: Option<&Live<'_>>) -> Stat {
    let now = about.clock.now();
    let stream = |stream: forebay_wal::StreamReport| {
        let configured = about.streams.iter().find(|(name, ..)| *name == stream.name && !stream.internal);
        let of_running = live.and_then(|live| live.status.streams.iter().find(|status| status.id == stream.id));
        let oldest = inspector.oldest_waiting(stream.id).map(|(_, received)| received);
        StreamStat {
            internal: stream.internal,
            waiting: of_running.map_or(stream.waiting, |status| status.waiting),
            waiting_bytes: of_running.map_or(stream.waiting_bytes, |status| status.waiting_bytes),
            max_bytes: configured.map(|(_, max_bytes, _)| *max_bytes),
            when_full: configured.map(|(.., when_full)| (*when_full).to_owned()),
            oldest_at: oldest.map(|received| wall(received.wall_ms)),
            oldest_seconds: oldest.and_then(|received| received.age(&now)).map(|age| age.as_secs()),
            first_offset: stream.oldest.map(|offset| offset.0),
            next_offset: stream.next.0,
            name: stream.name,
        }
    };
    let mut segments = SegmentsStat::default();
    for file in inspector.segments().unwrap_or_default() {
        segments.bytes += file.bytes;
        match file.condition {
            SegmentCondition::Quarantined => segments.quarantined += 1,
            condition => {
                segments.count += 1;
                segments.unclean += u64::from(condition == SegmentCondition::Unclean);
                segments.damaged += u64::from(matches!(condition, SegmentCondition::Damaged | SegmentCondition::Missing));
            }
        }
    }
    Stat {
        running: inspector.is_running(),
        gateway: about.gateway.clone(),
        directory: inspector.directory().display().to_string(),
        epoch: inspector.epoch().to_string(),
        clean: inspector.is_clean(),
        notes: inspector.notes().to_vec(),
        streams: inspector.streams().into_iter().map(stream).collect(),
        segments,
        disk: DiskStat {
            max_bytes: about.max_disk,
            free_bytes: inspector.free_bytes(),
            keep_free_bytes: about.keep_free,
        },
        accepted_per_second: live.map(|live| tenths(live.accepted_per_second)),
        delivered_per_second: live.map(|live| tenths(live.delivered_per_second)),
        since_start: live.map(|live| since_start(live.stats, live.uptime)),
    }
}

fn since_start(stats: &Stats, uptime: Duration) -> SinceStart {
    let value = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (written, payload) = (value(&stats.device_bytes), value(&stats.payload_bytes));
    let seconds = uptime.as_secs_f64();
    SinceStart {
        seconds: tenths(seconds),
        records: value(&stats.records_committed),
        payload_bytes: payload,
        encoded_bytes: value(&stats.bytes_committed),
        commits: value(&stats.commits),
        syncs: value(&stats.device_syncs),
        written_bytes: written,
        written_per_payload_byte: (payload > 0).then(|| hundredths(written as f64 / payload as f64)),
        projected_gb_per_day: hundredths(written as f64 / seconds.max(1.0) * DAY / 1e9),
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
