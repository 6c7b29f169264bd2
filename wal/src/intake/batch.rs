//! The open batch: what producers encode into and the writer swaps out whole.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::encoding::entry::{Appended, Entry};
use crate::encoding::record;
use crate::error::CommitError;
use crate::intake::job::Job;
use crate::intake::slots::Slots;
use crate::listener::CommitListener;
use crate::record::{Batch, NewRecord, Partition, RecordId, StreamId};
use crate::sync::guarded;

/// Why nothing is committed after the writer thread ended out of turn.
pub(crate) const WRITER_STOPPED: &str = "the log's writer thread stopped, which is a fault of ours: restart Forebay and report it";

/// The shared buffer and what goes with it.
pub(crate) struct Intake {
    pub(crate) open: OpenBatch,
    /// Next offset of each stream.
    pub(crate) next: Box<[u64]>,
    pub(crate) slots: Slots,
    /// Why nothing is taken now.
    pub(crate) unavailable: Option<String>,
    pub(crate) disk_full: bool,
    pub(crate) closing: bool,
    /// What a person asked for.
    pub(crate) jobs: VecDeque<Job>,
    /// Something other than records waits for a commit, since when.
    pub(crate) dirty: Option<Instant>,
}

/// Records that will be committed together.
pub(crate) struct OpenBatch {
    pub(crate) number: Batch,
    pub(crate) data: Vec<u8>,
    pub(crate) records: Vec<Appended>,
    pub(crate) listeners: Vec<Arc<dyn CommitListener>>,
    /// Payload bytes of the records that went to user streams.
    pub(crate) payload: u64,
    /// When the first append came.
    pub(crate) since: Option<Instant>,
    /// The records from here on were put back: they are accepted already.
    pub(crate) requeued_from: usize,
}

impl OpenBatch {
    pub(crate) fn new(number: Batch) -> Self {
        Self {
            number,
            data: Vec::new(),
            records: Vec::new(),
            listeners: Vec::new(),
            payload: 0,
            since: None,
            requeued_from: usize::MAX,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.listeners.is_empty()
    }

    /// Whether one device waits for one record.
    pub(crate) fn is_lone(&self) -> bool {
        self.records.len() == 1 && self.listeners.len() == 1
    }
}

/// A batch that goes away unannounced, as when the writer thread panics, counts as not committed.
impl Drop for OpenBatch {
    fn drop(&mut self) {
        let error = CommitError {
            reason: WRITER_STOPPED.into(),
        };
        for listener in self.listeners.drain(..) {
            guarded("a listener", || listener.failed(self.number, &error));
        }
    }
}

impl Intake {
    /// Encodes a record, with the id that it has already if it is put back; gives its offset.
    pub(crate) fn take(&mut self, record: &NewRecord<'_>, slot: u32, origin: Option<RecordId>) -> u64 {
        let next = &mut self.next[usize::from(record.stream.0)];
        let offset = *next;
        *next += 1;
        let at = self.open.data.len() as u32;
        let len = record::encode(record, offset, slot, origin, &mut self.open.data) as u32;
        let partition = Partition::of(record.identity).index() as u8;
        if record.stream < StreamId::LOCAL {
            self.open.payload += record.payload.len() as u64;
        }
        self.open.records.push(Appended {
            stream: record.stream.0,
            offset,
            entry: Entry { partition, slot, at, len },
        });
        offset
    }

    /// Takes the open batch out and begins the next one with the buffers of an earlier one.
    pub(crate) fn swap(&mut self, mut spare: OpenBatch) -> OpenBatch {
        spare.number = Batch(self.open.number.0 + 1);
        spare.requeued_from = usize::MAX;
        std::mem::replace(&mut self.open, spare)
    }
}
