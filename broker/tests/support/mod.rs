//! What the tests of the front share: a whole front over a real log on loopback, and clients on the raw codec.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

mod certificates;
mod client;
mod dice;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use forebay_broker::tls::{IdentityTemplate, ServerTls};
use forebay_broker::{
    AccessRule, AccessRules, AdmitAll, Config, Front, FrontError, Limits, ListenerConfig, LocalFanout, Observer, Parts, Route, Routes, View,
};
use forebay_topic::{Template, TopicFilter};
use forebay_wal::testing::{ManualClock, Unobserved};
use forebay_wal::{
    Batch, Clock, CommitError, CommitListener, CommittedBatch, Log, NewRecord, Options, PartitionSet, Record, Settlement, StreamId,
    StreamOptions, Tap, WhenFull,
};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[allow(unused_imports, reason = "not every test needs all of them")]
pub use certificates::Certificates;
#[allow(unused_imports, reason = "not every test needs all of them")]
pub use client::{Client, connect_5, connect_311, id, publish, resume_5, will};
#[allow(unused_imports, reason = "not every test needs it")]
pub use dice::Dice;

/// Long enough for the slowest machine; nothing waits this long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Where routed publishes go.
pub const MAIN: StreamId = StreamId(0);
const PLUG: StreamId = StreamId(1);

/// How a front is set up; what is left out is generous.
#[derive(Clone)]
pub struct Setup {
    pub limits: Limits,
    /// Identity templates, one listener each.
    pub identities: Vec<&'static str>,
    pub tls: Option<Arc<ServerTls>>,
    /// The listeners before this one are plain all the same.
    pub tls_from: usize,
    pub rules: Vec<AccessRule>,
    pub max_bytes: u64,
    pub max_disk: u64,
    pub clock: Arc<ManualClock>,
    pub observer: Arc<dyn Observer>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            identities: vec!["{client_id}"],
            tls: None,
            tls_from: 0,
            rules: vec![rule("*", &["#"], &["#"], &[])],
            max_bytes: 256 << 20,
            max_disk: 1 << 30,
            clock: Arc::new(ManualClock::trusted()),
            observer: Arc::new(Unseen),
        }
    }
}

pub fn rule(who: &str, publish: &[&str], subscribe: &[&str], deny: &[&str]) -> AccessRule {
    let parse = |list: &[&str]| list.iter().map(|text| Template::parse(text).unwrap()).collect();
    AccessRule {
        who: who.to_owned(),
        publish: parse(publish),
        subscribe: parse(subscribe),
        deny: parse(deny),
        max_connections: 4,
        max_packet_311: None,
    }
}

/// A running front. `cloud/#` and `devices/+/telemetry` are routed to the stream `main`; `here/#` is local.
pub struct Bench {
    /// The front has a runtime of its own, so that a test can kill it.
    runtime: Killable,
    pub addresses: Vec<SocketAddr>,
    pub view: View,
    pub log: Log,
    pub gate: Arc<Gate>,
    pub setup: Setup,
    pub directory: Arc<tempfile::TempDir>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), FrontError>>,
}

impl Bench {
    pub async fn new() -> Self {
        Self::start(Setup::default()).await
    }

    pub async fn start(setup: Setup) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), setup).await
    }

    pub async fn start_in(directory: Arc<tempfile::TempDir>, setup: Setup) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let gate = Arc::<Gate>::default();
        let shutdown = CancellationToken::new();
        let starting = start_front(Arc::clone(&directory), setup.clone(), Arc::clone(&gate), shutdown.clone());
        let (front, log) = runtime.spawn(starting).await.unwrap();
        let (addresses, view) = (front.addresses().to_vec(), front.view());
        let running = runtime.spawn(front.run(Duration::from_secs(20)));
        Self {
            addresses,
            view,
            log,
            gate: Arc::clone(&gate),
            setup,
            directory,
            shutdown,
            runtime: Killable(Some(runtime), gate),
            running,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// From now on the next commit is announced, but its batch reaches the fan-out, and another commit begins, only after
    /// [`Gate::open`].
    pub fn hold_after_the_next_commit(&self) {
        self.gate.close();
    }

    /// Holds all commits back from now on, until [`Gate::open`].
    pub async fn hold_commits(&self) {
        self.gate.close();
        let mut producer = self.log.producer(Arc::new(Ignore));
        producer.append(&[self.record(PLUG, b"plug")]).unwrap();
        let gate = Arc::clone(&self.gate);
        tokio::task::spawn_blocking(move || gate.wait_until_blocked()).await.unwrap();
    }

    /// Puts `bytes` into the open batch, on a stream that no route names.
    pub fn append_bulk(&self, bytes: usize) {
        let mut producer = self.log.producer(Arc::new(Ignore));
        let payload = vec![0; 1 << 20];
        for _ in 0..bytes.div_ceil(payload.len()) {
            producer.append(&[self.record(PLUG, &payload)]).unwrap();
        }
    }

    fn record<'a>(&self, stream: StreamId, payload: &'a [u8]) -> NewRecord<'a> {
        NewRecord {
            stream,
            received: self.setup.clock.now(),
            identity: "plug",
            route: "plug",
            topic: "plug",
            payload,
            qos: 0,
            retain: false,
            expiry: None,
            properties: &[],
        }
    }

    /// All waiting records of the stream `main`.
    pub async fn records(&self) -> Vec<Record> {
        let mut reader = self.log.reader(MAIN, PartitionSet::ALL);
        tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            loop {
                let records = reader.read(1 << 20).unwrap();
                if records.is_empty() {
                    return all;
                }
                all.extend(records);
            }
        })
        .await
        .unwrap()
    }

    /// Settles all that waits in the stream `main`, as the cloud would.
    pub async fn deliver_all(&self) {
        for record in self.records().await {
            self.log.settle(MAIN, record.id.offset, Settlement::Delivered);
        }
    }

    /// Shuts down as SIGTERM does; gives what is needed to start again, and how long it took.
    pub async fn stop(self) -> (Arc<tempfile::TempDir>, Setup, Duration) {
        let began = std::time::Instant::now();
        self.shutdown.cancel();
        within("the front stops", self.running).await.unwrap().unwrap();
        let took = began.elapsed();
        self.log.close().unwrap();
        drop(self.runtime);
        (self.directory, self.setup, took)
    }

    /// Ends without an answer or a DISCONNECT, as far as a process can do that to itself.
    pub fn kill(self) -> (Arc<tempfile::TempDir>, Setup) {
        drop(self.runtime);
        self.log.close().unwrap();
        (self.directory, self.setup)
    }

    /// Whether the front still serves: a new client connects, and its own message comes back to it through the fan-out.
    pub async fn assert_serves(&self, what: &str) {
        let mut probe = Client::connected(self.address(), connect_5("probe")).await;
        probe.subscribe(1, "probe/#").await;
        probe.send(&publish("probe/x", 1, Some(2))).await;
        let mut seen = (false, false);
        while seen != (true, true) {
            match within(what, probe.receive()).await {
                Some(forebay_broker::codec::Packet::Publish(_)) => seen.0 = true,
                Some(forebay_broker::codec::Packet::PubAck(_)) => seen.1 = true,
                other => panic!("after {what}: {other:?}"),
            }
        }
        assert!(self.view.fanout_is_alive(), "after {what}");
    }

    /// Waits for a condition.
    pub async fn until(&self, what: &str, condition: impl Fn(&View) -> bool) {
        until(what, || condition(&self.view)).await;
    }
}

/// A runtime that ends at once when it is dropped, and the gate, which is opened then.
struct Killable(Option<Runtime>, Arc<Gate>);

impl Drop for Killable {
    fn drop(&mut self) {
        self.1.open();
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn start_front(directory: Arc<tempfile::TempDir>, setup: Setup, gate: Arc<Gate>, shutdown: CancellationToken) -> (Front, Log) {
    let limits = setup.limits.clone();
    let (log, fanout) = retried("open the log", || {
        let fanout = LocalFanout::start().unwrap();
        let tap = GatedTap {
            inner: fanout.tap(),
            gate: Arc::clone(&gate),
        };
        let stream = |name: &str, max_bytes| StreamOptions {
            name: name.to_owned(),
            max_bytes,
            max_age: None,
            when_full: WhenFull::Refuse,
        };
        let options = Options {
            directory: directory.path().join("log"),
            max_disk: setup.max_disk,
            keep_free: 0,
            commit_wait: Duration::ZERO,
            max_devices: 100,
            streams: vec![stream("main", setup.max_bytes), stream("plug", 1 << 30)],
        };
        Log::open(options, setup.clock.clone(), Arc::new(Unobserved), Some(Box::new(tap))).map(|opened| (opened.log, fanout))
    })
    .await;
    let route = |filter: &str, stream| Route {
        name: filter.to_owned(),
        from: TopicFilter::parse(filter).unwrap(),
        stream,
    };
    let listener = |(index, identity): (usize, &&str)| ListenerConfig {
        bind: "127.0.0.1:0".parse().unwrap(),
        tls: setup.tls.clone().filter(|_| index >= setup.tls_from).map(Into::into),
        identity: IdentityTemplate::parse(identity).unwrap(),
    };
    let state = directory.path().join("state.redb");
    // What was killed lets go of its files a little later.
    retried("let go of the checkpoint", || match std::fs::File::open(&state) {
        Ok(file) => file.try_lock(),
        Err(_) => Ok(()),
    })
    .await;
    let config = Config {
        gateway: "gw".to_owned(),
        listeners: setup.identities.iter().enumerate().map(listener).collect(),
        access: AccessRules(setup.rules.clone()),
        routes: Routes::new(vec![
            route("cloud/#", Some(MAIN)),
            route("here/#", None),
            route("devices/+/telemetry", Some(MAIN)),
        ]),
        limits,
        state,
    };
    let parts = Parts {
        log: log.clone(),
        fanout,
        admission: Arc::new(AdmitAll),
        clock: setup.clock.clone(),
        observer: setup.observer.clone(),
    };
    (Front::bind(config, parts, shutdown).await.unwrap(), log)
}

async fn retried<T, E: std::fmt::Debug>(what: &str, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "waited in vain to {what}: {error:?}"),
        }
        a_moment().await;
    }
}

/// Holds the log's writer after a commit was announced, so that the next one does not happen.
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
    bell: Condvar,
}

#[derive(Default)]
struct GateState {
    is_closed: bool,
    is_blocked: bool,
}

impl Gate {
    fn close(&self) {
        self.state.lock().unwrap().is_closed = true;
    }

    pub fn open(&self) {
        self.state.lock().unwrap().is_closed = false;
        self.bell.notify_all();
    }

    fn wait_until_blocked(&self) {
        let state = self.state.lock().unwrap();
        let (state, late) = self.bell.wait_timeout_while(state, DEADLINE, |state| !state.is_blocked).unwrap();
        assert!(!late.timed_out(), "the log's writer did not come to the gate");
        drop(state);
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_blocked = state.is_closed;
        self.bell.notify_all();
        state = self.bell.wait_while(state, |state| state.is_closed).unwrap();
        state.is_blocked = false;
    }
}

struct GatedTap {
    inner: Box<dyn Tap>,
    gate: Arc<Gate>,
}

impl Tap for GatedTap {
    fn committed(&mut self, batch: Arc<CommittedBatch>) {
        self.gate.pass();
        self.inner.committed(batch);
    }
}

struct Ignore;

impl CommitListener for Ignore {
    fn committed(&self, _batch: Batch) {}
    fn failed(&self, _batch: Batch, _error: &CommitError) {}
}

struct Unseen;

impl Observer for Unseen {
    fn acked(&self, _oldest: Duration, _count: u64) {}
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
        a_moment().await;
    }
}

/// Between two looks at a condition.
async fn a_moment() {
    tokio::time::timeout(Duration::from_millis(3), std::future::pending::<()>())
        .await
        .ok();
}

/// The future's outcome, or a failed test after the deadline.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

pub fn state_file(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("state.redb")
}
