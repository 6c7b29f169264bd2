//! Every instrument, once: its name, unit, labels, kind, the question it answers, and where its value comes from.
//! `/metrics` and `docs/metrics.md` are both made from this table.

mod budget;
mod outlook;
mod signals;

use std::sync::atomic::AtomicU64;

use forebay_broker::{Disconnection, DroppedOwed, Refusal, Unretained, UnroutedTopic};
use forebay_topic::is_safe;
use forebay_wal::{DiskCall, Doubt, TrustSource};

use super::figures::{ByLabel, Cloud, Figures, Stats, Stream, value};
use super::{Identity, Look, health};
use crate::traces::Counts;

/// One instrument.
pub(crate) struct Instrument {
    /// As Prometheus sees it.
    pub(crate) name: &'static str,
    /// The unit of its values.
    pub(crate) unit: &'static str,
    /// Its labels; every set of values is bounded.
    pub(crate) labels: &'static [&'static str],
    /// What it is and what it says, in one line.
    pub(crate) question: &'static str,
    /// What it is made of.
    pub(crate) kind: Kind,
}

/// What an instrument is made of.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Rises only; back to zero with a restart.
    Counter(Read),
    /// A level.
    Gauge(Read),
    /// A distribution with these bounds.
    Histogram(&'static [f64]),
    /// A counter whose series come and go: it names topics or names that others choose.
    ListedCounter(Read),
    /// A level whose series come and go: there is one for each thing that is so now.
    ListedGauge(Read),
}

/// Reads an instrument's series.
pub(crate) type Read = fn(&Moment<'_>) -> Vec<Series>;

/// What the values are read from.
pub(crate) struct Moment<'a> {
    /// Who this is.
    pub(crate) identity: &'a Identity,
    /// All there is.
    pub(crate) look: &'a Look,
    /// The parts' figures in it.
    pub(crate) figures: &'a Figures,
    /// The counters, where they are counted.
    pub(crate) stats: Stats<'a>,
    /// The unrouted topics seen most.
    pub(crate) unrouted: &'a [UnroutedTopic],
}

/// One series of an instrument.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    /// The labels' values, in the order of their names.
    pub(crate) labels: Vec<String>,
    /// Its value.
    pub(crate) value: f64,
}

/// Autonomy is never said to be longer: when nothing comes, it has no end.
const LONGEST_AUTONOMY: f64 = 10.0 * 365.0 * 86_400.0;

/// From half a millisecond, a fast SSD's commit, to the seconds of a worn flash card.
const LATENCY: &[f64] = &[
    0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0,
];
/// From a live link's tens of milliseconds to a week's outage.
const AGE: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 43_200.0, 86_400.0, 259_200.0,
    604_800.0,
];

pub(super) const COMMIT_LATENCY: &str = "forebay_commit_latency_seconds";
pub(super) const ACK_LATENCY: &str = "forebay_ack_latency_seconds";
pub(super) const DELIVERY_AGE: &str = "forebay_delivery_age_seconds";

/// The table, in the order of the documentation: a heading and its instruments.
#[must_use]
pub(crate) const fn catalogue() -> &'static [(&'static str, &'static [Instrument])] {
    &[
        ("Devices", DEVICES),
        ("Bounds", budget::BUDGET),
        ("Routes and names", ROUTES),
        ("Signals", signals::SIGNALS),
        ("Log", LOG),
        ("Cloud", CLOUD),
        ("Canary", outlook::CANARY),
        ("Outlook", outlook::OUTLOOK),
        ("Start and process", PROCESS),
    ]
}

/// All instruments.
pub(crate) fn instruments() -> impl Iterator<Item = &'static Instrument> {
    catalogue().iter().flat_map(|(_, instruments)| *instruments)
}

const fn counter(name: &'static str, unit: &'static str, question: &'static str, read: Read) -> Instrument {
    Instrument {
        name,
        unit,
        labels: &[],
        question,
        kind: Kind::Counter(read),
    }
}

const fn gauge(name: &'static str, unit: &'static str, question: &'static str, read: Read) -> Instrument {
    Instrument {
        name,
        unit,
        labels: &[],
        question,
        kind: Kind::Gauge(read),
    }
}

const fn listed(name: &'static str, unit: &'static str, question: &'static str, read: Read) -> Instrument {
    Instrument {
        name,
        unit,
        labels: &[],
        question,
        kind: Kind::ListedGauge(read),
    }
}

const fn listed_counter(name: &'static str, unit: &'static str, question: &'static str, read: Read) -> Instrument {
    Instrument {
        name,
        unit,
        labels: &[],
        question,
        kind: Kind::ListedCounter(read),
    }
}

const fn histogram(name: &'static str, bounds: &'static [f64], question: &'static str) -> Instrument {
    Instrument {
        name,
        unit: "seconds",
        labels: &[],
        question,
        kind: Kind::Histogram(bounds),
    }
}

const fn by(labels: &'static [&'static str], mut instrument: Instrument) -> Instrument {
    instrument.labels = labels;
    instrument
}

#[rustfmt::skip]
const DEVICES: &[Instrument] = &[
    counter("forebay_accepted_total", "publishes", "Publishes accepted, of any QoS and route: what do the devices send?", |m| count(&m.stats.front.accepted)),
    counter("forebay_payload_bytes_total", "bytes", "Bytes of payload accepted.", |m| count(&m.stats.front.payload_bytes)),
    counter("forebay_acked_total", "publishes", "PUBACK and PUBREC with success, sent to devices.", |m| count(&m.stats.front.acked)),
    by(&["reason"], counter("forebay_refused_total", "publishes", "QoS 1 and 2 publishes refused; the device is told. Which rule or bound refuses them?", |m| by_reason(Refusal::ALL, Refusal::label, |reason| m.stats.front.refused(reason)))),
    by(&["reason"], counter("forebay_dropped_total", "publishes", "QoS 0 publishes dropped; the device is not told.", |m| by_reason(Refusal::ALL, Refusal::label, |reason| m.stats.front.dropped(reason)))),
    counter("forebay_unrouted_total", "publishes", "Publishes that are allowed and match no route: is a topic misspelt? `/status` lists them with the nearest route.", |m| count(&m.stats.front.unrouted)),
    counter("forebay_local_total", "publishes", "Publishes on routes with `local: true`, which do not go to the cloud.", |m| count(&m.stats.front.local)),
    counter("forebay_qos2_duplicates_total", "publishes", "QoS 2 publishes that were sent again. They are not stored a second time.", |m| count(&m.stats.front.qos2_duplicates)),
    counter("forebay_resent_by_devices_total", "publishes", "QoS 1 publishes with the DUP flag: do devices miss acks?", |m| count(&m.stats.front.resent_by_devices)),
    gauge("forebay_parked", "publishes", "MQTT 3.1.1 publishes that wait unacked because a stream with `when_full: refuse` is full.", |m| count(&m.stats.front.parked)),
    histogram(ACK_LATENCY, LATENCY, "Time from reading a publish to writing its ack. Each counts with the time of the oldest ack that was written together with it. Do devices wait?"),
    gauge("forebay_connections", "connections", "Open device connections.", |m| count(&m.stats.front.connected)),
    gauge("forebay_closed_listeners", "listeners", "Listeners that cannot serve because their address or their files are not there; they are tried again each second. `/status` says which and why.", |m| one(m.figures.front.closed_listeners.len() as u64)),
    counter("forebay_connects_total", "connections", "Device connections accepted with CONNACK: do devices reconnect too often?", |m| count(&m.stats.front.connects)),
    gauge("forebay_sessions", "sessions", "Sessions, connected or not.", |m| one(m.figures.front.sessions)),
    counter("forebay_clean_disconnects_total", "connections", "Connections that the device ended with DISCONNECT.", |m| count(&m.stats.front.clean_disconnects)),
    by(&["reason"], counter("forebay_disconnects_total", "connections", "Connections that were refused, or ended without the device's DISCONNECT, by reason.", |m| by_reason(Disconnection::ALL, Disconnection::label, |reason| m.stats.front.disconnected(reason)))),
    by(&["reason"], counter("forebay_handshake_faults_total", "connections", "Failed TLS handshakes, by reason: which side does not accept the other's certificate?", |m| labelled(m.stats.front.handshake_faults()))),
    gauge("forebay_handshakes_pending", "connections", "TLS handshakes in progress.", |m| count(&m.stats.front.handshakes_pending)),
    counter("forebay_subscriptions_granted_total", "subscriptions", "Subscriptions granted.", |m| count(&m.stats.front.subscriptions_granted)),
    counter("forebay_subscriptions_refused_total", "subscriptions", "Subscriptions refused: not allowed by the access rules, not valid, or beyond a bound. The gateway's own log says which.", |m| count(&m.stats.front.subscriptions_refused)),
    counter("forebay_fanned_out_total", "messages", "Messages delivered to local subscribers.", |m| count(&m.stats.front.fanned_out)),
    counter("forebay_fanout_dropped_total", "messages", "Messages that local subscribers lost because they read too slowly, and those at QoS 0 that are larger than the client takes.", |m| count(&m.stats.front.fanout_dropped)),
    counter("forebay_fanout_cut_total", "messages", "Messages whose search for local subscribers ended after 4,096 steps, because too many overlapping filters match: some subscribers may have missed them.", |m| count(&m.stats.front.fanout_cut)),
    counter("forebay_owed_total", "messages", "Messages that local subscribers are owed at QoS 1 or 2, once for each subscriber: acked + dropped + waiting.", |m| count(&m.stats.front.owed)),
    counter("forebay_owed_acked_total", "messages", "Of these, those that the subscriber has acknowledged, with PUBACK or PUBCOMP.", |m| count(&m.stats.front.owed_acked)),
    gauge("forebay_owed_waiting", "messages", "Of these, those that wait for room or for their acknowledgement now: does a subscriber not keep up?", |m| count(&m.stats.front.owed_waiting)),
    by(&["reason"], counter("forebay_owed_dropped_total", "messages", "Of these, those that did not reach their subscriber. `session_bound`, `all_sessions_bound`: too much waited (`owed_bytes`); `message_expiry`; `too_large` for its Maximum Packet Size; `refused` by it; `session_end`: its session ended with its connection.", |m| by_reason(DroppedOwed::ALL, DroppedOwed::label, |reason| m.stats.front.owed_dropped(reason)))),
    gauge("forebay_retained_messages", "messages", "Retained messages. `limits.max_topics` is the bound.", |m| count(&m.stats.front.retained)),
    gauge("forebay_retained_bytes", "bytes", "Bytes of retained messages: topics, payloads, properties. `sessions.max_bytes` is the bound.", |m| count(&m.stats.front.retained_bytes)),
    counter("forebay_retained_sent_total", "messages", "Retained messages sent to new subscriptions.", |m| count(&m.stats.front.retained_sent)),
    counter("forebay_retained_expired_total", "messages", "Retained messages removed because their MQTT 5 expiry was over.", |m| count(&m.stats.front.retained_expired)),
    by(&["reason"], counter("forebay_unretained_total", "publishes", "Publishes with RETAIN that were delivered but not retained, by reason: which bound was reached?", |m| by_reason(Unretained::ALL, Unretained::label, |reason| m.stats.front.unretained(reason)))),
    counter("forebay_retained_unread_total", "subscriptions", "Subscriptions that did not get their retained messages because `state.redb` could not be read. Check the disk if it rises.", |m| count(&m.stats.front.retained_unread)),
    gauge("forebay_fanout_alive", "0 or 1", "1 if the fan-out to local subscribers works. If 0, restart the gateway.", |m| flag(m.figures.front.fanout_alive)),
];

#[rustfmt::skip]
const ROUTES: &[Instrument] = &[
    by(&["route"], counter("forebay_route_matched_total", "publishes", "Publishes accepted on the route. If it stays 0: is its filter misspelt?", |m| m.figures.front.routes.iter().map(|route| series(&[&route.name], route.matched as f64)).collect())),
    by(&["route"], listed("forebay_route_last_match_seconds", "seconds", "Time since the route's last publish; no series before the first.", |m| m.figures.front.routes.iter().filter_map(|route| Some(series(&[&route.name], route.last?.as_secs_f64()))).collect())),
    by(&["topic", "nearest"], listed_counter("forebay_unrouted_topic_total", "publishes", "The ten most frequent unrouted topics, with the filter of the nearest route if one is near: which topic is misspelt? Topics over 128 bytes are cut.", |m| m.unrouted.iter().map(|topic| series(&[cut(&topic.topic), topic.nearest.as_ref().map_or("", |(filter, _)| filter)], topic.count as f64)).collect())),
    by(&["name"], listed_counter("forebay_wrong_name_total", "handshakes", "Failed TLS handshakes because the certificate lacks the name that the device dialled, by name; `none`: the device dialled an address. At most 32 names, then `other`. Which name does the certificate need?", |m| labelled(pairs(&m.figures.front.wrong_names)))),
];

#[rustfmt::skip]
const LOG: &[Instrument] = &[
    counter("forebay_committed_records_total", "records", "Records committed to streams.", |m| count(&m.stats.log.records_committed)),
    counter("forebay_committed_bytes_total", "bytes", "Encoded bytes of committed records.", |m| count(&m.stats.log.bytes_committed)),
    counter("forebay_commits_total", "commits", "Commits. Each writes about 40 KiB, however small it is: would a longer `commit_wait` reduce wear?", |m| count(&m.stats.log.commits)),
    counter("forebay_failed_commits_total", "commits", "Commits that failed; nothing of them was acked. Check the disk if it rises.", |m| count(&m.stats.log.commits_failed)),
    histogram(COMMIT_LATENCY, LATENCY, "Duration of a commit, including its sync: is the disk slow or failing?"),
    gauge("forebay_commit_waiting_seconds", "seconds", "How long records have waited for a commit that takes longer than ten seconds; 0 if none does. Does the disk answer?", |m| vec![series(&[], m.look.commit_slow.map_or(0.0, |waited| waited.as_secs_f64()))]),
    by(&["stream"], gauge("forebay_waiting_records", "records", "Records that wait for the cloud.", |m| streams(m, |stream| Some(stream.waiting as f64)))),
    by(&["stream"], gauge("forebay_waiting_bytes", "bytes", "Encoded bytes of these records.", |m| streams(m, |stream| Some(stream.waiting_bytes as f64)))),
    by(&["stream"], gauge("forebay_stream_max_bytes", "bytes", "The stream's bound on waiting bytes.", |m| streams(m, |stream| Some(stream.max_bytes as f64)))),
    by(&["stream"], listed("forebay_oldest_age_seconds", "seconds", "Age of the oldest waiting record; 0 if none waits, no series if the age cannot be proved. Is delivery behind?", |m| streams(m, oldest))),
    gauge("forebay_disk_bytes", "bytes", "Bytes of the log's directory on disk.", |m| one(m.figures.log.disk_bytes)),
    gauge("forebay_disk_max_bytes", "bytes", "`gateway.max_disk`, the bound of `forebay_disk_bytes`.", |m| one(m.figures.log.max_disk)),
    gauge("forebay_free_bytes", "bytes", "Bytes free in the log's file system.", |m| one(m.figures.log.free_bytes)),
    gauge("forebay_keep_free_bytes", "bytes", "`gateway.keep_free`, the lower bound of `forebay_free_bytes`.", |m| one(m.figures.log.keep_free)),
    counter("forebay_rotations_total", "segments", "Segments begun.", |m| count(&m.stats.log.rotations)),
    counter("forebay_delivered_total", "records", "Records settled as delivered: the cloud acked them.", |m| count(&m.stats.log.delivered)),
    counter("forebay_expired_total", "records", "Records dropped because they were older than `max_age` of their stream, or than the message expiry that the device set.", |m| count(&m.stats.log.expired)),
    counter("forebay_evicted_total", "records", "Records dropped by `drop_oldest` at a bound: was the outage too long for the disk?", |m| count(&m.stats.log.evicted)),
    counter("forebay_dead_lettered_total", "records", "Records that the cloud will never accept, kept as dead letters.", |m| count(&m.stats.log.dead_lettered)),
    counter("forebay_damaged_total", "records", "Records that cannot be read: their checksum is wrong or their segment is lost. Check the disk if it rises.", |m| count(&m.stats.log.damaged)),
    counter("forebay_quarantined_total", "segments", "Damaged segments quarantined while running. Compaction copied what could be read. Check the disk if it rises.", |m| count(&m.stats.log.quarantined)),
    gauge("forebay_quarantined_segments", "segments", "Quarantined segments that are kept for salvage now; `/status` says until when.", |m| one(m.figures.log.quarantined.segments)),
    gauge("forebay_quarantined_bytes", "bytes", "Bytes of those segments; they are part of `forebay_disk_bytes`.", |m| one(m.figures.log.quarantined.bytes)),
    by(&["reason"], counter("forebay_quarantined_removed_total", "segments", "Quarantined segments that were removed: `age` after 30 days, `bound` because all together took more than a quarter of `gateway.max_disk`, `room` because their room was needed.", removed_quarantined)),
    counter("forebay_compacted_total", "records", "Records that compaction copied from one segment to another, because little waited in it or it was damaged.", |m| count(&m.stats.log.compacted)),
    by(&["call"], counter("forebay_disk_errors_total", "calls", "Calls to the log's disk that failed, by kind, for another reason than that the disk is full. The journal has the file, the offset and the error number. Check the disk if it rises.", disk_errors)),
    counter("forebay_reads_corrected_total", "reads", "Reads of a segment that were wrong and, read again past the page cache, right. Check the disk, its cable and its power if it rises.", |m| count(&m.stats.log.reads_corrected)),
    counter("forebay_written_bytes_total", "bytes", "Bytes written to segments: how fast does the flash card wear?", |m| count(&m.stats.log.device_bytes)),
    counter("forebay_syncs_total", "syncs", "Syncs of the log's disk.", |m| count(&m.stats.log.device_syncs)),
    counter("forebay_late_settlements_total", "records", "Settlements of records that were settled already.", |m| count(&m.stats.log.late_settlements)),
    gauge("forebay_log_writable", "0 or 1", "1 if the log can be written.", |m| flag(m.figures.log.unavailable.is_none())),
    gauge("forebay_autonomy_seconds", "seconds", "How long the log has room without the cloud at the rate of the last minute; ten years without publishes, 0 if a stream is full.", |m| vec![series(&[], m.look.autonomy.unwrap_or(LONGEST_AUTONOMY).min(LONGEST_AUTONOMY))]),
    gauge("forebay_survive_outage_seconds", "seconds", "`gateway.survive.outage`, the autonomy that is required.", |m| vec![series(&[], m.figures.survive_outage.as_secs_f64())]),
];

#[rustfmt::skip]
const CLOUD: &[Instrument] = &[
    gauge("forebay_cloud_connected", "0 or 1", "1 if the gateway is connected to the cloud.", |m| cloud(m, |cloud| f64::from(cloud.is_connected()))),
    gauge("forebay_cloud_stalled", "0 or 1", "1 if the gateway is connected, publishes wait for acks, and none came for five seconds.", |m| cloud(m, |cloud| f64::from(cloud.is_stalled()))),
    counter("forebay_cloud_connects_total", "connections", "Connections that the cloud accepted.", |m| bridge(m, |stats| &stats.connects)),
    counter("forebay_cloud_connect_bytes_total", "bytes", "Bytes in both directions, TLS included, of connections and tries until the cloud accepted them or they failed: what does a flapping line cost?", |m| bridge(m, |stats| &stats.connect_bytes)),
    by(&["reason"], counter("forebay_cloud_reconnects_total", "connections", "Connections to the cloud that ended or failed, by reason: what is wrong with the link?", |m| m.stats.cloud.map_or_else(Vec::new, |stats| labelled(stats.reconnects().map(|(reason, count)| (reason.label(), count)))))),
    counter("forebay_cloud_sent_total", "publishes", "Publishes written to a connection, including repeats.", |m| bridge(m, |stats| &stats.sent)),
    counter("forebay_cloud_sent_bytes_total", "bytes", "Bytes of those packets, without TLS: what does the link cost?", |m| bridge(m, |stats| &stats.sent_bytes)),
    counter("forebay_cloud_delivered_total", "records", "Records that the cloud acked.", |m| bridge(m, |stats| &stats.delivered)),
    by(&["late"], histogram(DELIVERY_AGE, AGE, "Time from accepting a publish to the cloud's ack, where it can be proved. `late`: older than 30 s when it was first sent. How old is the data in the cloud?")),
    counter("forebay_cloud_expired_total", "records", "Records not sent because their own MQTT 5 expiry was over.", |m| bridge(m, |stats| &stats.expired)),
    counter("forebay_cloud_retried_total", "publishes", "Publishes sent again on the same connection because the cloud had refused them for now.", |m| bridge(m, |stats| &stats.retried)),
    counter("forebay_cloud_replayed_total", "publishes", "Publishes sent again because an earlier connection of this process got no ack for them.", |m| bridge(m, |stats| &stats.replayed)),
    counter("forebay_cloud_replayed_perhaps_total", "publishes", "Publishes that the previous process may have sent already.", |m| bridge(m, |stats| &stats.replayed_perhaps)),
    counter("forebay_cloud_duplicates_suspected_total", "records", "Delivered records that an earlier connection had also sent: the cloud may have them twice.", |m| bridge(m, |stats| &stats.duplicates_suspected)),
    counter("forebay_cloud_late_acks_total", "acks", "Acks for records that were settled in another way before.", |m| bridge(m, |stats| &stats.late_acks)),
    by(&["code"], counter("forebay_cloud_refused_total", "publishes", "Publishes that the cloud refused, by MQTT reason code: 0x87 is its policy, 0x97 a quota.", refused_by_cloud)),
    by(&["reason"], counter("forebay_cloud_dead_total", "records", "Records that became dead letters in the bridge, by reason.", |m| m.stats.cloud.map_or_else(Vec::new, |stats| labelled(stats.dead())))),
    gauge("forebay_cloud_in_flight", "publishes", "Publishes that wait for the cloud's ack.", |m| cloud(m, |cloud| cloud.status.in_flight as f64)),
    gauge("forebay_cloud_waiting_devices", "devices", "Waiting devices: the cloud refused one of their records for now.", |m| cloud(m, |cloud| cloud.status.waiting_devices as f64)),
    gauge("forebay_cloud_suspended", "pairs", "Suspended pairs of route and device: the cloud denies them, and their records wait. `/status` names them.", |m| cloud(m, |cloud| cloud.status.suspended.len() as f64)),
    gauge("forebay_cloud_suspended_routes", "routes", "Suspended routes: the cloud denies all devices on them.", |m| cloud(m, |cloud| cloud.status.suspended_routes.len() as f64)),
    by(&["route"], listed("forebay_cloud_denied", "devices", "Devices whose records on the route wait because the cloud's policy denies them; on a suspended route those that were tried. Which topic does the policy lack?", denied)),
    counter("forebay_cloud_probes_total", "publishes", "Probes of suspended pairs: one record each minute.", |m| bridge(m, |stats| &stats.probes)),
    gauge("forebay_cloud_rate_limit", "publishes per second", "The rate limit now; no series without a limit.", |m| m.figures.cloud.iter().filter_map(|cloud| cloud.status.messages_per_second).map(|pace| series(&[], pace)).collect()),
    counter("forebay_cloud_read_errors_total", "reads", "Reads of the log that failed. Check the disk if it rises.", |m| bridge(m, |stats| &stats.read_errors)),
];

#[rustfmt::skip]
const PROCESS: &[Instrument] = &[
    gauge("forebay_ready", "0 or 1", "1 if publishes are accepted and acked, as `/readyz` says.", |m| flag(health::not_ready(m.look).is_empty())),
    gauge("forebay_start_clean", "0 or 1", "1 if the log had been closed properly before this start.", |m| flag(m.figures.start.clean)),
    gauge("forebay_start_recovered_records", "records", "Records that waited at this start.", |m| one(m.figures.start.recovered)),
    gauge("forebay_start_damaged_records", "records", "Records that could not be read at this start.", |m| one(m.figures.start.damaged)),
    gauge("forebay_start_quarantined_segments", "segments", "Segments quarantined at this start because they did not open.", |m| one(m.figures.start.quarantined)),
    gauge("forebay_start_state_quarantined", "0 or 1", "1 if `state.redb` was damaged at this start; it is kept as `state.redb.damaged`, and was made again from the log.", |m| flag(m.figures.front.state.is_quarantined)),
    gauge("forebay_start_state_lost", "0 or 1", "1 if sessions or retained messages were lost at this start, because `state.redb` was older than what the log has let go of.", |m| flag(m.figures.front.state.is_lost)),
    gauge("forebay_start_took_seconds", "seconds", "Duration of opening the log.", |m| vec![series(&[], m.figures.start.took.as_secs_f64())]),
    gauge("forebay_start_time_seconds", "seconds since 1970", "When the process started, by the machine's clock.", |m| vec![series(&[], m.identity.started_at)]),
    by(&["gateway", "version", "config"], gauge("forebay_build_info", "always 1", "The gateway's id, version and a hash of its configuration.", |m| vec![series(&[&m.identity.gateway, m.identity.version, &m.identity.fingerprint], 1.0)])),
    gauge("forebay_clock_trusted", "0 or 1", "1 if the machine's clock is trusted. While it is not, no record expires by it.", |m| flag(m.figures.clock.report.trust.is_ok())),
    by(&["reason"], gauge("forebay_clock_reason", "0 or 1", "Why the wall clock is trusted (`kernel`, `timesync_file`, `cloud`, `boot`) or not (`not_synchronised`, `unknown`, `past`, `jumped`, `far_ahead`, `cloud_disagrees`).", clock_reason)),
    counter("forebay_clock_jumps_total", "steps", "Steps of the wall clock that the time since the boot does not explain.", |m| one(m.figures.clock.report.jumps)),
    by(&["listener"], gauge("forebay_certificate_expiry_seconds", "seconds", "Time until the listener's certificate expires; negative if it has expired.", |m| m.figures.certificates.iter().map(|(listener, left)| series(&[listener], *left as f64)).collect())),
    gauge("forebay_stale_files", "files", "Files of listeners (certificate, key, CA, CRL) that have changed on disk and are not in use so: restart the gateway to use them.", |m| one(m.figures.stale_files.len() as u64)),
    by(&["outcome"], counter("forebay_trace_spans_total", "spans", "Spans of traces, by outcome: accepted by the collector, or dropped because the queue was full or the collector did not accept them. No series without `admin.otlp`.", traces)),
    by(&["task"], counter("forebay_task_restarts_total", "restarts", "How often a task of the gateway that no message needs ended unasked and was started again. Any other task that ends so ends the process with exit code 70.", |m| m.figures.tasks.restarts.iter().map(|(task, count)| series(&[task], *count as f64)).collect())),
    counter("forebay_log_lines_dropped_total", "lines", "Lines of the gateway's own log (stderr) that were dropped because it was not read fast enough or could not be written. Nothing waits for the log.", |m| one(m.figures.log_lines.total)),
    counter("forebay_admin_foreign_hosts_total", "requests", "Admin requests refused with 421 because their Host is neither an address nor one of `admin.names`. Does Prometheus use a name that is missing there, or does a web page try to read this gateway?", |m| one(m.figures.foreign_hosts)),
    gauge("forebay_accepted_rate", "publishes per second", "Publishes accepted per second, over the last ten seconds.", |m| vec![series(&[], m.look.flow.accepted)]),
    gauge("forebay_delivered_rate", "records per second", "Records delivered per second, over the last ten seconds.", |m| vec![series(&[], m.look.flow.delivered)]),
];

fn clock_reason(moment: &Moment<'_>) -> Vec<Series> {
    let is = match moment.figures.clock.report.trust {
        Ok(source) => source.label(),
        Err(doubt) => doubt.label(),
    };
    let all = TrustSource::ALL.map(TrustSource::label).into_iter().chain(Doubt::LABELS);
    all.map(|label| series(&[label], f64::from(label == is))).collect()
}

fn series(labels: &[&str], value: f64) -> Series {
    Series {
        labels: labels.iter().map(|label| shown(label)).collect(),
        value,
    }
}

/// A label as it may stand on a screen: topics and names are peers' text.
fn shown(label: &str) -> String {
    let shown = |character| if is_safe(character) { character } else { '\u{fffd}' };
    label.chars().map(shown).collect()
}

fn one(value: u64) -> Vec<Series> {
    vec![series(&[], value as f64)]
}

fn flag(value: bool) -> Vec<Series> {
    vec![series(&[], f64::from(value))]
}

fn count(counter: &AtomicU64) -> Vec<Series> {
    one(value(counter))
}

fn labelled<'l>(counts: impl IntoIterator<Item = (&'l str, u64)>) -> Vec<Series> {
    counts.into_iter().map(|(label, count)| series(&[label], count as f64)).collect()
}

fn pairs(counts: &ByLabel) -> impl Iterator<Item = (&str, u64)> {
    counts.iter().map(|(label, count)| (label.as_str(), *count))
}

fn by_reason<R: Copy>(all: &[R], label: fn(R) -> &'static str, count: impl Fn(R) -> u64) -> Vec<Series> {
    labelled(all.iter().map(|reason| (label(*reason), count(*reason))))
}

fn streams(moment: &Moment<'_>, read: fn(&Stream) -> Option<f64>) -> Vec<Series> {
    let streams = moment.figures.log.streams.iter();
    streams.filter_map(|stream| Some(series(&[&stream.name], read(stream)?))).collect()
}

fn oldest(stream: &Stream) -> Option<f64> {
    if stream.waiting == 0 {
        Some(0.0)
    } else {
        stream.oldest.map(|age| age.as_secs_f64())
    }
}

fn disk_errors(moment: &Moment<'_>) -> Vec<Series> {
    labelled(DiskCall::ALL.map(|call| (call.label(), moment.stats.log.disk_errors.of(call))))
}

fn removed_quarantined(moment: &Moment<'_>) -> Vec<Series> {
    let removed = &moment.stats.log.removed_quarantined;
    labelled([
        ("age", value(&removed.age)),
        ("bound", value(&removed.bound)),
        ("room", value(&removed.room)),
    ])
}

fn traces(moment: &Moment<'_>) -> Vec<Series> {
    let outcomes = |counts: &Counts| {
        labelled([
            ("exported", value(&counts.exported)),
            ("queue_full", value(&counts.queue_full)),
            ("export_failed", value(&counts.export_failed)),
        ])
    };
    moment.figures.traces.iter().flat_map(|counts| outcomes(counts)).collect()
}

fn cloud(moment: &Moment<'_>, read: fn(&Cloud) -> f64) -> Vec<Series> {
    moment.figures.cloud.iter().map(|cloud| series(&[], read(cloud))).collect()
}

fn denied(moment: &Moment<'_>) -> Vec<Series> {
    let Some(cloud) = &moment.figures.cloud else { return vec![] };
    let mut routes: std::collections::BTreeMap<&str, f64> = std::collections::BTreeMap::new();
    for route in &cloud.status.suspended_routes {
        routes.insert(route, 0.0);
    }
    for pair in &cloud.status.suspended {
        *routes.entry(&pair.route).or_default() += 1.0;
    }
    routes
        .into_iter()
        .map(|(route, devices)| series(&[route], devices.max(1.0)))
        .collect()
}

/// What a device chose, short enough for a label.
fn cut(text: &str) -> &str {
    const MAX: usize = 128;
    let end = (0..=MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or_default()]
}

fn bridge(moment: &Moment<'_>, read: fn(&forebay_bridge::Stats) -> &AtomicU64) -> Vec<Series> {
    moment.stats.cloud.map_or_else(Vec::new, |stats| count(read(stats)))
}

fn refused_by_cloud(moment: &Moment<'_>) -> Vec<Series> {
    let refused = moment.stats.cloud.into_iter().flat_map(forebay_bridge::Stats::refused);
    refused
        .map(|(code, count)| series(&[&format!("0x{code:02x}")], count as f64))
        .collect()
}
