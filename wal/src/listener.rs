//! What the log tells those who append to it: where records will be, when they are durable, when they are settled.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::encoding::entry::Appended;
use crate::encoding::record;
use crate::error::CommitError;
use crate::record::{Batch, Epoch, Offset, Record};

/// Where and when appended records will be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The commit that will hold them.
    pub batch: Batch,
    /// Offset of the first record of the call that went to a user stream.
    pub offset: Offset,
}

/// Hears what became of a producer's batches. Called on the writer thread, in batch order: must not block.
pub trait CommitListener: Send + Sync {
    /// All that this producer appended up to and including `batch` survives a power cut.
    fn committed(&self, batch: Batch);
    /// `batch` was not committed and never will be; nothing in it may be acked.
    fn failed(&self, batch: Batch, error: &CommitError);
}

/// Sees every committed batch after its listeners were called, on the writer thread: must not block.
pub trait Tap: Send {
    /// `batch` is durable.
    fn committed(&mut self, batch: Arc<CommittedBatch>);
}

/// What [`crate::Log::settle`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// This settlement counts.
    First,
    /// The record had been settled before; this one is only counted as late.
    Late,
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
