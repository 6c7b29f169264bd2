//! Who hears of a commit: first the listeners, so that acks leave, then the tap, then readers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::CommitError;
use crate::intake::batch::{Intake, OpenBatch};
use crate::listener::{CommittedBatch, Tap};
use crate::record::{Batch, StreamId};
use crate::shared::Shared;
use crate::sync::{guarded, lock};

/// A buffer larger than this is not kept for the next batch.
const SPARE: usize = 8 << 20;

/// Tells of commits, and keeps the buffers of a batch that is done for the next one.
pub(crate) struct Announcer {
    tap: Option<Box<dyn Tap>>,
    spare: OpenBatch,
}

impl Announcer {
    pub(crate) fn new(tap: Option<Box<dyn Tap>>) -> Self {
        Self {
            tap,
            spare: OpenBatch::new(Batch(0)),
        }
    }

    /// Takes the open batch out and begins the next one with the buffers of one that is done.
    pub(crate) fn swap(&mut self, intake: &mut Intake) -> OpenBatch {
        intake.swap(std::mem::replace(&mut self.spare, OpenBatch::new(Batch(0))))
    }

    /// The batch is durable: tells its listeners, the tap and the readers of its streams.
    pub(crate) fn committed(&mut self, shared: &Shared, mut batch: OpenBatch) {
        let number = batch.number;
        for listener in batch.listeners.drain(..) {
            guarded("a listener", || listener.committed(number));
        }
        let mut streams = [false; 256];
        let mut records = 0;
        for record in &batch.records {
            streams[usize::from(record.stream)] = true;
            records += u64::from(record.stream < StreamId::LOCAL.0);
        }
        let bytes = batch.data.len() as u64;
        shared.stats.records_committed.fetch_add(records, Ordering::Relaxed);
        shared.stats.bytes_committed.fetch_add(bytes, Ordering::Relaxed);
        shared.stats.payload_bytes.fetch_add(batch.payload, Ordering::Relaxed);
        if let Some(since) = batch.since.filter(|_| !batch.records.is_empty()) {
            guarded("the observer", || {
                shared.observer.committed(since.elapsed(), batch.records.len() as u64, bytes)
            });
        }
        if let Some(tap) = self.tap.as_mut().filter(|_| !batch.records.is_empty()) {
            let (data, mut records) = (std::mem::take(&mut batch.data), std::mem::take(&mut batch.records));
            // Local subscribers saw what was put back when it came.
            records.truncate(batch.requeued_from);
            batch.data.reserve(data.len().min(SPARE));
            let committed = Arc::new(CommittedBatch::new(number, shared.epoch, data, records));
            guarded("the tap", || tap.committed(committed));
        }
        wake(shared, |stream| streams[usize::from(stream.0)]);
        self.recycle(batch);
    }

    /// The batch is not durable and never will be: tells its listeners why.
    pub(crate) fn failed(&mut self, shared: &Shared, mut batch: OpenBatch, error: &CommitError) {
        for record in &batch.records {
            shared.gauges.leave(record.stream, 1, record.entry.cost());
        }
        if !batch.is_empty() {
            shared.stats.commits_failed.fetch_add(1, Ordering::Relaxed);
        }
        for listener in batch.listeners.drain(..) {
            guarded("a listener", || listener.failed(batch.number, error));
        }
        self.recycle(batch);
    }

    fn recycle(&mut self, mut batch: OpenBatch) {
        if batch.data.capacity() <= SPARE {
            batch.data.clear();
            batch.records.clear();
            batch.listeners.clear();
            batch.payload = 0;
            batch.since = None;
            batch.requeued_from = usize::MAX;
            self.spare = batch;
        }
    }
}

/// Wakes the readers of streams.
pub(crate) fn wake(shared: &Shared, is_meant: impl Fn(StreamId) -> bool) {
    let wakes: Vec<_> = lock(&shared.wakes)
        .iter()
        .filter(|(stream, _)| is_meant(*stream))
        .map(|(_, wake)| wake.clone())
        .collect();
    wakes.iter().for_each(|wake| guarded("a reader's wake", || wake()));
}
