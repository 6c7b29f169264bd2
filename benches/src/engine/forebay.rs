//! Forebay's log through its public API, ledger and progress included: what waits beyond the backlog is read and settled as delivered.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use forebay_wal::testing::Unobserved;
use forebay_wal::{
    Batch, Clock, CommitError, CommitListener, Log, NewRecord, Options, Producer, StreamId, StreamOptions, SystemClock, Timestamp, WhenFull,
};

use super::settler::{Settler, SettlingThread};
use super::{Acks, BACKLOG, Commits, RECORD, Service};

const STREAM: &str = "telemetry";
const ROUTE: &str = "devices/#";
/// Bytes of a record's header; `format` in the log's documentation has them.
const HEADER: usize = 64;
/// Records of a commit before anything is measured.
const RUN_IN: usize = 1000;

/// An open log with producers.
pub struct ForebayLog {
    log: Log,
    acks: Arc<Acks>,
    producers: Vec<Producer>,
    /// One record per device.
    devices: Vec<NewRecord<'static>>,
    /// The records of one commit.
    batch: Vec<NewRecord<'static>>,
    behind: Behind,
    /// Nothing is settled until the next append.
    resting: bool,
    taken: Vec<u32>,
}

/// Who settles.
enum Behind {
    /// The caller of [`Commits::commit`], between two commits.
    Caller(Settler),
    /// A thread, as the bridge does it.
    Thread(SettlingThread),
}

impl Behind {
    fn on_a_thread(self) -> Behind {
        match self {
            Behind::Caller(settler) => Behind::Thread(SettlingThread::start(settler, BACKLOG)),
            thread @ Behind::Thread(_) => thread,
        }
    }
}

/// Tells a producer's acks.
struct Acked {
    producer: u32,
    acks: Arc<Acks>,
}

/// Opens a log of one stream in `directory` that is never full.
///
/// # Errors
///
/// The directory cannot be used.
pub fn open(directory: &Path, commit_wait: Duration) -> anyhow::Result<(Log, StreamId)> {
    let options = Options {
        directory: directory.to_owned(),
        max_disk: 64 << 30,
        keep_free: 0,
        commit_wait,
        max_devices: 4000,
        streams: vec![StreamOptions {
            name: STREAM.into(),
            max_bytes: 32 << 30,
            max_age: None,
            when_full: WhenFull::Refuse,
        }],
    };
    let opened = Log::open(options, Arc::new(SystemClock::new(0)), Arc::new(Unobserved), None)
        .with_context(|| format!("opening a log in {}", directory.display()))?;
    let stream = opened.log.stream(STREAM).context("the stream was configured")?;
    Ok((opened.log, stream))
}

/// A record for each of `count` devices. The texts stay for as long as the program runs.
pub fn records(stream: StreamId, count: usize, payload: usize) -> Vec<NewRecord<'static>> {
    let received = SystemClock::new(0).now();
    let payload: &'static [u8] = vec![b'x'; payload].leak();
    (0..count).map(|number| record(stream, number, payload, received)).collect()
}

fn record(stream: StreamId, number: usize, payload: &'static [u8], received: Timestamp) -> NewRecord<'static> {
    let identity: &'static str = format!("device-{number:04}").leak();
    NewRecord {
        stream,
        received,
        identity,
        route: ROUTE,
        topic: format!("devices/{identity}/telemetry").leak(),
        payload,
        qos: 1,
        retain: false,
        expiry: None,
        properties: &[],
    }
}

/// Bytes of such a record as encoded.
pub fn encoded_bytes(payload: usize) -> usize {
    HEADER + "device-0000".len() + ROUTE.len() + "devices/device-0000/telemetry".len() + payload
}

/// The payload that makes a record [`RECORD`] bytes long.
fn payload_of_a_record() -> usize {
    RECORD - encoded_bytes(0)
}

impl ForebayLog {
    /// A log for one commit after the other, whose records come from `devices` in turn.
    ///
    /// # Errors
    ///
    /// The directory cannot be used.
    pub fn for_commits(directory: &Path, devices: usize) -> anyhow::Result<ForebayLog> {
        ForebayLog::new(directory, 1, devices, Arc::default(), false)
    }

    /// A log for `producers`, each a device of its own.
    ///
    /// # Errors
    ///
    /// The directory cannot be used.
    pub fn for_producers(directory: &Path, producers: usize, acks: Arc<Acks>) -> anyhow::Result<ForebayLog> {
        ForebayLog::new(directory, producers, producers, acks, true)
    }

    fn new(directory: &Path, producers: usize, devices: usize, acks: Arc<Acks>, threaded: bool) -> anyhow::Result<ForebayLog> {
        let (log, stream) = open(directory, Duration::ZERO)?;
        let producer = |number| {
            log.producer(Arc::new(Acked {
                producer: number,
                acks: Arc::clone(&acks),
            }))
        };
        let settler = Settler::new(&log, stream);
        let mut this = ForebayLog {
            producers: (0..u32::try_from(producers)?).map(producer).collect(),
            devices: records(stream, devices, payload_of_a_record()),
            batch: Vec::new(),
            behind: Behind::Caller(settler),
            resting: false,
            taken: Vec::new(),
            log: log.clone(),
            acks: Arc::clone(&acks),
        };
        while this.is_new() {
            this.commit(RUN_IN)?;
        }
        if threaded {
            this.behind = this.behind.on_a_thread();
        }
        Ok(this)
    }

    /// Whether its files still grow, or too little waits. A log that has run for a while writes over spent files.
    fn is_new(&self) -> bool {
        let stats = self.log.stats();
        stats.rotations.load(Ordering::Relaxed) < 2 || stats.records_committed.load(Ordering::Relaxed) < BACKLOG
    }

    /// Encoded bytes per record.
    pub fn record_bytes(&self) -> f64 {
        let stats = self.log.stats();
        let (bytes, records) = (&stats.bytes_committed, &stats.records_committed);
        bytes.load(Ordering::Relaxed) as f64 / records.load(Ordering::Relaxed) as f64
    }

    fn fill_batch(&mut self, count: usize) {
        while self.batch.len() < count {
            self.batch.push(self.devices[self.batch.len() % self.devices.len()]);
        }
    }

    fn commit_by(&mut self, producer: usize, count: usize) -> anyhow::Result<()> {
        self.producers[producer].append(&self.batch[..count])?;
        let mut taken = std::mem::take(&mut self.taken);
        taken.clear();
        self.acks.take(&mut taken, None)?;
        self.taken = taken;
        Ok(())
    }
}

impl Commits for ForebayLog {
    fn commit(&mut self, count: usize) -> anyhow::Result<Duration> {
        self.fill_batch(count);
        if let Behind::Caller(settler) = &mut self.behind {
            settler.settle(settler.beyond(BACKLOG))?;
        }
        let began = Instant::now();
        self.commit_by(0, count)?;
        Ok(began.elapsed())
    }
}

impl Service for ForebayLog {
    fn append(&mut self, producer: u32) -> anyhow::Result<()> {
        if std::mem::take(&mut self.resting)
            && let Behind::Thread(thread) = &self.behind
        {
            thread.resume();
        }
        let number = producer as usize;
        self.producers[number].append(&self.devices[number..=number])?;
        Ok(())
    }

    /// Stops settling and lets one more commit take what was settled along.
    fn rest(&mut self) -> anyhow::Result<()> {
        let Behind::Thread(thread) = &self.behind else { return Ok(()) };
        thread.pause()?;
        self.fill_batch(1);
        self.resting = true;
        self.commit_by(0, 1)
    }
}

impl CommitListener for Acked {
    fn committed(&self, _batch: Batch) {
        self.acks.push(self.producer);
    }

    fn failed(&self, _batch: Batch, error: &CommitError) {
        self.acks.fail(error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_takes_as_many_bytes_as_those_it_is_compared_with() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut log = ForebayLog::for_commits(directory.path(), 64).expect("a log");
        log.commit(8).expect("committed");
        assert_eq!(log.record_bytes(), RECORD as f64);
    }
}
