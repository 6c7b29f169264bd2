//! The figures of real parts: a log on disk, a bound front, a bridge's handle.

use std::path::Path;

use forebay_broker::{AccessRules, AdmitAll, Front, Limits, ListenerConfig, LocalFanout, Parts, Routes, tls::IdentityTemplate};
use forebay_wal::{Batch, Clock as _, CommitError, CommitListener, Log, NewRecord, Options, StreamOptions, SystemClock, WhenFull};
use tokio_util::sync::CancellationToken;

use super::*;

const CONFIG: &str = "gateway: {id: plant-7, data_dir: data, max_disk: 64MiB, keep_free: 0, survive: {outage: 3h}}\n\
                      listeners: [{bind: 127.0.0.1:0}]\n\
                      streams: [{name: alarms, max_bytes: 1MiB, when_full: refuse}]\n";

struct Ignore;

impl CommitListener for Ignore {
    fn committed(&self, _batch: Batch) {}
    fn failed(&self, _batch: Batch, error: &CommitError) {
        panic!("{error}");
    }
}

/// Telemetry of real parts, and what must live as long.
async fn observed(directory: &Path) -> (Telemetry, Log, Front) {
    let config = crate::config::parse(CONFIG, directory, &crate::config::Overrides::default()).unwrap_or_else(|error| panic!("{error}"));
    let telemetry = Telemetry::new("plant-7", "cafe0123").unwrap();
    let clock = Arc::new(SystemClock::new(0));
    let fanout = LocalFanout::start().unwrap();
    let options = Options {
        directory: directory.join("log"),
        max_disk: 64 << 20,
        keep_free: 0,
        commit_wait: Duration::ZERO,
        max_devices: 10,
        streams: vec![StreamOptions {
            name: "alarms".to_owned(),
            max_bytes: 1 << 20,
            max_age: None,
            when_full: WhenFull::Refuse,
        }],
    };
    let opened = Log::open(options, clock.clone(), telemetry.wal_observer(), Some(fanout.tap())).unwrap();
    let front = forebay_broker::Config {
        gateway: "plant-7".to_owned(),
        listeners: vec![ListenerConfig {
            bind: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            identity: IdentityTemplate::parse("local").unwrap(),
        }],
        access: AccessRules(vec![]),
        routes: Routes::new(vec![]),
        limits: Limits::default(),
        state: directory.join("state.redb"),
    };
    let (watch, witness) = crate::monitor::signals::start(&config, clock.clone(), telemetry.broker_observer()).unwrap();
    let parts = Parts {
        log: opened.log.clone(),
        fanout,
        admission: Arc::new(AdmitAll),
        clock: clock.clone(),
        observer: Arc::new(witness),
    };
    let front = Front::bind(front, parts, CancellationToken::new()).await.unwrap();
    let not_after = i64::try_from(clock.now().wall_ms / 1000).unwrap() + 100;
    let ends = crate::monitor::certificate_ends::CertificateEnds::default();
    ends.note("127.0.0.1:8883", not_after);
    let sources = Sources {
        view: front.view(),
        log: opened.log.clone(),
        bridge: Some(forebay_bridge::Handle::new()),
        report: opened.report,
        clock,
        judged: forebay_broker::tls::CertificateClock::fixed(forebay_wal::wall_clock()),
        certificates: ends,
        files: Default::default(),
        cloud_files: Arc::new(|| None),
        watch,
        canary: None,
        check: crate::monitor::self_check::SelfCheck::default(),
        tasks: crate::monitor::tasks::Tasks::new(),
        shortage: None,
    };
    telemetry.observe(sources, &config).unwrap();
    (telemetry, opened.log, front)
}

#[tokio::test]
async fn running_parts_feed_the_figures() {
    let directory = tempfile::tempdir().unwrap();
    let (telemetry, log, _front) = observed(directory.path()).await;
    let start = telemetry.look(Instant::now()).unwrap();
    assert!(not_ready(&start).is_empty(), "{:?}", not_ready(&start));
    assert!(start.figures.start.clean && start.figures.front.fanout_alive);
    assert_eq!(
        (start.figures.survive_outage, start.figures.log.max_disk),
        (Duration::from_secs(3 * 3600), 64 << 20)
    );
    assert!((90..=100).contains(&start.figures.certificates[0].1));
    assert!(start.figures.log.streams[0].refuses, "the policy comes from the configuration");

    let record = NewRecord {
        stream: log.stream("alarms").unwrap(),
        received: SystemClock::new(0).now(),
        identity: "d1",
        route: "devices/#",
        topic: "devices/d1/alarm",
        payload: b"hot",
        qos: 1,
        retain: false,
        expiry: None,
        properties: &[],
    };
    log.producer(Arc::new(Ignore)).append(&[record]).unwrap();
    let committed = async {
        while value(&log.stats().records_committed) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), committed)
        .await
        .expect("the record is committed");
    assert_eq!(telemetry.source().unwrap().ledger().accepted, 1);
    log.close().unwrap();

    let page = telemetry.metrics(Instant::now()).unwrap();
    parse(&page);
    for line in [
        "forebay_committed_records_total 1",
        "forebay_waiting_records{stream=\"alarms\"} 1",
        "forebay_cloud_connected 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
    }
    assert!(page.contains("forebay_commit_latency_seconds_count"), "{page}");
}

#[tokio::test]
async fn a_second_gateway_is_not_watched() {
    let telemetry = watching(&Fake::new());
    assert!(telemetry.watch(Box::new(Fake::new())).is_err());
}
