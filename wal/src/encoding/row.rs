//! A row of the state table in bytes. The layout is in [`crate::format`].

use std::collections::BTreeMap;

use crate::clock::marks::Mark;
use crate::clock::{BootId, Timestamp};
use crate::encoding::change::{Change, Count, Range};
use crate::encoding::record::Cursor;
use crate::format::{MAX_SLOT, VERSION};
use crate::record::Partition;

/// What a row of the state table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowKind {
    Snapshot = 0,
    Delta = 1,
}

/// The tag of a next offset. Between two trusted times that are the same it belongs to a mark.
const NEXT: u8 = 3;
const TRUSTED: u8 = 14;
/// Bytes before the changes.
pub(crate) const ROW_HEAD: usize = 18;
/// A row of the state table, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) kind: RowKind,
    /// Its key, which stands in it too, so that a row found anywhere knows its place.
    pub(crate) number: u64,
    pub(crate) changes: Vec<Change>,
}

/// A row of the state table: CRC32C, length, version, kind, number, changes.
pub(crate) fn encode_row(kind: RowKind, number: u64, changes: &[Change]) -> Vec<u8> {
    let mut out = vec![0; 8];
    out.extend_from_slice(&[VERSION, kind as u8]);
    out.extend_from_slice(&number.to_le_bytes());
    let are_alike = |one: &Change, next: &Change| counter(one).is_some() && counter(one) == counter(next);
    for alike in changes.chunk_by(are_alike) {
        match alike.first().and_then(counter) {
            Some(count) => ledger(count, alike, &mut out),
            None => alike.iter().for_each(|change| encode_change(change, &mut out)),
        }
    }
    let len = out.len() as u32;
    out[4..8].copy_from_slice(&len.to_le_bytes());
    let crc = checksum(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

/// A row's checksum is that of its bytes behind the word `row`, so that no row can be taken for a record.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(b"row"), bytes)
}

/// Reads the row that fills `bytes` exactly; `None` if damaged or of a later version.
pub(crate) fn decode_row(bytes: &[u8]) -> Option<Row> {
    let mut rest = Cursor(bytes);
    let crc = rest.u32()?;
    if checksum(rest.0) != crc || rest.u32()? as usize != bytes.len() || rest.u8()? != VERSION {
        return None;
    }
    let kind = match rest.u8()? {
        0 => RowKind::Snapshot,
        1 => RowKind::Delta,
        _ => return None,
    };
    let number = rest.u64()?;
    let mut changes = Vec::new();
    while !rest.0.is_empty() {
        decode_change(&mut rest, &mut changes)?;
    }
    Some(Row { kind, number, changes })
}

/// The version of a whole row that another version wrote: what it says must not be taken for damage.
pub(crate) fn foreign_version(bytes: &[u8]) -> Option<u8> {
    let mut rest = Cursor(bytes);
    let crc = rest.u32()?;
    let is_whole = checksum(rest.0) == crc && rest.u32()? as usize == bytes.len();
    rest.u8().filter(|version| is_whole && *version != VERSION)
}

/// Reads a row that begins at `at`, with its length; `None` if there is none.
pub(crate) fn decode_row_at(bytes: &[u8], at: usize) -> Option<(Row, usize)> {
    let head = bytes.get(at + 4..at + ROW_HEAD)?;
    let len = u32::from_le_bytes(*head.first_chunk()?) as usize;
    if len < ROW_HEAD || head[4] != VERSION || head[5] > RowKind::Delta as u8 {
        return None;
    }
    Some((decode_row(bytes.get(at..at.checked_add(len)?)?)?, len))
}

/// Which counter a change raises.
fn counter(change: &Change) -> Option<Count> {
    match change {
        Change::Ledger { count, .. } => Some(*count),
        _ => None,
    }
}

/// One counter of many devices.
fn ledger(count: Count, rises: &[Change], out: &mut Vec<u8>) {
    out.extend_from_slice(&[11, count as u8]);
    number(rises.len() as u64, out);
    for change in rises {
        if let Change::Ledger { slot, by, .. } = change {
            number(u64::from(*slot), out);
            number(*by, out);
        }
    }
}

fn encode_change(change: &Change, out: &mut Vec<u8>) {
    match change {
        Change::Epoch { epoch } => put(out, 1, &[*epoch]),
        Change::Stream { stream, name } => {
            out.extend_from_slice(&[2, *stream]);
            text(out, name);
        }
        Change::Next { stream, next } => {
            put(out, NEXT, &[]);
            put(out, *stream, &[*next]);
        }
        Change::Floor { stream, floor } => {
            put(out, 4, &[]);
            put(out, *stream, &[*floor]);
        }
        Change::Progress { stream, up_to } => progress(out, *stream, up_to),
        Change::Segment { segment, epoch } => put(out, 6, &[*segment, *epoch]),
        Change::Appended {
            segment,
            stream,
            first,
            end,
            records,
            bytes,
        } => {
            put(out, 7, &[]);
            put(out, *stream, &[*segment, *first, *end, *records, *bytes]);
        }
        Change::Settled {
            segment,
            stream,
            records,
            bytes,
        } => {
            put(out, 8, &[]);
            put(out, *stream, &[*segment, *records, *bytes]);
        }
        Change::DropSegment { segment } => put(out, 9, &[*segment]),
        Change::Slot { slot, identity } => {
            put(out, 10, &[u64::from(*slot)]);
            text(out, identity);
        }
        Change::Ledger { count, .. } => ledger(*count, std::slice::from_ref(change), out),
        Change::Suspend {
            stream,
            from,
            next,
            until,
            route,
            identity,
        } => {
            put(out, 12, &[]);
            put(out, *stream, &[*from, *next, *until]);
            text(out, route);
            text(out, identity);
        }
        Change::Resume {
            stream,
            from,
            route,
            identity,
        } => {
            put(out, 13, &[]);
            put(out, *stream, &[*from]);
            text(out, route);
            text(out, identity);
        }
        Change::Trusted { at } => trusted(out, at),
        Change::Mark(Mark { at, next }) => {
            trusted(out, at);
            for (stream, next) in next {
                out.extend_from_slice(&[NEXT, *stream]);
                number(*next, out);
            }
            trusted(out, at);
        }
        Change::Compacted {
            stream,
            from,
            to,
            range,
            records,
            bytes,
        } => {
            put(out, 15, &[]);
            put(out, *stream, &[*from, *to, range.first, range.end, range.epoch, *records, *bytes]);
        }
        Change::Removed { stream, first, end } => {
            put(out, 16, &[]);
            put(out, *stream, &[*first, *end]);
        }
    }
}

fn trusted(out: &mut Vec<u8>, at: &Timestamp) {
    put(out, TRUSTED, &[at.wall_ms, at.monotonic_ms]);
    out.extend_from_slice(&at.boot.0.to_le_bytes());
}

fn put(out: &mut Vec<u8>, tag: u8, values: &[u64]) {
    out.push(tag);
    values.iter().for_each(|value| number(*value, out));
}

/// A number in as few bytes as it needs: seven bits each, the lowest first; the highest bit says that more follow (LEB128).
fn number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Partitions stand near each other, so: the farthest, which ones differ, and by how much those are behind.
fn progress(out: &mut Vec<u8>, stream: u8, up_to: &[u64; Partition::COUNT]) {
    let farthest = up_to.iter().copied().max().unwrap_or(0);
    let behind = || up_to.iter().map(|value| farthest - value).enumerate().filter(|(_, by)| *by > 0);
    let which = behind().fold(0_u64, |bits, (p, _)| bits | 1 << p);
    out.push(5);
    put(out, stream, &[farthest]);
    out.extend_from_slice(&which.to_le_bytes());
    behind().for_each(|(_, by)| number(by, out));
}

fn decode_change(rest: &mut Cursor<'_>, changes: &mut Vec<Change>) -> Option<()> {
    let change = match rest.u8()? {
        1 => Change::Epoch { epoch: rest.number()? },
        2 => Change::Stream {
            stream: rest.u8()?,
            name: owned(rest)?,
        },
        NEXT => Change::Next {
            stream: rest.u8()?,
            next: rest.number()?,
        },
        4 => Change::Floor {
            stream: rest.u8()?,
            floor: rest.number()?,
        },
        5 => {
            let stream = rest.u8()?;
            let mut up_to = Box::new([rest.number()?; Partition::COUNT]);
            let which = rest.u64()?;
            for (p, value) in up_to.iter_mut().enumerate() {
                if which & (1 << p) != 0 {
                    *value = value.checked_sub(rest.number()?)?;
                }
            }
            Change::Progress { stream, up_to }
        }
        6 => Change::Segment {
            segment: rest.number()?,
            epoch: rest.number()?,
        },
        7 => Change::Appended {
            stream: rest.u8()?,
            segment: rest.number()?,
            first: rest.number()?,
            end: rest.number()?,
            records: rest.number()?,
            bytes: rest.number()?,
        },
        8 => Change::Settled {
            stream: rest.u8()?,
            segment: rest.number()?,
            records: rest.number()?,
            bytes: rest.number()?,
        },
        9 => Change::DropSegment { segment: rest.number()? },
        10 => Change::Slot {
            slot: bounded_slot(rest)?,
            identity: owned(rest)?,
        },
        11 => {
            let count = *Count::ALL.get(usize::from(rest.u8()?))?;
            for _ in 0..rest.number()? {
                changes.push(Change::Ledger {
                    slot: bounded_slot(rest)?,
                    count,
                    by: rest.number()?,
                });
            }
            return Some(());
        }
        12 => Change::Suspend {
            stream: rest.u8()?,
            from: rest.number()?,
            next: rest.number()?,
            until: rest.number()?,
            route: owned(rest)?,
            identity: owned(rest)?,
        },
        13 => Change::Resume {
            stream: rest.u8()?,
            from: rest.number()?,
            route: owned(rest)?,
            identity: owned(rest)?,
        },
        TRUSTED => {
            let at = read_trusted(rest)?;
            let mut behind = Cursor(rest.0);
            match rest_of_mark(&mut behind, &at) {
                Some(next) => {
                    rest.0 = behind.0;
                    Change::Mark(Mark { at, next })
                }
                None => Change::Trusted { at },
            }
        }
        15 => Change::Compacted {
            stream: rest.u8()?,
            from: rest.number()?,
            to: rest.number()?,
            range: Range {
                first: rest.number()?,
                end: rest.number()?,
                epoch: rest.number()?,
            },
            records: rest.number()?,
            bytes: rest.number()?,
        },
        16 => Change::Removed {
            stream: rest.u8()?,
            first: rest.number()?,
            end: rest.number()?,
        },
        _ => return None,
    };
    changes.push(change);
    Some(())
}

/// The next offsets behind a trusted time, if that time is said once more behind them.
fn rest_of_mark(rest: &mut Cursor<'_>, at: &Timestamp) -> Option<Vec<(u8, u64)>> {
    let mut next = Vec::new();
    loop {
        match rest.u8()? {
            NEXT => next.push((rest.u8()?, rest.number()?)),
            TRUSTED => return (read_trusted(rest)? == *at && !next.is_empty()).then_some(next),
            _ => return None,
        }
    }
}

fn read_trusted(rest: &mut Cursor<'_>) -> Option<Timestamp> {
    Some(Timestamp {
        wall_ms: rest.number()?,
        monotonic_ms: rest.number()?,
        boot: BootId(rest.u128()?),
        trusted: true,
    })
}

fn owned(rest: &mut Cursor<'_>) -> Option<String> {
    let len = usize::try_from(rest.number()?).ok()?;
    rest.text(len).map(str::to_owned)
}

/// A slot's number, which sizes a table: no damage may make that table huge.
fn bounded_slot(rest: &mut Cursor<'_>) -> Option<u32> {
    u32::try_from(rest.number()?).ok().filter(|slot| *slot <= MAX_SLOT)
}

/// The rows of the state that were found whole, by their numbers.
pub(crate) type Rows = BTreeMap<u64, Row>;
