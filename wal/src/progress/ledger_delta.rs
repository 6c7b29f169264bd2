//! By how much counters of the ledger rose.

use std::collections::HashMap;

use crate::encoding::change::{Change, Count};
use crate::progress::offset_hasher::OffsetHasher;

/// Slots and counters, and by how much each rose.
#[derive(Debug, Default)]
pub(crate) struct LedgerDelta(HashMap<u64, u64, OffsetHasher>);

/// How many keys a slot has: more than there are counters.
const KEYS: u64 = 8;

impl LedgerDelta {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, slot: u32, count: Count, by: u64) {
        *self.0.entry(u64::from(slot) * KEYS + count as u64).or_default() += by;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (key, by) in &other.0 {
            *self.0.entry(*key).or_default() += by;
        }
    }

    /// In no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Count, u64)> {
        self.0.iter().map(|(key, by)| {
            let count = Count::ALL[(key % KEYS) as usize];
            ((key / KEYS) as u32, count, *by)
        })
    }

    /// As changes, those of one counter together.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let mut rises: Vec<_> = self.iter().collect();
        rises.sort_unstable_by_key(|(slot, count, _)| (*count, *slot));
        rises
            .into_iter()
            .map(|(slot, count, by)| Change::Ledger { slot, count, by })
            .collect()
    }
}
