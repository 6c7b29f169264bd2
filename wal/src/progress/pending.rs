//! What became of records and is not yet on disk.

use std::collections::{BTreeMap, BTreeSet};

use crate::encoding::change::{Change, Count};
use crate::progress::ledger_delta::LedgerDelta;
use crate::progress::stream::{Outcome, Outstanding};

/// Changes for the next commit.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) ledger: LedgerDelta,
    /// Records and bytes that no longer wait, by segment and stream.
    pub(crate) settled: BTreeMap<(u64, u8), (u64, u64)>,
    /// Records and bytes that wait although they were counted as gone, by segment and stream.
    pub(crate) found: BTreeMap<(u64, u8), (u64, u64)>,
    pub(crate) dead: Vec<DeadJob>,
    pub(crate) suspensions: Vec<Change>,
    /// Streams whose progress, floor or suspensions moved.
    pub(crate) moved: BTreeSet<u8>,
    pub(crate) drop_segments: Vec<u64>,
}

/// A record to be copied to the dead letters.
#[derive(Clone, Debug)]
pub(crate) struct DeadJob {
    pub(crate) segment: u64,
    pub(crate) stream: u8,
    pub(crate) offset: u64,
    pub(crate) slot: u32,
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
}

impl Pending {
    /// Counts a settled record; a dead one is copied by the commit that counts it.
    pub(crate) fn ended(&mut self, stream: u8, offset: u64, entry: &Outstanding, outcome: Outcome) {
        self.count(entry.segment, stream, entry.slot, entry.cost, outcome.count());
        if let Outcome::Dead { reason, detail } = outcome {
            self.dead.push(DeadJob {
                segment: entry.segment,
                stream,
                offset,
                slot: entry.slot,
                reason,
                detail,
            });
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ledger.is_empty()
            && self.moved.is_empty()
            && self.suspensions.is_empty()
            && self.drop_segments.is_empty()
            && self.settled.is_empty()
            && self.found.is_empty()
    }

    pub(crate) fn count(&mut self, segment: u64, stream: u8, slot: u32, cost: u64, count: Count) {
        self.ledger.add(slot, count, 1);
        let settled = self.settled.entry((segment, stream)).or_default();
        *settled = (settled.0 + 1, settled.1 + cost);
    }

    pub(crate) fn merge(&mut self, newer: Self) {
        self.ledger.merge(&newer.ledger);
        for (sums, newer) in [(&mut self.settled, newer.settled), (&mut self.found, newer.found)] {
            for (key, by) in newer {
                let sum = sums.entry(key).or_default();
                *sum = (sum.0 + by.0, sum.1 + by.1);
            }
        }
        self.dead.extend(newer.dead);
        self.suspensions.extend(newer.suspensions);
        self.moved.extend(newer.moved);
        self.drop_segments.extend(newer.drop_segments);
    }
}

/// A dead letter that leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}
