//! What the log tells those who append to it: where records will be, when they are durable, when they are settled.

use std::sync::Arc;

use crate::commit::intake::CommittedBatch;
use crate::error::CommitError;
use crate::record::{Batch, Offset};

/// Where and when appended records will be stored.
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
    /// `batch` was not stored and never will be; nothing in it may be acked.
    fn failed(&self, batch: Batch, error: &CommitError);
}

/// Sees every committed batch after its listeners were called, on the writer thread: must not block.
pub trait Tap: Send {
    /// `batch` is durable.
    fn committed(&mut self, batch: Arc<CommittedBatch>);
}

/// What [`Log::settle`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// This settlement counts.
    First,
    /// The record had been settled before; this one is only counted as late.
    Late,
}
