//! One stream of the log, read ahead within a bound. Reads block on the disk and run on the blocking pool.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_wal::{Log, PartitionSet, ReadError, Reader, Record, StreamId, SuspensionKey, Timestamp};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::message::item::Item;

/// A read that failed is tried again after this.
const READ_AGAIN: Duration = Duration::from_secs(1);
#[derive(Debug)]
pub(crate) struct ReadAhead {
    pub(crate) id: StreamId,
    pub(crate) name: String,
    reader: Option<Reader>,
    buffer: VecDeque<Item>,
    buffered: usize,
    budget: usize,
    dirty: Arc<AtomicBool>,
    rewind: bool,
    discard: bool,
    again_at: Option<Instant>,
    /// How many of the first records may have been sent by the process before a restart.
    maybe_sent: u64,
}

/// The outcome of a read.
pub(crate) struct ReadDone {
    source: usize,
    reader: Reader,
    result: Result<Vec<Record>, ReadError>,
}

impl ReadAhead {
    /// Opens a stream; `wake` is notified when a commit brought records for it.
    pub(crate) fn open(
        log: &Log,
        id: StreamId,
        name: String,
        partitions: PartitionSet,
        budget: usize,
        maybe_sent: u64,
        wake: &Arc<Notify>,
    ) -> Self {
        let dirty = Arc::new(AtomicBool::new(true));
        let (flag, wake) = (Arc::clone(&dirty), Arc::clone(wake));
        log.on_commit(
            id,
            Box::new(move || {
                if !flag.swap(true, Ordering::AcqRel) {
                    wake.notify_one();
                }
            }),
        );
        Self {
            id,
            name,
            reader: Some(log.reader(id, partitions)),
            buffer: VecDeque::new(),
            buffered: 0,
            budget,
            dirty,
            rewind: false,
            discard: false,
            again_at: None,
            maybe_sent,
        }
    }

    /// Whether the read-ahead is full of records that wait for waiting devices.
    pub(crate) fn is_clogged(&self) -> bool {
        self.buffer.is_empty() && self.buffered + self.chunk() > self.budget
    }

    const fn chunk(&self) -> usize {
        if self.budget < 4 { 1 } else { self.budget / 4 }
    }

    /// Starts a read if there is room and perhaps something to read.
    pub(crate) fn read_ahead(&mut self, index: usize, reads: &mut JoinSet<ReadDone>, now: Instant) {
        let chunk = self.chunk();
        if self.reader.is_none() || self.buffered + chunk > self.budget || self.again_at.is_some_and(|at| at > now) {
            return;
        }
        // Cleared before the read: a commit that comes meanwhile sets it again.
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return;
        }
        let Some(mut reader) = self.reader.take() else { return };
        let rewind = std::mem::take(&mut self.rewind);
        self.again_at = None;
        reads.spawn_blocking(move || {
            if rewind {
                reader.rewind();
            }
            let result = reader.read(chunk);
            ReadDone {
                source: index,
                reader,
                result,
            }
        });
    }

    /// Takes what a read brought. `Err` = it failed and will be tried again.
    pub(crate) fn read_done(&mut self, done: ReadDone, now: Instant) -> Result<(), ReadError> {
        self.reader = Some(done.reader);
        let records = match done.result {
            Ok(records) => records,
            Err(error) => {
                self.again_at = Some(now + READ_AGAIN);
                self.dirty.store(true, Ordering::Release);
                return Err(error);
            }
        };
        if std::mem::take(&mut self.discard) {
            return Ok(());
        }
        if !records.is_empty() {
            // There may be more: only an empty read proves the end.
            self.dirty.store(true, Ordering::Release);
        }
        for record in records {
            let mut item = Item::new(record, done.source, false);
            item.counted = true;
            self.buffered += item.bytes();
            self.buffer.push_back(item);
        }
        Ok(())
    }

    /// A reader lost to a panic on the blocking pool is replaced, from the oldest waiting record on.
    pub(crate) fn replace_lost_reader(&mut self, log: &Log, partitions: PartitionSet) {
        if self.reader.is_none() {
            self.reader = Some(log.reader(self.id, partitions));
            self.discard = false;
            self.buffer.clear();
            self.buffered = 0;
            self.dirty.store(true, Ordering::Release);
        }
    }

    pub(crate) fn index(done: &ReadDone) -> usize {
        done.source
    }

    /// Forgets what was read ahead and starts again at the oldest record that is not settled.
    pub(crate) fn rewind(&mut self) {
        self.buffer.clear();
        self.buffered = 0;
        self.rewind = true;
        self.discard = self.reader.is_none();
        self.dirty.store(true, Ordering::Release);
    }

    pub(crate) fn has_records(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Whether everything that is in the log has been read and taken.
    pub(crate) fn is_drained(&self) -> bool {
        self.buffer.is_empty() && self.reader.is_some() && !self.dirty.load(Ordering::Acquire)
    }

    /// When a failed read should be tried again.
    pub(crate) const fn again_at(&self) -> Option<Instant> {
        self.again_at
    }

    pub(crate) fn pop(&mut self) -> Option<Item> {
        self.buffer.pop_front()
    }

    /// The item came back from a connection and waits: its bytes count again.
    pub(crate) fn count(&mut self, item: &mut Item) {
        if !std::mem::replace(&mut item.counted, true) {
            self.buffered += item.bytes();
        }
    }

    /// The item leaves for a connection, or for good: its bytes no longer count.
    pub(crate) fn uncount(&mut self, item: &mut Item) {
        if std::mem::take(&mut item.counted) {
            self.buffered = self.buffered.saturating_sub(item.bytes());
        }
    }

    /// Puts items of a released device in front, in their order.
    pub(crate) fn put_back(&mut self, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.buffer.push_front(item);
        }
    }

    /// Drops the records of a pair that the log holds from now on. Returns the smallest offset among them.
    pub(crate) fn drop_pair(&mut self, pair: &SuspensionKey) -> Option<forebay_wal::Offset> {
        let mut least = None;
        let mut freed = 0;
        self.buffer.retain(|item| {
            let stays = !item.is_of(pair);
            if !stays {
                least = least.into_iter().chain([item.record.offset]).min();
                freed += if item.counted { item.bytes() } else { 0 };
            }
            stays
        });
        self.buffered = self.buffered.saturating_sub(freed);
        least
    }

    #[cfg(test)]
    pub(crate) const fn buffered(&self) -> usize {
        self.buffered
    }

    /// Whether the process before a restart may have sent this record: it is from before `start`, and among the first ones.
    pub(crate) fn maybe_sent_before(&mut self, record: &Record, start: &Timestamp) -> bool {
        if self.maybe_sent == 0 {
            return false;
        }
        let before = record.received.boot != start.boot || record.received.monotonic_ms < start.monotonic_ms;
        self.maybe_sent = if before { self.maybe_sent - 1 } else { 0 };
        before
    }
}
