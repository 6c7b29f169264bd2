//! Single records by their places.

use crate::encoding::block::Block;
use crate::encoding::record;
use crate::record::Epoch;
use crate::shared::Shared;
use crate::sync::lock;

impl Shared {
    /// Whether one record of a user stream is among those that wait.
    pub(crate) fn is_waiting(&self, segment: u64, stream: u8, offset: u64) -> bool {
        let Some(block) = self.block_at(segment, stream, offset) else {
            return false;
        };
        let tracker = lock(&self.tracker);
        let tracked = tracker.streams.get(&stream);
        tracked.is_some_and(|tracked| block.position(offset).is_some_and(|nth| tracked.is_counted(&block, nth)))
    }

    /// What one record counts for in its stream's bound.
    pub(crate) fn cost_at(&self, segment: u64, stream: u8, offset: u64) -> Option<u64> {
        let block = self.block_at(segment, stream, offset)?;
        Some(block.entries.get(block.position(offset)?)?.cost())
    }

    fn block_at(&self, segment: u64, stream: u8, offset: u64) -> Option<Block> {
        self.segments.blocks(segment, stream, offset, offset + 1, 1).ok()?.list.pop()
    }

    /// One committed record; `None` if damaged or gone.
    pub(crate) fn record_at(&self, segment: u64, stream: u8, offset: u64) -> Option<crate::record::Record> {
        let epoch = Epoch(lock(&self.catalogue).epoch_of(segment, stream, offset)?);
        let block = self.block_at(segment, stream, offset)?;
        let nth = block.position(offset)?;
        block.record(nth).map(|view: record::View<'_>| view.to_record(&block.bytes, epoch))
    }
}
