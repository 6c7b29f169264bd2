//! Finding whole blocks, records and snapshots in raw bytes, whatever lies around them. A block's header and each record
//! carry their own checksum, so that what is found is what was written.

use crate::encoding::block::{self, HEADER, INDEX};
use crate::encoding::change::Change;
use crate::encoding::record::{self, FIXED, MAX_RECORD, View};
use crate::encoding::row::{ROW_HEAD, RowKind, decode_row_at};
use crate::record::{Partition, StreamId};

/// What lies at a place.
pub(crate) enum Carved<'a> {
    /// A whole record, and how far to go on.
    Record(View<'a>, usize),
    /// A block's header with its index: its records' lengths follow.
    Block(Vec<usize>, usize),
    /// Nothing of ours begins here.
    Nothing,
}

/// Looks at what begins at the front of `bytes`. A block goes before a record, so that nothing inside a payload is taken
/// for a record of its own as long as the block's header is whole.
pub(crate) fn look(bytes: &[u8]) -> Carved<'_> {
    if let Some((header, lengths)) = block(bytes) {
        return Carved::Block(lengths, header);
    }
    match record(bytes) {
        Some((view, len)) => Carved::Record(view, len),
        None => Carved::Nothing,
    }
}

fn block(bytes: &[u8]) -> Option<(usize, Vec<usize>)> {
    // Cheap tests first: this is asked of every byte of a segment.
    if bytes.len() < HEADER + INDEX || !(1..=2).contains(&bytes[4]) || bytes[5] > StreamId::DEAD.0 {
        return None;
    }
    let first = HEADER + 5;
    let len = u32::from_le_bytes([bytes[first], bytes[first + 1], bytes[first + 2], bytes[first + 3]]) as usize;
    if usize::from(bytes[HEADER]) >= Partition::COUNT || !(FIXED..=MAX_RECORD).contains(&len) {
        return None;
    }
    block::records(bytes)
}

/// The whole record at the front of `bytes`.
pub(crate) fn record(bytes: &[u8]) -> Option<(View<'_>, usize)> {
    let head = bytes.get(..FIXED)?;
    let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    let (stream, flags) = (head[16], head[17]);
    let names = [54, 56, 58].map(|at| usize::from(u16::from_le_bytes([head[at], head[at + 1]])));
    let properties = u32::from_le_bytes([head[60], head[61], head[62], head[63]]) as usize;
    let least = names.iter().sum::<usize>().saturating_add(properties).saturating_add(FIXED);
    // A checksum over megabytes at every byte of a segment would take hours.
    let is_plausible = (least..=MAX_RECORD).contains(&len) && flags < 0x40 && stream <= StreamId::DEAD.0;
    if !is_plausible {
        return None;
    }
    Some((record::decode(bytes.get(..len)?)?, len))
}

/// The snapshot of the state at the front of `bytes`: the changes that make it.
pub(crate) fn snapshot(bytes: &[u8]) -> Option<Vec<Change>> {
    // A snapshot's first change is the epoch: a cheap test before the checksum.
    let head = bytes.get(..ROW_HEAD + 1)?;
    if head[9] != RowKind::Snapshot as u8 || head[ROW_HEAD] != 1 {
        return None;
    }
    decode_row_at(bytes, 0).map(|(row, _)| row.changes)
}
