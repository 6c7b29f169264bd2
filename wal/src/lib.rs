//! The write-ahead log: what a device was told is committed, is on disk here.
//!
//! # The contract
//!
//! ```text
//!  Producer::append ──▶ Ticket ──commit──▶ CommitListener::committed   (now a PUBACK may leave)
//!                                   └────▶ Tap::committed              (then the local fan-out)
//!  Reader::read ──▶ Record ──▶ (sent to the cloud, acked) ──▶ Log::settle
//! ```
//!
//! 1. [`Producer::append`] encodes records into the open batch and gives a [`Ticket`]: offsets and the batch's number.
//!    All records of one call land in one commit or in none.
//! 2. One writer thread swaps the open batch out whole and commits it with one `fdatasync`.
//! 3. Only after that it calls the listeners of the batch; a failed batch calls [`CommitListener::failed`] and is never acked.
//! 4. A [`Reader`] yields a stream's records in offset order: each that is waiting, none that is settled, never one whose CRC is wrong.
//! 5. [`Log::settle`] says what became of a record. A record settles once; the first reason wins.
//! 6. Segments whose records are all settled are unlinked, and what little waits in others is copied to another; the bounds of [`Options`] hold by the policy each stream names.
//!
//! # Limits
//!
//! A record takes at most 4 MiB, an identity, route or topic 65535 bytes; 64 MiB may wait for a commit; dead letters take
//! 64 MiB and lose their oldest; what is stored for local reasons takes 64 MiB until it is trimmed and then refuses more; segments have 8 to 128 MiB;
//! quarantined ones take a quarter of `max_disk` for at most 30 days. The format and its invariants are in [`format`](mod@format).
//!
//! # What is assumed of the disk
//!
//! A completed `fdatasync` survives a power cut; a rename is durable after the directory's sync; sectors of 512 bytes are
//! torn only as wholes. After an error from a write or a sync nothing about that segment is believed any more.
#![forbid(unsafe_code)]

mod catalog;
mod checkpoint;
mod clock;
mod commit;
mod encoding;
mod error;
pub mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod injected_panic;
mod inspect;
mod intake;
mod io;
mod listener;
mod log;
mod options;
mod progress;
mod read;
mod record;
mod recovery;
mod segment;
mod shared;
mod stats;
mod sync;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use checkpoint::{Checkpoint, CheckpointError, Snapshot, Write};
pub use clock::{BootId, Clock, ClockReport, CloudTime, Doubt, SystemClock, Timestamp, TrustSource, wall_clock};
pub use commit::producer::Producer;
pub use encoding::dead_letter::DeadLetter;
pub use error::{AppendError, CommitError, OpenError, ReadError};
#[doc(hidden)]
pub use injected_panic::{may_be_asked_to_panic, panic_if_asked};
pub use inspect::audit::{Audit, LedgerLine};
pub use inspect::cursor::{Candidate, Chunk, Cursor, Damage, Found, Kept, RecordState};
pub use inspect::inspector::{Inspector, PartReport, SegmentCondition, SegmentReport, StreamReport};
pub use inspect::source::InspectError;
pub use inspect::verify::{Finding, Verified, VerifyStep};
pub use intake::busy::rest;
pub use intake::job::{RequeueError, Requeued};
pub use listener::{CommitListener, CommittedBatch, Settled, Tap, Ticket};
pub use log::{Log, Opened};
pub use options::{Options, StreamOptions, WhenFull};
pub use read::reader::Reader;
pub use read::suspended::{Suspension, SuspensionKey};
pub use record::{Batch, Epoch, NewRecord, Offset, Partition, PartitionSet, Record, RecordId, Settlement, StreamId};
pub use recovery::salvage::{SalvageReport, SalvageStep, Salvaged, salvage};
pub use stats::{DiskCall, DiskErrors, EvictedAt, Observer, Quarantined, RemovedQuarantined, StartReport, Stats, Status, StreamStatus};
