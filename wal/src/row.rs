//! A row of the state table in bytes. The layout is in [`crate::format`].

use crate::codec::Cursor;
use crate::state::{Change, Count, Range};
use crate::{BootId, Partition, Timestamp};

/// What a row of the state table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowKind {
    Snapshot = 0,
    Delta = 1,
}

const VERSION: u8 = 1;
/// Bytes before the changes.
pub(crate) const ROW_HEAD: usize = 18;
/// The highest ledger slot.
pub(crate) const MAX_SLOT: u32 = 1 << 20;

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
    for change in changes {
        encode_change(change, &mut out);
    }
    let len = out.len() as u32;
    out[4..8].copy_from_slice(&len.to_le_bytes());
    let crc = checksum(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

/// A row's checksum is that of its bytes behind the word `row`, so that no row can be taken for a record.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(b"row"), bytes)
}

/// Reads the row that fills `bytes` exactly; none = damaged or of a later version.
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
        changes.push(decode_change(&mut rest)?);
    }
    Some(Row { kind, number, changes })
}

/// Reads a row that begins at `at`, with its length; none = there is none.
pub(crate) fn decode_row_at(bytes: &[u8], at: usize) -> Option<(Row, usize)> {
    let head = bytes.get(at + 4..at + ROW_HEAD)?;
    let len = u32::from_le_bytes(*head.first_chunk()?) as usize;
    if len < ROW_HEAD || head[4] != VERSION || head[5] > RowKind::Delta as u8 {
        return None;
    }
    Some((decode_row(bytes.get(at..at.checked_add(len)?)?)?, len))
}

fn encode_change(change: &Change, out: &mut Vec<u8>) {
    match change {
        Change::Epoch { epoch } => put(out, 1, &[*epoch]),
        Change::Stream { stream, name } => {
            out.extend_from_slice(&[2, *stream]);
            text(out, name);
        }
        Change::Next { stream, next } => {
            put(out, 3, &[]);
            put(out, *stream, &[*next]);
        }
        Change::Floor { stream, floor } => {
            put(out, 4, &[]);
            put(out, *stream, &[*floor]);
        }
        Change::Progress { stream, up_to } => progress(out, *stream, up_to),
        Change::File { file, epoch } => put(out, 6, &[*file, *epoch]),
        Change::Appended {
            file,
            stream,
            first,
            end,
            records,
            bytes,
        } => {
            put(out, 7, &[]);
            put(out, *stream, &[*file, *first, *end, *records, *bytes]);
        }
        Change::Settled {
            file,
            stream,
            records,
            bytes,
        } => {
            put(out, 8, &[]);
            put(out, *stream, &[*file, *records, *bytes]);
        }
        Change::DropFile { file } => put(out, 9, &[*file]),
        Change::Slot { slot, identity } => {
            out.push(10);
            out.extend_from_slice(&slot.to_le_bytes());
            text(out, identity);
        }
        Change::Ledger { slot, count, by } => {
            out.push(11);
            out.extend_from_slice(&slot.to_le_bytes());
            put(out, *count as u8, &[*by]);
        }
        Change::Hold {
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
        Change::Release {
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
        Change::Trusted { at } => {
            put(out, 14, &[at.wall_ms, at.monotonic_ms]);
            out.extend_from_slice(&at.boot.0.to_le_bytes());
        }
        Change::Carried {
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

fn put(out: &mut Vec<u8>, tag: u8, values: &[u64]) {
    out.push(tag);
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Most partitions stand at the same place, so: that place, which ones differ, and where those are.
fn progress(out: &mut Vec<u8>, stream: u8, up_to: &[u64; Partition::COUNT]) {
    let common = up_to.iter().copied().max().unwrap_or(0);
    let differing = up_to
        .iter()
        .enumerate()
        .filter(|(_, value)| **value != common)
        .fold(0_u64, |bits, (p, _)| bits | 1 << p);
    out.push(5);
    put(out, stream, &[common, differing]);
    for value in up_to.iter().filter(|value| **value != common) {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn decode_change(rest: &mut Cursor<'_>) -> Option<Change> {
    Some(match rest.u8()? {
        1 => Change::Epoch { epoch: rest.u64()? },
        2 => Change::Stream {
            stream: rest.u8()?,
            name: owned(rest)?,
        },
        3 => Change::Next {
            stream: rest.u8()?,
            next: rest.u64()?,
        },
        4 => Change::Floor {
            stream: rest.u8()?,
            floor: rest.u64()?,
        },
        5 => {
            let stream = rest.u8()?;
            let mut up_to = Box::new([rest.u64()?; Partition::COUNT]);
            let differing = rest.u64()?;
            for (p, value) in up_to.iter_mut().enumerate() {
                if differing & (1 << p) != 0 {
                    *value = rest.u64()?;
                }
            }
            Change::Progress { stream, up_to }
        }
        6 => Change::File {
            file: rest.u64()?,
            epoch: rest.u64()?,
        },
        7 => Change::Appended {
            stream: rest.u8()?,
            file: rest.u64()?,
            first: rest.u64()?,
            end: rest.u64()?,
            records: rest.u64()?,
            bytes: rest.u64()?,
        },
        8 => Change::Settled {
            stream: rest.u8()?,
            file: rest.u64()?,
            records: rest.u64()?,
            bytes: rest.u64()?,
        },
        9 => Change::DropFile { file: rest.u64()? },
        10 => Change::Slot {
            slot: bounded_slot(rest)?,
            identity: owned(rest)?,
        },
        11 => {
            let slot = bounded_slot(rest)?;
            let kind = rest.u8()?;
            Change::Ledger {
                slot,
                count: *Count::ALL.get(usize::from(kind))?,
                by: rest.u64()?,
            }
        }
        12 => Change::Hold {
            stream: rest.u8()?,
            from: rest.u64()?,
            next: rest.u64()?,
            until: rest.u64()?,
            route: owned(rest)?,
            identity: owned(rest)?,
        },
        13 => Change::Release {
            stream: rest.u8()?,
            from: rest.u64()?,
            route: owned(rest)?,
            identity: owned(rest)?,
        },
        14 => {
            let (wall_ms, monotonic_ms) = (rest.u64()?, rest.u64()?);
            Change::Trusted {
                at: Timestamp {
                    wall_ms,
                    monotonic_ms,
                    boot: BootId(rest.u128()?),
                    trusted: true,
                },
            }
        }
        15 => Change::Carried {
            stream: rest.u8()?,
            from: rest.u64()?,
            to: rest.u64()?,
            range: Range {
                first: rest.u64()?,
                end: rest.u64()?,
                epoch: rest.u64()?,
            },
            records: rest.u64()?,
            bytes: rest.u64()?,
        },
        16 => Change::Removed {
            stream: rest.u8()?,
            first: rest.u64()?,
            end: rest.u64()?,
        },
        _ => return None,
    })
}

fn owned(rest: &mut Cursor<'_>) -> Option<String> {
    let len = usize::from(rest.u16()?);
    rest.text(len).map(str::to_owned)
}

/// A slot's number, which sizes a table: no damage may make that table huge.
fn bounded_slot(rest: &mut Cursor<'_>) -> Option<u32> {
    rest.u32().filter(|slot| *slot <= MAX_SLOT)
}
