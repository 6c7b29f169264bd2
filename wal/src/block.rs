//! Cutting records into blocks that fill their pages, and finding them again. The layout is in [`crate::format`].

use bytes::Bytes;

use crate::codec::{self, Cursor, FIXED, View};
use crate::files::RawBlock;

/// Bytes of the header before the index.
pub(crate) const HEADER: usize = 8;
/// Bytes of the index per record.
pub(crate) const INDEX: usize = 9;
/// What redb and the key take of a run of pages.
const SLACK: usize = 64;

const VERSION: u8 = 1;

/// One record's line in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) partition: u8,
    pub(crate) slot: u32,
    pub(crate) at: u32,
    pub(crate) len: u32,
}

impl Entry {
    /// What the record counts for in the stream's bound.
    pub(crate) const fn cost(self) -> u64 {
        (self.len as usize + INDEX) as u64
    }
}

/// Splits records of the given sizes (index lines included) into runs that fill whole pages; gives each run's length.
pub(crate) fn cut(costs: &[usize]) -> Vec<usize> {
    let mut runs = Vec::new();
    let mut left: usize = costs.iter().sum();
    let mut at = 0;
    while at < costs.len() {
        let target = run_target(left + HEADER);
        let mut size = HEADER;
        let mut count = 0;
        while let Some(cost) = costs.get(at + count) {
            if count > 0 && size + cost > target {
                break;
            }
            size += cost;
            left -= cost;
            count += 1;
        }
        runs.push(count);
        at += count;
    }
    runs
}

/// The largest run of pages that `left` bytes fill, or what remains when that is less than a page.
fn run_target(left: usize) -> usize {
    (0..=4)
        .rev()
        .map(|k| (4096 << k) - SLACK)
        .find(|size| *size <= left)
        .unwrap_or(4096 - SLACK)
}

/// Makes a block of records that lie in `data` at the places the entries name.
pub(crate) fn build(data: &[u8], entries: &[Entry]) -> Vec<u8> {
    let records: usize = entries.iter().map(|entry| entry.len as usize).sum();
    let mut block = Vec::with_capacity(HEADER + entries.len() * INDEX + records);
    block.extend_from_slice(&[VERSION, 0]);
    block.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    block.extend_from_slice(&[0; 4]);
    for entry in entries {
        block.push(entry.partition);
        block.extend_from_slice(&entry.slot.to_le_bytes());
        block.extend_from_slice(&entry.len.to_le_bytes());
    }
    let crc = header_crc(&block);
    block[4..8].copy_from_slice(&crc.to_le_bytes());
    for entry in entries {
        block.extend_from_slice(&data[entry.at as usize..(entry.at + entry.len) as usize]);
    }
    block
}

/// A block as read back. Every offset from `first` on has an entry, damaged ones included.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) first: u64,
    /// Where the next block begins.
    pub(crate) until: u64,
    pub(crate) bytes: Bytes,
    pub(crate) entries: Vec<Entry>,
}

impl Block {
    /// Reads the index; when it is damaged, looks for whole records instead and takes every other offset for lost.
    pub(crate) fn parse(raw: RawBlock) -> Self {
        let RawBlock { first, until, bytes } = raw;
        let entries = index(&bytes).unwrap_or_else(|| {
            let mut found = scan(first, &bytes);
            // No more than fit: the next block may begin higher, where a refused batch burned offsets.
            let fit = (bytes.len() / (FIXED + INDEX)) as u64;
            let offsets = until.saturating_sub(first).min(fit) as usize;
            found.resize(found.len().max(offsets), LOST);
            found
        });
        Self {
            first,
            until,
            bytes,
            entries,
        }
    }

    /// The record of an entry, checked; none = damaged.
    pub(crate) fn record(&self, nth: usize) -> Option<View<'_>> {
        let entry = self.entries.get(nth)?;
        let bytes = self
            .bytes
            .get(entry.at as usize..(entry.at as usize).checked_add(entry.len as usize)?)?;
        codec::decode(bytes).filter(|view| view.offset == self.first + nth as u64)
    }
}

fn header_crc(block: &[u8]) -> u32 {
    let until = HEADER + usize::from(u16::from_le_bytes([block[2], block[3]])) * INDEX;
    crc32c::crc32c_append(crc32c::crc32c(&block[..4]), &block[HEADER..until])
}

fn index(bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut rest = Cursor(bytes);
    let version = rest.u8()?;
    rest.u8()?;
    let count = usize::from(rest.u16()?);
    let crc = rest.u32()?;
    let mut lines = Cursor(rest.take(count * INDEX)?);
    if version != VERSION || header_crc(bytes) != crc {
        return None;
    }
    let mut at = (HEADER + count * INDEX) as u32;
    (0..count)
        .map(|_| {
            let entry = Entry {
                partition: lines.u8()?,
                slot: lines.u32()?,
                len: lines.u32()?,
                at,
            };
            at = at.checked_add(entry.len)?;
            Some(entry)
        })
        .collect()
}

/// A record of which nothing is known: it decodes to nothing and so counts as damaged.
const LOST: Entry = Entry {
    partition: 0,
    slot: 0,
    at: 0,
    len: 0,
};

/// Finds the records whose own CRC is right. Those before and between them become damaged entries; those after the last
/// one found cannot be told from nothing.
fn scan(first: u64, bytes: &[u8]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = 0;
    while at + FIXED <= bytes.len() {
        let len = u32::from_le_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]]) as usize;
        let found = bytes.get(at..at.saturating_add(len)).and_then(codec::decode);
        let expected = first + entries.len() as u64;
        let Some(view) = found.filter(|view| (expected..expected + 65536).contains(&view.offset)) else {
            at += 1;
            continue;
        };
        let partition = crate::Partition::of(view.identity).index() as u8;
        entries.resize((view.offset - first) as usize, LOST);
        entries.push(Entry {
            partition,
            slot: view.slot,
            at: at as u32,
            len: len as u32,
        });
        at += len;
    }
    entries
}
