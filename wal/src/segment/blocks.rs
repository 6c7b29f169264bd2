//! The blocks of a range of one stream in one segment.

use std::ops::Range;

use crate::encoding::block::Block;
use crate::segment::database::SegmentError;

/// Some blocks of a range, in order.
#[derive(Debug)]
pub(crate) struct Blocks {
    pub(crate) list: Vec<Block>,
    /// Up to here they are all that there is.
    pub(crate) until: u64,
}

/// Shows each entry of a range in order. `read` gives blocks from an offset on, as many as suit it.
pub(crate) fn each_entry(
    range: Range<u64>,
    mut read: impl FnMut(u64) -> Result<Blocks, SegmentError>,
    mut see: impl FnMut(&Block, usize),
) -> Result<(), SegmentError> {
    let mut from = range.start;
    while from < range.end {
        let blocks = read(from)?;
        for block in &blocks.list {
            block.entries_within(from..range.end).for_each(|nth| see(block, nth));
        }
        from = blocks.until;
    }
    Ok(())
}
