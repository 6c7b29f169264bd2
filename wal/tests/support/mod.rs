//! What the tests of the log share.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use forebay_wal::{
    Batch, BootId, Clock, CommitError, CommitListener, Log, NewRecord, Observer, Offset, OpenError, Opened, Options, Partition,
    PartitionSet, Producer, Record, Settlement, StreamId, StreamOptions, Ticket, Timestamp, WhenFull,
};

/// Long enough for the slowest machine; nothing waits this long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A clock that a test moves.
#[derive(Debug)]
pub struct ManualClock(pub Mutex<Timestamp>);

impl ManualClock {
    pub fn at(wall_ms: u64, boot: u128, monotonic_ms: u64, trusted: bool) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Timestamp {
            wall_ms,
            boot: BootId(boot),
            monotonic_ms,
            trusted,
        })))
    }

    pub fn set(&self, at: Timestamp) {
        *self.0.lock().unwrap() = at;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// Counts commits.
#[derive(Debug, Default)]
pub struct Counting(pub AtomicU64);

impl Observer for Counting {
    fn committed(&self, _latency: Duration, records: u64, _bytes: u64) {
        self.0.fetch_add(records, Ordering::Relaxed);
    }
}

/// The newest batch that was stored, and those that were not.
type Heard = (Option<Batch>, Vec<(Batch, CommitError)>);

/// Remembers what became of its batches.
#[derive(Debug, Default)]
pub struct Acks {
    state: Mutex<Heard>,
    bell: Condvar,
}

impl CommitListener for Acks {
    fn committed(&self, batch: Batch) {
        self.state.lock().unwrap().0 = Some(batch);
        self.bell.notify_all();
    }

    fn failed(&self, batch: Batch, error: &CommitError) {
        self.state.lock().unwrap().1.push((batch, error.clone()));
        self.bell.notify_all();
    }
}

impl Acks {
    /// Waits until `batch` is stored or failed.
    pub fn wait(&self, batch: Batch) -> Result<(), CommitError> {
        let deadline = Instant::now() + DEADLINE;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some((_, error)) = state.1.iter().find(|(failed, _)| *failed == batch) {
                return Err(error.clone());
            }
            if state.0.is_some_and(|committed| committed >= batch) {
                return Ok(());
            }
            assert!(Instant::now() < deadline, "{batch:?} was neither committed nor failed");
            state = self.bell.wait_timeout(state, Duration::from_millis(100)).unwrap().0;
        }
    }
}

/// A log with what is needed to use it.
pub struct Bench {
    pub log: Log,
    pub report: forebay_wal::StartReport,
    pub acks: Arc<Acks>,
    pub producer: Producer,
    pub clock: Arc<ManualClock>,
}

pub fn stream(name: &str, max_bytes: u64, when_full: WhenFull) -> StreamOptions {
    StreamOptions {
        name: name.into(),
        max_bytes,
        max_age: None,
        when_full,
    }
}

pub fn options(directory: &Path) -> Options {
    Options {
        directory: directory.to_owned(),
        max_disk: 1 << 30,
        keep_free: 0,
        commit_wait: Duration::ZERO,
        max_devices: 100,
        streams: vec![stream("main", 512 << 20, WhenFull::Refuse)],
    }
}

pub fn open(options: Options) -> Bench {
    open_at(options, ManualClock::at(1_700_000_000_000, 1, 1000, true))
}

pub fn open_at(options: Options, clock: Arc<ManualClock>) -> Bench {
    let mut opened = None;
    // A process that another test starts holds every lock until it has become another program.
    until("nobody holds the lock", || {
        opened = match Log::open(options.clone(), clock.clone(), Arc::new(Counting::default()), None) {
            Err(OpenError::Locked { .. }) => None,
            opened => Some(opened.unwrap()),
        };
        opened.is_some()
    });
    let Opened { log, report } = opened.unwrap();
    let acks = Arc::new(Acks::default());
    let producer = log.producer(acks.clone());
    Bench {
        log,
        report,
        acks,
        producer,
        clock,
    }
}

pub const MAIN: StreamId = StreamId(0);

impl Bench {
    pub fn record<'a>(&self, identity: &'a str, payload: &'a [u8]) -> NewRecord<'a> {
        NewRecord {
            stream: MAIN,
            received: self.clock.now(),
            identity,
            route: "route",
            topic: "devices/x/telemetry",
            payload,
            qos: 1,
            retain: false,
            expiry: None,
            properties: &[],
        }
    }

    /// Appends without waiting.
    pub fn append(&mut self, identity: &str, payload: &[u8]) -> Ticket {
        let record = self.record(identity, payload);
        self.producer.append(&[record]).unwrap()
    }

    /// Appends and waits for the commit.
    pub fn store(&mut self, identity: &str, payload: &[u8]) -> Offset {
        let ticket = self.append(identity, payload);
        self.acks.wait(ticket.batch).unwrap();
        ticket.offset
    }

    /// Stores `count` records with numbered payloads of `size` bytes, over ten devices.
    pub fn fill(&mut self, count: usize, size: usize) {
        let mut last = None;
        for n in 0..count {
            let mut payload = vec![b'.'; size.max(8)];
            payload[..8].copy_from_slice(&(n as u64).to_le_bytes());
            last = Some(self.append(&format!("device-{}", n % 10), &payload));
        }
        if let Some(last) = last {
            self.acks.wait(last.batch).unwrap();
        }
    }

    pub fn read_all(&self) -> Vec<Record> {
        let mut reader = self.log.reader(MAIN, PartitionSet::ALL);
        let mut all = Vec::new();
        loop {
            let records = reader.read(64 << 10).unwrap();
            if records.is_empty() {
                return all;
            }
            all.extend(records);
        }
    }

    pub fn deliver(&self, records: &[Record]) {
        for record in records {
            self.log.settle(record.stream, record.offset, Settlement::Delivered);
        }
    }

    /// Waits for a condition.
    pub fn until(&self, what: &str, condition: impl Fn(&Log) -> bool) {
        until(what, || condition(&self.log));
    }
}

pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// What a power cut at this moment would leave, as far as a copy of an open directory can show it.
pub fn copy(from: &Path, to: &Path) -> PathBuf {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            continue;
        }
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to.to_owned()
}

/// The segments of a directory, oldest first.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "redb"));
    files.sort();
    files
}

pub fn partition(identity: &str) -> PartitionSet {
    PartitionSet(1 << Partition::of(identity).index())
}
