//! The contract between the checkpoint and those whose state it keeps.

use forebay_wal::{Checkpoint, CheckpointError, Write};

use super::entry::Entry;

/// A part of the local state. It is given its own entries of the stream `local`, in the order of the log.
///
/// At a start: [`restore`](Self::restore) once, then [`restore_entry`](Self::restore_entry) for what the log still has.
/// After that, again and again: [`writes`](Self::writes), the checkpoint's transaction, [`applied`](Self::applied).
/// Records may come once more after a restart or a failed write, so applying an entry twice must give the same state.
/// All methods but `owns` and `applied` may block on the disk.
pub(crate) trait Follower: Send + Sync {
    /// Whether an entry with this key belongs to this follower. No key has two.
    fn owns(&self, key: &[u8]) -> bool;

    /// Takes over what the checkpoint has.
    ///
    /// # Errors
    /// The checkpoint could not be read.
    fn restore(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError>;

    /// Takes over an entry of the log that the checkpoint may lack.
    ///
    /// # Errors
    /// The checkpoint could not be read.
    fn restore_entry(&self, entry: Entry, checkpoint: &Checkpoint) -> Result<(), CheckpointError>;

    /// Appends to `out` what these entries write into the checkpoint. Returns the version for [`Follower::applied`],
    /// which is called once they are written.
    ///
    /// # Errors
    /// The checkpoint could not be read.
    fn writes(&self, entries: Vec<Entry>, checkpoint: &Checkpoint, out: &mut Vec<Write>) -> Result<u64, CheckpointError>;

    /// The checkpoint has all entries up to this version.
    fn applied(&self, _version: u64) {}
}
