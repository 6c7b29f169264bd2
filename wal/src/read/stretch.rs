//! What of a stream comes next, in whatever segment it lies: the one way from an offset to its blocks in a running log.

use crate::encoding::block::Block;
use crate::error::ReadError;
use crate::record::Epoch;
use crate::segment::blocks::Blocks;
use crate::segment::segments::name;
use crate::shared::Shared;
use crate::sync::lock;

/// A range of the catalogue in which something of a stream may wait.
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) epoch: Epoch,
    pub(crate) first: u64,
    pub(crate) end: u64,
}

/// Blocks of a stream that follow each other in one segment.
pub(crate) struct Stretch {
    pub(crate) place: Place,
    /// Where it begins: the offset that was asked for, or that of the range.
    pub(crate) from: u64,
    /// Up to here the blocks are all that there is; never beyond the range.
    pub(crate) until: u64,
    pub(crate) blocks: Vec<Block>,
}

/// The blocks of a stream at or after `position` where anything may wait, about `bytes` of them, at least one if the range has
/// any. `None` if nothing that begins before `limit` may wait. Blocks on the disk.
///
/// # Errors
/// See [`ReadError`]. A segment that is damaged is told to the writer.
pub(crate) fn next(shared: &Shared, stream: u8, position: u64, limit: u64, bytes: usize) -> Result<Option<Stretch>, ReadError> {
    while let Some(place) = place(shared, stream, position).filter(|place| place.first < limit) {
        let from = position.max(place.first);
        // Otherwise compaction moved it meanwhile, and the catalogue says where it is now.
        if let Some(blocks) = fetch(shared, stream, &place, from, bytes)? {
            return Ok(Some(Stretch {
                from,
                until: blocks.until.min(place.end),
                blocks: blocks.list,
                place,
            }));
        }
    }
    Ok(None)
}

/// The first range of the catalogue at or after `position` that may have anything waiting.
fn place(shared: &Shared, stream: u8, position: u64) -> Option<Place> {
    let (segment, range) = lock(&shared.catalogue).place(stream, position)?;
    Some(Place {
        segment,
        epoch: Epoch(range.epoch),
        first: range.first,
        end: range.end,
    })
}

/// Reads blocks of a place; `None` if they lie elsewhere by now.
fn fetch(shared: &Shared, stream: u8, place: &Place, from: u64, bytes: usize) -> Result<Option<Blocks>, ReadError> {
    let read = || shared.segments.blocks(place.segment, stream, from, place.end, bytes);
    let is_known = lock(&shared.repairs).damaged.contains_key(&place.segment);
    let done = if is_known {
        read()
    } else {
        shared.segments.patiently(place.segment, read)
    };
    let error = match done {
        Ok(blocks) => return Ok(Some(blocks)),
        Err(error) => error,
    };
    if !lock(&shared.catalogue).lies_in(place.segment, stream, from) {
        return Ok(None);
    }
    let path = shared.segments.directory.path().join(name(place.segment));
    if error.is_lasting() {
        shared.mark_damaged(place.segment, &error);
        return Err(ReadError::Rescued { path });
    }
    Err(ReadError::Storage {
        path,
        source: Box::new(error),
    })
}
