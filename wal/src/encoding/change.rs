//! Changes of the catalogue.

use crate::clock::Timestamp;
use crate::clock::marks::Mark;
use crate::record::Partition;

/// Ways a counter of the ledger can rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Count {
    Accepted = 0,
    Requeued = 1,
    Delivered = 2,
    Expired = 3,
    Evicted = 4,
    Dead = 5,
    Damaged = 6,
}

impl Count {
    pub(crate) const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Requeued,
        Self::Delivered,
        Self::Expired,
        Self::Evicted,
        Self::Dead,
        Self::Damaged,
    ];
}

/// One change of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Epoch {
        epoch: u64,
    },
    Stream {
        stream: u8,
        name: String,
    },
    Next {
        stream: u8,
        next: u64,
    },
    Floor {
        stream: u8,
        floor: u64,
    },
    Progress {
        stream: u8,
        up_to: Box<[u64; Partition::COUNT]>,
    },
    Segment {
        segment: u64,
        epoch: u64,
    },
    Appended {
        segment: u64,
        stream: u8,
        first: u64,
        end: u64,
        records: u64,
        bytes: u64,
    },
    Settled {
        segment: u64,
        stream: u8,
        records: u64,
        bytes: u64,
    },
    DropSegment {
        segment: u64,
    },
    Slot {
        slot: u32,
        identity: String,
    },
    Ledger {
        slot: u32,
        count: Count,
        by: u64,
    },
    Suspend {
        stream: u8,
        from: u64,
        next: u64,
        until: u64,
        route: String,
        identity: String,
    },
    Resume {
        stream: u8,
        from: u64,
        route: String,
        identity: String,
    },
    /// The newest trusted time; 0 = it is forgotten.
    Trusted {
        at: Timestamp,
    },
    /// Where the streams stood at a trusted moment.
    Mark(Mark),
    /// What waits of a range in segment `from` lies in segment `to` now. `from` 0 = it has lain there, in a snapshot.
    Compacted {
        stream: u8,
        from: u64,
        to: u64,
        range: Range,
        records: u64,
        bytes: u64,
    },
    /// Single records of an internal stream were taken out.
    Removed {
        stream: u8,
        first: u64,
        end: u64,
    },
}

/// Offsets of one stream that one segment holds, all first accepted under one epoch. Not each of them need be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) end: u64,
    pub(crate) epoch: u64,
}
