//! Where a block and a record in it lie.

use bytes::Bytes;

use crate::encoding::block::INDEX;

/// Where a thing stands.
pub(crate) type Key = (u8, u64);

/// A block as stored.
#[derive(Debug)]
pub(crate) struct RawBlock {
    pub(crate) first: u64,
    /// Where the next one begins, or the end of what was asked for.
    pub(crate) until: u64,
    pub(crate) bytes: Bytes,
}

/// One record's line in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) partition: u8,
    pub(crate) slot: u32,
    pub(crate) at: u32,
    pub(crate) len: u32,
}

impl Entry {
    /// What the record counts for in the stream's bound.
    pub(crate) const fn cost(self) -> u64 {
        (self.len as usize + INDEX) as u64
    }
}

/// One appended record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) stream: u8,
    pub(crate) offset: u64,
    pub(crate) entry: Entry,
}
