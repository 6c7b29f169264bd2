//! What must outlive the process besides the log's records: sessions and retained messages.
//!
//! A change is a record of the stream `local`, committed before whatever it promises is answered. `state.redb` is a
//! checkpoint that follows that stream ([`Checkpointer`]): the log stays the one truth, and what the checkpoint lacks is
//! read again from there. Sessions and retained messages are [`Follower`]s; this folder knows neither.

mod checkpointer;
mod entry;
mod file;
mod follower;

pub(crate) use checkpointer::Checkpointer;
pub use checkpointer::StateReport;
#[cfg(test)]
pub(crate) use entry::read_entries;
pub(crate) use entry::{Entry, length_prefixed, record, write_entry};
pub use file::StateError;
pub(crate) use file::StateFile;
pub(crate) use follower::Follower;
