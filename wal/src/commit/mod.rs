//! The writer thread and all that it does: commits, room on the disk, compaction, rotation, and what a person asks of it.

pub(crate) mod announce;
pub(crate) mod background;
pub(crate) mod bounds;
pub(crate) mod compaction;
pub(crate) mod eviction;
pub(crate) mod producer;
pub(crate) mod recount;
pub(crate) mod requeue;
pub(crate) mod retention;
pub(crate) mod room;
pub(crate) mod rotation;
pub(crate) mod schedule;
pub(crate) mod write;
pub(crate) mod writer;
