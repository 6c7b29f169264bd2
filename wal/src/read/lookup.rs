//! Single records by their places.

use std::cell::Cell;

use crate::encoding::block::Block;
use crate::encoding::record;
use crate::record::{Epoch, Record};
use crate::segment::database::SegmentError;
use crate::shared::Shared;
use crate::sync::lock;

/// Why a record is not found at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It is there and its checksum is wrong, however often it is read.
    Damaged,
    /// It lies elsewhere by now, its segment cannot be read at the moment, or the writer has to repair the segment first.
    ForNow,
}

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
        self.read_block(segment, stream, offset).ok()?
    }

    fn read_block(&self, segment: u64, stream: u8, offset: u64) -> Result<Option<Block>, SegmentError> {
        Ok(self.segments.blocks(segment, stream, offset, offset + 1, 1)?.list.pop())
    }

    /// One committed record that may be there. What cannot be read is read again past the caches before it is taken for damaged, and a segment
    /// that is damaged is told to the writer.
    ///
    /// # Errors
    /// See [`Absent`].
    pub(crate) fn record_at(&self, segment: u64, stream: u8, offset: u64) -> Result<Record, Absent> {
        self.look_up(segment, stream, offset, false)
    }

    /// The same of a record that was read there before: if it is not there any more, redb's pages are damaged.
    ///
    /// # Errors
    /// See [`Absent`].
    pub(crate) fn known_record_at(&self, segment: u64, stream: u8, offset: u64) -> Result<Record, Absent> {
        self.look_up(segment, stream, offset, true)
    }

    fn look_up(&self, segment: u64, stream: u8, offset: u64, is_known: bool) -> Result<Record, Absent> {
        let epoch = lock(&self.catalogue).epoch_of(segment, stream, offset);
        let epoch = Epoch(epoch.ok_or(Absent::ForNow)?);
        let is_record = Cell::new(false);
        let read = || {
            is_record.set(false);
            let block = self.read_block(segment, stream, offset)?;
            let found = block.and_then(|block| Some((block.position(offset)?, block)));
            let Some((nth, block)) = found else {
                let missing = || SegmentError::Damaged(format!("record {offset} of stream {stream} is not where it was"));
                return if is_known { Err(missing()) } else { Ok(None) };
            };
            let view = block.record(nth).map(|view: record::View<'_>| view.to_record(&block.bytes, epoch));
            is_record.set(view.is_none());
            view.map(Some)
                .ok_or_else(|| SegmentError::Damaged(format!("the checksum of record {offset} of stream {stream} is wrong")))
        };
        match self.segments.patiently(segment, read) {
            Ok(Some(record)) => Ok(record),
            _ if !lock(&self.catalogue).lies_in(segment, stream, offset) => Err(Absent::ForNow),
            Ok(None) => {
                self.mark_unsure(segment, stream);
                Err(Absent::ForNow)
            }
            Err(_) if is_record.get() => Err(Absent::Damaged),
            Err(error) => {
                if error.is_lasting() {
                    self.mark_damaged(segment, &error);
                }
                Err(Absent::ForNow)
            }
        }
    }
}
