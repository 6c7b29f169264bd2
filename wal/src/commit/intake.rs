//! The open batch: what producers encode into and the writer swaps out whole.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::commit::job::Job;
use crate::encoding::entry::Entry;
use crate::encoding::record;
use crate::error::CommitError;
use crate::format::MAX_SLOT;
use crate::listener::CommitListener;
use crate::record::{Batch, Epoch, NewRecord, Partition, Record, RecordId, StreamId};
use crate::sync::guarded;

/// Why nothing is stored after the writer thread ended out of turn.
pub(crate) const WRITER_STOPPED: &str = "the log's writer thread stopped, which is a fault of ours: restart Forebay and report it";

/// One appended record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) stream: u8,
    pub(crate) offset: u64,
    pub(crate) entry: Entry,
}

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

/// Devices and their places in the ledger. Slot 0 is `other`.
#[derive(Debug)]
pub(crate) struct Slots {
    by_identity: HashMap<String, u32>,
    next: u32,
    max: u32,
    /// Given out but not yet committed.
    pub(crate) fresh: Vec<(u32, String)>,
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

/// A batch that goes away unannounced, as when the writer thread panics, is not stored as far as anybody may believe.
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

impl Slots {
    pub(crate) fn new<'a>(known: impl Iterator<Item = &'a str>, max: u32) -> Self {
        let mut by_identity = HashMap::new();
        let mut next = 1;
        for (slot, identity) in known.enumerate().skip(1) {
            by_identity.insert(identity.to_owned(), slot as u32);
            next = slot as u32 + 1;
        }
        Self {
            by_identity,
            next,
            max: max.min(MAX_SLOT),
            fresh: Vec::new(),
        }
    }

    /// The slot of a device; `other` when there are no more.
    pub(crate) fn of(&mut self, identity: &str) -> u32 {
        if let Some(slot) = self.by_identity.get(identity) {
            return *slot;
        }
        if self.next > self.max {
            return 0;
        }
        let slot = self.next;
        self.next += 1;
        self.by_identity.insert(identity.to_owned(), slot);
        self.fresh.push((slot, identity.to_owned()));
        slot
    }
}

/// The records of one commit in the order in which they were appended.
pub struct CommittedBatch {
    number: Batch,
    epoch: Epoch,
    data: Bytes,
    records: Vec<Appended>,
}

impl CommittedBatch {
    pub(crate) fn new(number: Batch, epoch: Epoch, data: Vec<u8>, records: Vec<Appended>) -> Self {
        Self {
            number,
            epoch,
            data: Bytes::from(data),
            records,
        }
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> Batch {
        self.number
    }

    /// How many records it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Its records, decoded on the way; payloads share the batch's buffer.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.records.iter().filter_map(|appended| {
            let bytes = &self.data[appended.entry.at as usize..(appended.entry.at + appended.entry.len) as usize];
            record::decode(bytes).map(|view| view.to_record(&self.data, self.epoch))
        })
    }
}

impl fmt::Debug for CommittedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommittedBatch")
            .field("number", &self.number)
            .field("records", &self.records.len())
            .finish_non_exhaustive()
    }
}
