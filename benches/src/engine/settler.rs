//! What becomes of records that have waited: they are read and settled as delivered.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use forebay_wal::{Log, Offset, PartitionSet, Reader, Settled, Settlement, StreamId};

/// Bytes read at a time.
const READ: usize = 1 << 20;

/// Reads the oldest records and settles them as delivered.
pub struct Settler {
    log: Log,
    stream: StreamId,
    reader: Reader,
    ready: VecDeque<Offset>,
    settled: u64,
}

/// Settles what waits beyond a backlog, as the bridge does it.
pub(crate) struct SettlingThread {
    shared: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Control {
    state: Mutex<ControlState>,
    bell: Condvar,
}

#[derive(Default)]
struct ControlState {
    stop: bool,
    paused: bool,
    idle: bool,
    error: Option<String>,
}

impl Settler {
    /// Begins at the oldest record.
    pub fn new(log: &Log, stream: StreamId) -> Settler {
        Settler {
            log: log.clone(),
            stream,
            reader: log.reader(stream, PartitionSet::ALL),
            ready: VecDeque::new(),
            settled: 0,
        }
    }

    /// How many records wait beyond this many.
    pub fn beyond(&self, backlog: u64) -> u64 {
        let committed = self.log.stats().records_committed.load(Ordering::Relaxed);
        (committed - self.settled).saturating_sub(backlog)
    }

    /// Settles the oldest `count` records as delivered, or as many as there are; gives how many.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub fn settle(&mut self, count: u64) -> anyhow::Result<u64> {
        for done in 0..count {
            if self.ready.is_empty() {
                self.ready.extend(self.reader.read(READ)?.iter().map(|record| record.id.offset));
            }
            let Some(offset) = self.ready.pop_front() else { return Ok(done) };
            let settled = self.log.settle(self.stream, offset, Settlement::Delivered);
            anyhow::ensure!(settled == Settled::First, "record {} was settled before", offset.0);
            self.settled += 1;
        }
        Ok(count)
    }
}

impl SettlingThread {
    pub(crate) fn start(mut settler: Settler, backlog: u64) -> SettlingThread {
        let shared = Arc::new(Control::default());
        let woken = Arc::clone(&shared);
        settler.log.on_commit(settler.stream, Box::new(move || woken.bell.notify_all()));
        let control = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while let Some(count) = control.next(&settler, backlog) {
                if let Err(error) = settler.settle(count) {
                    control.lock().error = Some(format!("{error:#}"));
                    control.bell.notify_all();
                    return;
                }
            }
        });
        SettlingThread {
            shared,
            thread: Some(thread),
        }
    }

    /// Returns when nothing is being settled.
    pub(crate) fn pause(&self) -> anyhow::Result<()> {
        let mut state = self.shared.lock();
        state.paused = true;
        self.shared.bell.notify_all();
        while !state.idle {
            if let Some(error) = &state.error {
                anyhow::bail!("settling: {error}");
            }
            state = self.shared.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Goes on.
    pub(crate) fn resume(&self) {
        self.shared.lock().paused = false;
    }
}

impl Drop for SettlingThread {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.bell.notify_all();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, ControlState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many records to settle next; none = the end.
    fn next(&self, settler: &Settler, backlog: u64) -> Option<u64> {
        let mut state = self.lock();
        loop {
            let over = settler.beyond(backlog);
            if state.stop {
                return None;
            }
            if !state.paused && over > 0 {
                state.idle = false;
                return Some(over);
            }
            state.idle = true;
            self.bell.notify_all();
            // A commit's bell may ring just before this: look again soon.
            state = self
                .bell
                .wait_timeout(state, Duration::from_millis(5))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
