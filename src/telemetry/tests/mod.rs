//! What `/metrics` shows is what the catalogue says, and Prometheus can read it.

mod running;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use forebay_bridge::{BridgeStatus, LastError, State, Suspension};
use forebay_broker::{Bound, BoundStatus, DeviceStatus, RouteStatus, UnroutedTopic};
use forebay_wal::{Audit, BootId, ClockReport, StartReport, Timestamp, TrustSource};

use super::figures::{Clock, Cloud, Figures, Front, Log, Stats, Stream};
use super::markdown::markdown;
use super::*;
use crate::logging::Losses;
use crate::monitor::canary::CanaryFigures;
use crate::monitor::self_check::{Expiry, Findings};
use crate::monitor::signals::{Counters, Moment, Report, SIGNALS, Trouble};
use crate::monitor::tasks::TaskFigures;

/// A source that says what a test wants.
pub(crate) struct Fake {
    pub(crate) figures: Mutex<Figures>,
    pub(crate) front: forebay_broker::Stats,
    pub(crate) log: forebay_wal::Stats,
    pub(crate) bridge: forebay_bridge::Stats,
    pub(crate) watch: Counters,
    pub(crate) counted: Counted,
    pub(crate) devices: Vec<DeviceStatus>,
    pub(crate) unrouted: Vec<UnroutedTopic>,
    pub(crate) ledger: Audit,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let front = forebay_broker::Stats::default();
        front.accepted.store(1234, Ordering::Relaxed);
        let mut watch = Counters::default();
        watch.seen = [("devices/+/t".to_owned(), 10.into())].into();
        watch.fields = [[("/temp".to_owned(), 9.into())].into()].into();
        Arc::new(Self {
            figures: Mutex::new(figures()),
            front,
            log: forebay_wal::Stats::default(),
            bridge: forebay_bridge::Stats::default(),
            watch,
            counted: Counted::default(),
            devices: vec![],
            unrouted: vec![],
            ledger: Audit::default(),
        })
    }
}

impl Source for Arc<Fake> {
    fn figures(&self) -> Figures {
        lock(&self.figures).clone()
    }
    fn stats(&self) -> Stats<'_> {
        let has_cloud = lock(&self.figures).cloud.is_some();
        Stats {
            front: &self.front,
            log: &self.log,
            cloud: has_cloud.then_some(&self.bridge),
            watch: &self.watch,
        }
    }
    fn counted(&self) -> Counted {
        self.counted.clone()
    }
    fn devices(&self) -> Vec<DeviceStatus> {
        self.devices.clone()
    }
    fn unrouted(&self, limit: usize) -> Vec<UnroutedTopic> {
        self.unrouted.iter().take(limit).cloned().collect()
    }
    fn history(&self, _identity: &str) -> Vec<Moment> {
        vec![Moment {
            at_ms: 1_800_000_000_000,
            what: "keep_alive".to_owned(),
            address: "10.0.0.7:4711".to_owned(),
        }]
    }
    fn ledger(&self) -> Audit {
        self.ledger
    }
}

fn by(label: &str, count: u64) -> Vec<(String, u64)> {
    vec![(label.to_owned(), count)]
}

fn route(name: &str, matched: u64) -> RouteStatus {
    RouteStatus {
        name: name.to_owned(),
        is_cloud: true,
        matched,
        last: (matched > 0).then(|| Duration::from_secs(4)),
    }
}

fn bounds() -> Vec<BoundStatus> {
    let status = |bound: &Bound| BoundStatus {
        bound: *bound,
        reached: 0,
        taken: Some((1, 2)),
        lasting: None,
    };
    Bound::ALL.iter().map(status).collect()
}

/// A gateway in good health, with a series for every instrument.
pub(crate) fn figures() -> Figures {
    let now = Timestamp {
        wall_ms: 1_800_000_000_000,
        boot: BootId(1),
        monotonic_ms: 5,
        trusted: true,
    };
    let stream = |name: &str, refuses| Stream {
        name: name.to_owned(),
        waiting: 3,
        waiting_bytes: 4096,
        max_bytes: 1 << 20,
        oldest: Some(Duration::from_secs(9)),
        refuses,
    };
    Figures {
        front: Front {
            fanout_alive: true,
            routes: vec![route("devices/+/alarm", 5), route("devices/+/telemetry", 0)],
            wrong_names: by("gateway.local", 0),
            bounds: bounds(),
            ..Front::default()
        },
        log: Log {
            streams: vec![stream("alarms", true), stream("telemetry", false)],
            disk_bytes: 8 << 20,
            max_disk: 1 << 30,
            free_bytes: 1 << 40,
            keep_free: 1 << 20,
            ..Log::default()
        },
        cloud: Some(Cloud {
            status: BridgeStatus {
                state: State::Connected,
                connected_since: Some(now),
                messages_per_second: Some(90.0),
                ..BridgeStatus::default()
            },
        }),
        start: StartReport {
            new: false,
            clean: true,
            recovered: 2,
            damaged: 0,
            quarantined: 0,
            took: Duration::from_millis(30),
        },
        clock: Clock {
            report: ClockReport {
                now,
                trust: Ok(TrustSource::Kernel),
                jumps: 0,
                asleep: Duration::ZERO,
                since_start: Duration::from_secs(600),
            },
            last_trusted: Some(now),
        },
        certificates: vec![("0.0.0.0:8883".to_owned(), 90 * 86_400)],
        stale_files: vec![],
        restart_is_pending: false,
        installed_version: None,
        cloud_files: None,
        survive_outage: Duration::from_secs(12 * 3600),
        traces: Some(Arc::default()),
        survive_bytes: 16_000.0,
        signals: Arc::default(),
        canary: Some(CanaryFigures {
            interval: Duration::from_secs(300),
            sent: 3,
            acked: 2,
            failed: by("lost", 1),
            ..CanaryFigures::default()
        }),
        check: Some(Arc::new(Findings::default())),
        now: 1_800_000_000,
        shortage: None,
        tasks: TaskFigures {
            restarts: vec![("canary".to_owned(), 0), ("self-check".to_owned(), 0)],
            ..TaskFigures::default()
        },
        log_lines: Losses::default(),
        foreign_hosts: 0,
        judged: 1_800_000_000,
    }
}

/// The cloud denies one pair, and the link had trouble.
pub(crate) fn trouble(figures: &mut Figures) {
    let at = Timestamp {
        wall_ms: 1_800_000_000_000,
        boot: BootId(1),
        monotonic_ms: 5,
        trusted: true,
    };
    let status = &mut figures.cloud.as_mut().unwrap().status;
    status.state = State::BackingOff { until: at };
    status.last_error = Some(LastError {
        text: "the name cannot be resolved; check DNS".to_owned(),
        at,
        times: 4,
    });
    let pair = Suspension {
        stream: "telemetry".to_owned(),
        route: "devices/+/t".to_owned(),
        identity: "d1".to_owned(),
    };
    status.suspended = vec![pair];
}

/// The same with what is reckoned.
pub(crate) fn look() -> Look {
    Look {
        figures: figures(),
        flow: Flow::default(),
        autonomy: None,
        log_stalled: None,
        commit_slow: None,
        outlook: vec![],
        within_a_day: Counted::default(),
    }
}

/// Telemetry that watches a fake.
pub(crate) fn watching(fake: &Arc<Fake>) -> Telemetry {
    let telemetry = Telemetry::new("plant-7", "cafe0123").unwrap();
    telemetry.watch(Box::new(Arc::clone(fake))).unwrap();
    telemetry
}

/// One of each trouble, so that every listed instrument has a series.
pub(crate) fn everything(figures: &mut Figures) {
    let troubles = SIGNALS.map(|signal| Trouble {
        signal,
        device: "d1".to_owned(),
        topic: "devices/d1/t".to_owned(),
        detail: "/temp".to_owned(),
        value: 17.0,
        weight: 1.0,
        lasts: Duration::from_secs(60),
        text: format!("is in trouble: {}", signal.label()),
    });
    figures.signals = Arc::new(Report {
        series: 4,
        troubles: troubles.into(),
        count: SIGNALS.into_iter().map(|signal| (signal, 3)).collect(),
    });
    figures.check = Some(Arc::new(Findings {
        at: 1_800_000_000,
        report: crate::check::Report {
            findings: vec![crate::check::Finding {
                severity: crate::check::Severity::Error,
                area: "disk",
                text: "it is too small".to_owned(),
                hint: Some("make it larger".to_owned()),
            }],
        },
        file: crate::monitor::self_check::FileState::Differs,
        expiries: vec![Expiry {
            what: "crl",
            file: "devices.crl".to_owned(),
            ends: 1_800_003_600,
        }],
        new_errors: 2,
        ..Findings::default()
    }));
    figures.canary.as_mut().unwrap().round_trip = Some(Duration::from_millis(80));
    let status = &mut figures.cloud.as_mut().unwrap().status;
    let pair = |identity: &str| Suspension {
        stream: "telemetry".to_owned(),
        route: "devices/+/t".to_owned(),
        identity: identity.to_owned(),
    };
    status.suspended = vec![pair("d1"), pair("d2")];
}

/// The page with every distribution recorded once.
fn full_page() -> String {
    let mut fake = Arc::into_inner(Fake::new()).unwrap();
    everything(fake.figures.get_mut().unwrap());
    fake.unrouted = vec![UnroutedTopic {
        topic: "é".repeat(200),
        count: 4,
        nearest: Some(("devices/#".to_owned(), 1)),
    }];
    let telemetry = watching(&Arc::new(fake));
    telemetry.wal_observer().committed(Duration::from_millis(3), 5, 500);
    telemetry.broker_observer().acked(Duration::from_millis(4), 3);
    telemetry.bridge_observer().delivered(Duration::from_millis(70), false);
    telemetry.bridge_observer().delivered(Duration::from_secs(7200), true);
    telemetry.metrics(Instant::now()).unwrap()
}

/// One sample line: name, labels as written, value.
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
}

/// Reads the text format strictly: HELP, TYPE, then the samples of that family, nothing else.
fn parse(page: &str) -> BTreeMap<&str, (&str, Vec<Sample<'_>>)> {
    let mut families: BTreeMap<&str, (&str, Vec<Sample<'_>>)> = BTreeMap::new();
    let (mut family, mut series) = ("", BTreeSet::new());
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split_once(' ').expect("a HELP has a text").0;
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family, "TYPE follows its HELP");
            assert!(families.insert(name, (kind, vec![])).is_none(), "{name} stands twice");
        } else {
            let (head, value) = line.rsplit_once(' ').expect("a sample has a value");
            let (name, labels) = head
                .split_once('{')
                .map_or((head, ""), |(name, rest)| (name, rest.strip_suffix('}').expect("closed")));
            let suffix = name.strip_prefix(family).expect("a sample belongs to its family");
            let (kind, samples) = families.get_mut(family).unwrap();
            let allowed: &[&str] = if *kind == "histogram" {
                &["_bucket", "_sum", "_count"]
            } else {
                &[""]
            };
            assert!(allowed.contains(&suffix), "{line}");
            assert!(series.insert(head), "{head} stands twice");
            assert!(page.ends_with('\n'));
            samples.push(Sample {
                name,
                labels,
                value: value.parse().expect("a number"),
            });
        }
    }
    families
}

#[test]
fn exactly_the_catalogue_is_exposed() {
    let page = full_page();
    let families = parse(&page);
    let shown: BTreeSet<_> = families.keys().copied().collect();
    let known: BTreeSet<_> = instruments().map(|instrument| instrument.name).collect();
    assert_eq!(shown, known);
    assert_eq!(known.len(), instruments().count(), "a name stands twice in the catalogue");
    for instrument in instruments() {
        let (kind, samples) = &families[instrument.name];
        let expected = match instrument.kind {
            Kind::Counter(_) => "counter",
            Kind::Gauge(_) => "gauge",
            Kind::Histogram(_) => "histogram",
            Kind::ListedCounter(_) => "counter",
            Kind::ListedGauge(_) => "gauge",
        };
        assert_eq!(*kind, expected, "{}", instrument.name);
        for sample in samples {
            let labels: BTreeSet<_> = sample
                .labels
                .split("\",")
                .filter_map(|pair| Some(pair.split_once('=')?.0))
                .collect();
            let mut wanted: BTreeSet<_> = instrument.labels.iter().copied().collect();
            if sample.name.ends_with("_bucket") {
                wanted.insert("le");
            }
            assert_eq!(labels, wanted, "{}", sample.name);
        }
    }
}

/// The rules of `promtool check metrics`.
#[test]
fn names_keep_the_rules_of_prometheus() {
    for instrument in instruments() {
        let name = instrument.name;
        assert!(
            name.starts_with("forebay_") && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
            "{name}"
        );
        assert!(
            !instrument.question.is_empty() && instrument.question.ends_with(['.', '?']),
            "{name}"
        );
        assert_eq!(
            name.ends_with("_total"),
            matches!(instrument.kind, Kind::Counter(_) | Kind::ListedCounter(_)),
            "{name}"
        );
        let words: Vec<_> = name.split('_').collect();
        for word in [
            "count",
            "sum",
            "bucket",
            "counter",
            "gauge",
            "histogram",
            "summary",
            "ms",
            "milliseconds",
            "minutes",
            "hours",
            "days",
            "kb",
            "mb",
        ] {
            assert!(!words.contains(&word), "{name} has {word}");
        }
        for unit in ["seconds", "bytes"] {
            let says = words.contains(&unit);
            let is = instrument.unit.split(' ').next() == Some(unit);
            assert_eq!(says, is, "{name} is in {}", instrument.unit);
        }
        assert!(instrument.labels.iter().all(|label| !["le", "quantile"].contains(label)), "{name}");
    }
}

#[test]
fn a_counter_is_read_at_the_scrape_and_a_distribution_has_its_own_bounds() {
    let page = full_page();
    let families = parse(&page);
    assert_eq!(families["forebay_accepted_total"].1[0].value, 1234.0);
    let value = |name: &str, labels: &str| {
        let samples = families.values().flat_map(|(_, samples)| samples);
        let found: Vec<_> = samples
            .filter(|sample| sample.name == name && sample.labels == labels)
            .map(|sample| sample.value)
            .collect();
        assert_eq!(found.len(), 1, "{name}{{{labels}}}");
        found[0]
    };
    assert_eq!(value("forebay_ack_latency_seconds_count", ""), 3.0);
    assert_eq!(value("forebay_commit_latency_seconds_bucket", "le=\"0.002\""), 0.0);
    assert_eq!(value("forebay_commit_latency_seconds_bucket", "le=\"0.004\""), 1.0);
    assert_eq!(value("forebay_delivery_age_seconds_bucket", "late=\"true\",le=\"3600\""), 0.0);
    assert_eq!(value("forebay_delivery_age_seconds_bucket", "late=\"true\",le=\"+Inf\""), 1.0);
    assert_eq!(value("forebay_oldest_age_seconds", "stream=\"telemetry\""), 9.0);
    assert_eq!(
        value(
            "forebay_build_info",
            &format!("config=\"cafe0123\",gateway=\"plant-7\",version=\"{}\"", env!("CARGO_PKG_VERSION"))
        ),
        1.0
    );
}

#[test]
fn without_a_cloud_its_series_are_missing_and_all_others_there() {
    let fake = Fake::new();
    lock(&fake.figures).cloud = None;
    lock(&fake.figures).canary = None;
    let page = watching(&fake).metrics(Instant::now()).unwrap();
    assert!(
        !page.contains("forebay_cloud_") && page.contains("forebay_waiting_records"),
        "{page}"
    );
}

#[test]
fn an_age_that_cannot_be_proved_is_not_shown() {
    let fake = Fake::new();
    lock(&fake.figures).log.streams[0].oldest = None;
    lock(&fake.figures).log.streams[1].waiting = 0;
    let page = watching(&fake).metrics(Instant::now()).unwrap();
    assert!(!page.contains("forebay_oldest_age_seconds{stream=\"alarms\"}"));
    assert!(page.contains("forebay_oldest_age_seconds{stream=\"telemetry\"} 0\n"));
}

#[test]
fn autonomy_is_what_fits_at_the_rate_that_comes() {
    let fake = Fake::new();
    let (telemetry, start) = (watching(&fake), Instant::now());
    assert_eq!(telemetry.look(start).unwrap().autonomy, None);
    fake.log.bytes_committed.store(2000 * 10, Ordering::Relaxed);
    let headroom = 2.0 * ((1 << 20) - 4096) as f64;
    let autonomy = telemetry.look(start + Duration::from_secs(10)).unwrap().autonomy;
    assert_eq!(autonomy, Some(headroom / 2000.0));
    lock(&fake.figures).log.streams[1].waiting_bytes = (1 << 20) - 100;
    assert_eq!(telemetry.look(start + Duration::from_secs(11)).unwrap().autonomy, Some(0.0));
}

#[test]
fn headroom_is_the_nearest_of_the_bounds() {
    let mut log = figures().log;
    log.streams.iter_mut().for_each(|stream| stream.max_bytes = 1 << 40);
    assert_eq!(log.headroom(), (((1 << 30) - (8 << 20)) / 3) * 2, "max_disk");
    log.free_bytes = log.keep_free + (4 << 20);
    assert_eq!(log.headroom(), ((4 << 20) / 3) * 2, "the file system");
    log.unavailable = Some("the disk is at its bound".to_owned());
    assert_eq!(log.headroom(), 0);
}

#[test]
fn metrics_page_is_the_catalogue() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("FOREBAY_BLESS").is_some() {
        std::fs::write(&path, markdown()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == markdown(),
        "docs/metrics.md is not what the catalogue gives. Make it with: FOREBAY_BLESS=1 cargo test --bin forebay metrics_page"
    );
}

#[test]
fn a_series_of_what_is_over_goes() {
    let fake = Fake::new();
    let telemetry = watching(&fake);
    everything(&mut lock(&fake.figures));
    let during = telemetry.metrics(Instant::now()).unwrap();
    for line in [
        "forebay_device_silent_seconds{device=\"d1\",topic=\"devices/d1/t\"} 17",
        "forebay_device_missing{device=\"d1\",range=\"/temp\",topic=\"devices/d1/t\"} 17",
        "forebay_watch_trouble{signal=\"silent\"} 3",
        "forebay_watch_unlisted{signal=\"silent\"} 2",
        "forebay_cloud_denied{route=\"devices/+/t\"} 2",
        "forebay_expiry_seconds{file=\"devices.crl\",what=\"crl\"} 3600",
        "forebay_deadline_seconds{what=\"crl\"} 3600",
    ] {
        assert!(during.lines().any(|found| found == line), "{line} is not in\n{during}");
    }
    *lock(&fake.figures) = figures();
    let after = telemetry.metrics(Instant::now()).unwrap();
    for name in [
        "forebay_device_silent_seconds{",
        "forebay_cloud_denied{",
        "forebay_deadline_seconds{",
    ] {
        assert!(during.contains(name) && !after.contains(name), "{name}");
    }
    assert!(after.contains("forebay_watch_trouble{signal=\"silent\"} 0\n"), "{after}");
}

#[test]
fn the_number_of_series_is_bounded_by_views() {
    let fake = Fake::new();
    lock(&fake.figures).front.wrong_names = (0..10_000).map(|number| (format!("n{number}"), 1)).collect();
    let page = watching(&fake).metrics(Instant::now()).unwrap();
    let shown = page.lines().filter(|line| line.starts_with("forebay_wrong_name_total{")).count();
    // OpenTelemetry sums the others up in one more.
    assert!((MAX_SERIES - 1..=MAX_SERIES + 1).contains(&shown), "{shown}");
}

#[test]
fn a_topic_in_a_label_is_cut_at_a_character() {
    let page = full_page();
    let line = page.lines().find(|line| line.starts_with("forebay_unrouted_topic_total{")).unwrap();
    assert!(line.contains(&format!("topic=\"{}\"", "é".repeat(64))), "{line}");
}
