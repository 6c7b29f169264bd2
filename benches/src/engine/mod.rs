//! The logs compared: Forebay's through its public API, a raw file, redb by itself and SQLite.
//!
//! All of them store the same: records of [`RECORD`] bytes, encoding and checksum included, durable when a commit returns. Each keeps
//! [`BACKLOG`] records waiting and drops the oldest beyond them as new ones come, as a log does whose cloud keeps up.

mod acks;
pub mod forebay;
mod group;
mod raw;
mod record;
mod redb;
mod settler;
mod sqlite;

use std::time::Duration;

pub use acks::Acks;
pub use forebay::ForebayLog;
pub use group::Group;
pub use raw::RawFile;
pub use record::RECORD;
pub use redb::Redb;
pub use settler::Settler;
pub use sqlite::Sqlite;

/// Records that wait in each log while it is measured.
pub const BACKLOG: u64 = 20_000;

/// Stores encoded records durably.
pub trait Store: Send + 'static {
    /// Stores `records`, each of [`RECORD`] bytes, and drops what is too old; durable when it returns.
    ///
    /// # Errors
    ///
    /// The disk's.
    fn commit(&mut self, records: &[u8]) -> anyhow::Result<()>;
}

/// A log whose commits are made one after the other.
pub trait Commits {
    /// Makes one commit of `count` records and says how long its caller waited, encoding included.
    ///
    /// # Errors
    ///
    /// The disk's.
    fn commit(&mut self, count: usize) -> anyhow::Result<Duration>;
}

/// A log that many producers append to; who is acked stands in the [`Acks`] it was made with.
pub trait Service {
    /// Appends one record of a producer, which has none in flight.
    ///
    /// # Errors
    ///
    /// The log refuses it.
    fn append(&mut self, producer: u32) -> anyhow::Result<()>;

    /// Finishes what goes on in the background, so that the next engine has the disk to itself.
    ///
    /// # Errors
    ///
    /// The disk's.
    fn rest(&mut self) -> anyhow::Result<()>;
}
