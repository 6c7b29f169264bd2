//! Fills a gateway's log before it starts, through the log's own API.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use forebay_benches::engine::forebay::{self, records};
use forebay_benches::machine;
use forebay_wal::{Batch, CommitError, CommitListener, PartitionSet};
use serde::Serialize;

/// Records of one append, and of one commit at least.
const AT_ONCE: usize = 4096;
const DEVICES: usize = 2000;
/// Appends that wait for the disk.
const AHEAD: usize = 8;
const READ: usize = 1 << 20;
const TELL: Duration = Duration::from_secs(5);

/// A filled log.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Filled {
    pub(crate) records: u64,
    pub(crate) took_s: f64,
    /// Encoded bytes.
    pub(crate) bytes: u64,
    /// Bytes that the log's directory occupies.
    pub(crate) occupied: u64,
    /// Records per second of a reader alone, checksums verified.
    pub(crate) read_per_s: f64,
    /// MB of encoded records per second.
    pub(crate) read_mb_s: f64,
}

/// Appends `count` records of `payload` bytes to the log in `directory`, reads some of them back and closes it.
pub(crate) fn fill(directory: &Path, count: u64, payload: usize) -> anyhow::Result<Filled> {
    let (log, stream) = forebay::open(directory, Duration::ZERO)?;
    let committed = Arc::new(Committed::default());
    let mut producer = log.producer(Arc::<Committed>::clone(&committed));
    let devices = records(stream, DEVICES, payload);
    let batch: Vec<_> = (0..AT_ONCE).map(|nth| devices[nth % DEVICES]).collect();
    let mut waiting = VecDeque::new();
    let began = Instant::now();
    let (mut left, mut told) = (count, Instant::now());
    while left > 0 {
        let now = left.min(AT_ONCE as u64);
        let ticket = producer.append(&batch[..now as usize])?;
        left -= now;
        waiting.push_back(ticket.batch);
        if waiting.len() > AHEAD
            && let Some(oldest) = waiting.pop_front()
        {
            committed.wait(oldest)?;
        }
        if told.elapsed() > TELL {
            told = Instant::now();
            eprintln!("{} of {count} records are in the log", count - left);
        }
    }
    waiting.into_iter().try_for_each(|batch| committed.wait(batch))?;
    let took_s = began.elapsed().as_secs_f64();

    let (mut reader, began) = (log.reader(stream, PartitionSet::ALL), Instant::now());
    let (mut read, wanted) = (0, count.min(1_000_000));
    while read < wanted {
        let found = reader.read(READ)?.len() as u64;
        if found == 0 {
            bail!("the reader found {read} records of {count}");
        }
        read += found;
    }
    let read_per_s = read as f64 / began.elapsed().as_secs_f64();
    let bytes = log.stats().bytes_committed.load(Ordering::Relaxed);
    drop(reader);
    log.close()?;
    Ok(Filled {
        records: count,
        took_s,
        bytes,
        occupied: machine::occupied(directory)?,
        read_per_s,
        read_mb_s: read_per_s * bytes as f64 / count as f64 / 1e6,
    })
}

/// The newest batch that is durable.
#[derive(Default)]
struct Committed {
    state: Mutex<(Batch, Option<String>)>,
    bell: Condvar,
}

impl Committed {
    fn wait(&self, batch: Batch) -> anyhow::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*state {
                (_, Some(error)) => bail!("the log was not filled: {error}"),
                (done, None) if *done >= batch => return Ok(()),
                _ => state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl CommitListener for Committed {
    fn committed(&self, batch: Batch) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0 = batch;
        self.bell.notify_all();
    }

    fn failed(&self, _batch: Batch, error: &CommitError) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = Some(error.to_string());
        self.bell.notify_all();
    }
}
