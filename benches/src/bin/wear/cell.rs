//! One log at one rate and one `commit_wait`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use forebay_benches::engine::forebay::{self, encoded_bytes, records};
use forebay_benches::engine::{Settler, Sqlite, Store};
use forebay_wal::{Batch, CommitError, CommitListener, Log, NewRecord, Producer};

use crate::meter::Meter;
use crate::report::{Engine, Run};

/// How long the cloud takes to ack.
const ROUND_TRIP: Duration = Duration::from_millis(50);
/// How often the loop looks around.
const LOOK: Duration = Duration::from_millis(5);
const DEVICES: usize = 50;
/// Records not yet committed, at most, while files are filled.
const IN_FLIGHT: u64 = 10_000;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) engine: Engine,
    pub(crate) rate: f64,
    pub(crate) wait: Duration,
    pub(crate) payload: usize,
    /// Not counted: files are made, the ballast is written.
    pub(crate) warmup: Duration,
    pub(crate) window: Duration,
}

impl Cell {
    /// Runs it and says what was written within the window.
    pub(crate) fn measure(&self, meter: &Meter) -> anyhow::Result<Run> {
        match self.engine {
            Engine::Forebay => self.forebay(meter, true),
            Engine::ForebayAway => self.forebay(meter, false),
            Engine::Sqlite => self.sqlite(meter),
            Engine::Gateway => bail!("the gateway is measured from outside"),
        }
    }

    fn forebay(&self, meter: &Meter, cloud_is_up: bool) -> anyhow::Result<Run> {
        let (log, stream) = forebay::open(&meter.path().join("log"), self.wait)?;
        let failed = Arc::new(Failed::default());
        let mut producer = log.producer(Arc::<Failed>::clone(&failed));
        let devices = records(stream, DEVICES, self.payload);
        let mut cloud = cloud_is_up.then(|| Cloud::new(&log, Settler::new(&log, stream)));
        if let Some(cloud) = &mut cloud {
            use_up(&log, &mut producer, &devices, cloud)?;
        }
        let mut sent = 0;
        let mut step = |due: u64| {
            for _ in 0..due {
                let nth = sent % DEVICES;
                producer.append(&devices[nth..=nth])?;
                sent += 1;
            }
            cloud.as_mut().map_or(Ok(()), Cloud::ack)
        };
        pace(self.rate, self.warmup, &mut step)?;
        let (before, counted) = (meter.written(None)?, Counts::of(&log));
        pace(self.rate, self.window, &mut step)?;
        let (after, now) = (meter.written(None)?, Counts::of(&log));
        log.close()?;
        if failed.0.load(Ordering::Relaxed) > 0 {
            bail!("{} batches were not stored", failed.0.load(Ordering::Relaxed));
        }
        Ok(self.run(meter, after - before, now.records - counted.records, now.commits - counted.commits))
    }

    /// A row per message; the transaction that adds them deletes those of a second ago.
    fn sqlite(&self, meter: &Meter) -> anyhow::Result<Run> {
        let size = encoded_bytes(self.payload);
        let mut sqlite = Sqlite::create(meter.path(), size, (self.rate as u64).max(1))?;
        let row = vec![b'x'; size];
        let mut open = Vec::new();
        let mut since = Instant::now();
        let (mut rows, mut commits) = (0, 0);
        let mut step = |due: u64| {
            for _ in 0..due {
                if open.is_empty() {
                    since = Instant::now();
                }
                open.extend_from_slice(&row);
            }
            if !open.is_empty() && since.elapsed() >= self.wait {
                sqlite.commit(&open)?;
                rows += (open.len() / size) as u64;
                commits += 1;
                open.clear();
            }
            anyhow::Ok((rows, commits))
        };
        let mut counts = (0, 0);
        pace(self.rate, self.warmup, |due| step(due).map(|now| counts = now))?;
        let (before, counted) = (meter.written(None)?, counts);
        pace(self.rate, self.window, |due| step(due).map(|now| counts = now))?;
        let after = meter.written(None)?;
        Ok(self.run(meter, after - before, counts.0 - counted.0, counts.1 - counted.1))
    }

    fn run(&self, meter: &Meter, written: u64, records: u64, commits: u64) -> Run {
        Run::new(self, matches!(meter, Meter::Block(_)), written, records, commits)
    }
}

/// Fills files until one is laid over a spent one, as in a log that has run for a while.
fn use_up(log: &Log, producer: &mut Producer, devices: &[NewRecord<'_>], cloud: &mut Cloud) -> anyhow::Result<()> {
    let rotations = || log.stats().rotations.load(Ordering::Relaxed);
    let mut sent = 0;
    while rotations() < 2 {
        let in_flight = sent - Counts::of(log).records;
        if in_flight < IN_FLIGHT {
            producer.append(devices)?;
            sent += devices.len() as u64;
        } else {
            cloud.ack()?;
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
    while cloud.settled < sent {
        cloud.ack()?;
        std::thread::park_timeout(LOOK);
    }
    Ok(())
}

/// Calls `step` with how many messages are due, at each that is, and every few milliseconds.
fn pace(rate: f64, duration: Duration, mut step: impl FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut sent = 0;
    loop {
        let passed = began.elapsed();
        if passed >= duration {
            return Ok(());
        }
        let due = (passed.as_secs_f64() * rate) as u64;
        step(due - sent)?;
        sent = due;
        let next = Duration::from_secs_f64((sent + 1) as f64 / rate);
        std::thread::park_timeout(next.saturating_sub(began.elapsed()).min(LOOK));
    }
}

/// Acks what was committed a round trip ago.
struct Cloud {
    log: Log,
    settler: Settler,
    /// When so many records were committed.
    seen: VecDeque<(Instant, u64)>,
    settled: u64,
}

impl Cloud {
    fn new(log: &Log, settler: Settler) -> Cloud {
        Cloud {
            log: log.clone(),
            settler,
            seen: VecDeque::new(),
            settled: 0,
        }
    }

    fn ack(&mut self) -> anyhow::Result<()> {
        let committed = Counts::of(&self.log).records;
        if self.seen.back().is_none_or(|(_, known)| *known < committed) {
            self.seen.push_back((Instant::now(), committed));
        }
        while let Some((at, committed)) = self.seen.front().copied() {
            if at.elapsed() < ROUND_TRIP {
                break;
            }
            self.settled += self.settler.settle(committed - self.settled)?;
            if self.seen.len() == 1 {
                // Kept, so that the same is not noted again.
                break;
            }
            self.seen.pop_front();
        }
        Ok(())
    }
}

/// The log's counters.
#[derive(Clone, Copy)]
struct Counts {
    records: u64,
    commits: u64,
}

impl Counts {
    fn of(log: &Log) -> Counts {
        let stats = log.stats();
        Counts {
            records: stats.records_committed.load(Ordering::Relaxed),
            commits: stats.commits.load(Ordering::Relaxed),
        }
    }
}

/// Batches that were not stored.
#[derive(Default)]
struct Failed(AtomicU64);

impl CommitListener for Failed {
    fn committed(&self, _batch: Batch) {}

    fn failed(&self, _batch: Batch, error: &CommitError) {
        eprintln!("{error}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
