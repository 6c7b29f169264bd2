//! A log, a bridge and the stand-in cloud, all in one process.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod scripted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay_aws_standin::{Entry, Standin, StandinConfig};
use forebay_bridge::{Backoff, BridgeStatus, CloudLimits, Config, Handle, Mapping, Qos, Route, Version};
use forebay_topic::{Template, TopicFilter};
use forebay_wal::testing::{ManualClock, Unobserved};
use forebay_wal::{Batch, Clock, CommitError, CommitListener, Log, NewRecord, Options, Producer, StreamOptions, WhenFull};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Nothing here should take so long; a promise that does not hold fails the test instead of hanging it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) cloud: Standin,
    pub(crate) log: Log,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) config: Config,
    pub(crate) bridge: Option<Bridge>,
    /// Beside those that each rig has.
    pub(crate) routes: Vec<Route>,
    producer: Producer,
    committed: Arc<Committed>,
    directory: tempfile::TempDir,
    next: BTreeMap<String, u64>,
}

pub(crate) struct Bridge {
    pub(crate) handle: Handle,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Committed(AtomicU64);

impl CommitListener for Committed {
    fn committed(&self, batch: Batch) {
        self.0.store(batch.0, Ordering::SeqCst);
    }

    fn failed(&self, batch: Batch, error: &CommitError) {
        panic!("batch {batch:?}: {error}");
    }
}

struct Ages;

impl forebay_bridge::Observer for Ages {
    fn delivered(&self, _age: Duration, _late: bool) {}
}

impl Rig {
    /// A cloud, a log with the streams `alarms` and `telemetry`, and a configuration with short times. No bridge yet.
    pub(crate) async fn new(version: Version, cloud: StandinConfig) -> Self {
        let cloud = Standin::start(cloud).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::trusted());
        let stream = |name: &str| StreamOptions {
            name: name.to_owned(),
            max_bytes: 256 << 20,
            max_age: None,
            when_full: WhenFull::Refuse,
        };
        let options = Options {
            directory: directory.path().join("log"),
            max_disk: 1 << 30,
            keep_free: 0,
            commit_wait: Duration::ZERO,
            max_devices: 100,
            streams: vec![stream("alarms"), stream("telemetry")],
        };
        let log = Log::open(
            options,
            Arc::<ManualClock>::clone(&clock) as Arc<dyn Clock>,
            Arc::new(Unobserved),
            None,
        )
        .unwrap()
        .log;
        let committed = Arc::new(Committed::default());
        let producer = log.producer(Arc::<Committed>::clone(&committed) as Arc<dyn CommitListener>);
        let mut config = Config::mqtt("plant-7", "localhost");
        config.port = cloud.address().port();
        config.version = version;
        config.ack_timeout = Duration::from_millis(400);
        config.backoff = Backoff {
            initial: Duration::from_millis(20),
            ceiling: Duration::from_millis(200),
            connect_spacing: Duration::from_millis(5),
            stable_after: Duration::from_secs(30),
        };
        config.probe_interval = Duration::from_millis(200);
        config.quiet_before_alone = Duration::from_millis(30);
        Self {
            cloud,
            log,
            clock,
            config,
            bridge: None,
            routes: Vec::new(),
            producer,
            committed,
            directory,
            next: BTreeMap::new(),
        }
    }

    pub(crate) async fn plain(version: Version) -> Self {
        Self::new(version, StandinConfig::default()).await
    }

    pub(crate) fn start(&mut self) {
        let (handle, shutdown) = (Handle::new(), CancellationToken::new());
        let clock = Arc::<ManualClock>::clone(&self.clock) as Arc<dyn Clock>;
        let run = forebay_bridge::run(
            self.config.clone(),
            self.log.clone(),
            Arc::new(mapping(self.routes.clone())),
            handle.clone(),
            Arc::new(Ages),
            clock,
            shutdown.clone(),
        );
        self.bridge = Some(Bridge {
            handle,
            shutdown,
            task: tokio::spawn(run),
        });
    }

    pub(crate) async fn stop(&mut self) {
        let mut bridge = self.bridge.take().unwrap();
        bridge.shutdown.cancel();
        tokio::time::timeout(DEADLINE, &mut bridge.task).await.unwrap().unwrap();
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.bridge.as_ref().unwrap().handle
    }

    pub(crate) fn status(&self) -> BridgeStatus {
        self.handle().status()
    }

    /// Appends the device's next `count` numbered messages to `telemetry`.
    pub(crate) fn publish(&mut self, device: &str, count: u64) {
        for _ in 0..count {
            let seq = self.next.entry(device.to_owned()).or_default();
            *seq += 1;
            let payload = format!("{{\"device\":\"{device}\",\"seq\":{seq}}}");
            self.append(
                "telemetry",
                device,
                &format!("devices/{device}/telemetry/t"),
                payload.as_bytes(),
                |_| {},
            );
        }
    }

    /// Appends one record, changed as the test wants.
    pub(crate) fn append(&mut self, stream: &str, device: &str, topic: &str, payload: &[u8], change: impl FnOnce(&mut NewRecord<'_>)) {
        let mut record = NewRecord {
            stream: self.log.stream(stream).unwrap(),
            received: self.clock.now(),
            identity: device,
            route: stream,
            topic,
            payload,
            qos: 1,
            retain: false,
            expiry: None,
            properties: &[],
        };
        change(&mut record);
        self.producer.append(&[record]).unwrap();
    }

    /// Waits for a condition that some part of this process brings about.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(DEADLINE, waiting).await.is_err() {
            let state = self
                .bridge
                .as_ref()
                .map(|bridge| (bridge.handle.status(), format!("{:?}", bridge.handle.stats())));
            panic!(
                "not within {DEADLINE:?}: {what}\n{state:#?}\n{:?}\n{:?}",
                self.cloud.ledger().report(),
                self.log.status()
            );
        }
    }

    /// Waits until nothing waits in the log.
    pub(crate) async fn drained(&self) {
        self.until("the log is drained", |rig| rig.waiting() == 0).await;
    }

    /// Waits until so many different messages are in the cloud.
    pub(crate) async fn unique(&self, count: u64) {
        self.until(&format!("{count} messages in the cloud"), |rig| {
            rig.cloud.ledger().unique() >= count
        })
        .await;
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.log.status().streams.iter().map(|stream| stream.waiting).sum()
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.handle().stats().delivered.load(Ordering::Relaxed)
    }

    /// No loss, no violation, no order broken, and at most so many duplicates.
    pub(crate) fn assert_whole(&self, unique: u64, duplicates: u64) {
        let report = self.cloud.ledger().report();
        assert_eq!(report.unique, unique, "{report:?}");
        assert!(report.duplicates <= duplicates, "{report:?}");
        assert_eq!((report.gaps, report.out_of_order), (0, 0), "{report:?}");
        assert_eq!(self.cloud.violations(), Vec::<String>::new());
    }

    /// What the cloud committed of a topic, each payload once, in the order of its first arrival.
    pub(crate) fn first_arrivals(&self, topic: &str) -> Vec<String> {
        let entries: Vec<Entry> = self.cloud.ledger().entries();
        let fresh = entries.into_iter().filter(|entry| entry.topic == topic && !entry.duplicate);
        fresh
            .map(|entry| String::from_utf8_lossy(&entry.payload.unwrap()).into_owned())
            .collect()
    }

    pub(crate) fn dead(&self, reason: &str) -> u64 {
        self.handle().stats().dead().find(|(known, _)| *known == reason).unwrap().1
    }

    pub(crate) fn ended(&self, label: &str) -> u64 {
        self.handle()
            .stats()
            .reconnects()
            .find(|(ended, _)| ended.label() == label)
            .unwrap()
            .1
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(crate) fn route(name: &str, from: &str, to: &str, qos: Qos) -> Route {
    Route {
        name: name.to_owned(),
        from: TopicFilter::parse(from).unwrap(),
        to: Template::parse(to).unwrap(),
        qos,
        keep_retain: false,
    }
}

fn mapping(more: Vec<Route>) -> Mapping {
    let mut routes = vec![
        route("alarms", "devices/+/alarm", "al/{device}", Qos::AtLeastOnce),
        route("telemetry", "devices/+/telemetry/#", "dt/{device}/{#}", Qos::AtLeastOnce),
        route("lossy", "devices/+/lossy", "lossy/{device}", Qos::AtMostOnce),
    ];
    routes.extend(more);
    Mapping::new("plant-7", routes, CloudLimits::aws_iot()).unwrap()
}
