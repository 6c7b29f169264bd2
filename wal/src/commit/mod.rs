//! The writer thread and all that it does: commits, room on the disk, compaction, rotation, and what a person asks of it.

pub(crate) mod background;
pub(crate) mod compaction;
pub(crate) mod idle_commit;
pub(crate) mod producer;
pub(crate) mod requeue;
pub(crate) mod retention;
pub(crate) mod rotation;
pub(crate) mod write;
pub(crate) mod writer;
