//! Places of devices in the ledger.

use std::collections::HashMap;

use crate::format::MAX_SLOT;

/// Devices and their places in the ledger. Slot 0 is `other`.
#[derive(Debug)]
pub(crate) struct Slots {
    by_identity: HashMap<String, u32>,
    next: u32,
    max: u32,
    /// Given out but not yet committed.
    pub(crate) fresh: Vec<(u32, String)>,
}

impl Slots {
    pub(crate) fn new<'a>(known: impl Iterator<Item = &'a str>, max: u32) -> Self {
        let mut by_identity = HashMap::new();
        let mut next = 1;
        for (slot, identity) in known.enumerate().skip(1) {
            by_identity.insert(identity.to_owned(), slot as u32);
            next = slot as u32 + 1;
        }
        Self {
            by_identity,
            next,
            max: max.min(MAX_SLOT),
            fresh: Vec::new(),
        }
    }

    /// The slot of a device; `other` when there are no more.
    pub(crate) fn of(&mut self, identity: &str) -> u32 {
        if let Some(slot) = self.by_identity.get(identity) {
            return *slot;
        }
        if self.next > self.max {
            return 0;
        }
        let slot = self.next;
        self.next += 1;
        self.by_identity.insert(identity.to_owned(), slot);
        self.fresh.push((slot, identity.to_owned()));
        slot
    }
}
