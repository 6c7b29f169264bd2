//! Since when records wait.

use crate::clock::Timestamp;
use crate::read::stretch;
use crate::shared::Shared;
use crate::sync::lock;

impl Shared {
    /// Notes when the oldest waiting record of each stream came, for the status.
    pub(crate) fn note_oldest(&self) {
        for (id, _) in &self.streams {
            let found = if self.gauges.records(id.0) == 0 {
                None
            } else {
                self.oldest_waiting(id.0)
            };
            let mut oldest = lock(&self.oldest);
            match found {
                Some(found) => oldest.insert(id.0, found),
                None => oldest.remove(&id.0),
            };
        }
    }

    fn oldest_waiting(&self, stream: u8) -> Option<(u64, Timestamp)> {
        let position = {
            let tracker = lock(&self.tracker);
            let tracked = tracker.streams.get(&stream)?;
            let first = tracked
                .outstanding
                .iter()
                .filter(|(_, entry)| entry.settled.is_none())
                .min_by_key(|(offset, _)| **offset);
            if let Some((offset, received)) = first.and_then(|(offset, entry)| Some((*offset, entry.received?))) {
                return Some((offset, received));
            }
            tracked.read_to.iter().copied().min()?
        };
        if let Some(known) = lock(&self.oldest).get(&stream).filter(|known| known.0 >= position) {
            return Some(*known);
        }
        let next = stretch::next(self, stream, position, u64::MAX, 1).ok()??;
        let block = next.blocks.first()?;
        block.entries_within(next.from..u64::MAX).find_map(|nth| {
            let view = block.record(nth)?;
            Some((view.offset, view.received))
        })
    }
}
