//! Cutting records into blocks that fill their pages, and finding them again. The layout is in [`crate::format`].

use std::cell::Cell;
use std::ops::Range;

use bytes::Bytes;

use crate::encoding::entry::{Entry, Key, RawBlock};
use crate::encoding::record::{self, Cursor, View};
use crate::encoding::scan::{Scan, Wanted, Whole};

/// Bytes of the header before the index.
pub(crate) const HEADER: usize = 16;
/// Bytes of the index per record.
pub(crate) const INDEX: usize = 9;
/// Bytes of the index per record of a sparse block.
const SPARSE_INDEX: usize = INDEX + 4;
/// What redb and the key take of a run of pages.
const SLACK: usize = 64;

/// Records with consecutive offsets.
const DENSE: u8 = 1;
/// Records with the distance of each from the key's offset: what was left of blocks that were copied.
const SPARSE: u8 = 2;

/// Splits records of the given sizes (index lines included) into runs that fill whole pages, the first one together with what
/// lies `beside` it; gives each run's length.
pub(crate) fn cut(costs: &[usize], mut beside: usize) -> Vec<usize> {
    let mut runs = Vec::new();
    let mut left: usize = costs.iter().sum();
    let mut at = 0;
    while at < costs.len() {
        let target = run_target(beside + HEADER + left);
        let mut size = std::mem::take(&mut beside) + HEADER;
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

/// A block on its way into a segment.
#[derive(Debug)]
pub(crate) enum NewBlock<'a> {
    /// Records with consecutive offsets that lie in `data` at the places the entries name; put together where they are stored.
    Dense { key: Key, data: &'a [u8], entries: &'a [Entry] },
    /// As it stands.
    Made { key: Key, bytes: Bytes },
}

impl NewBlock<'_> {
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Dense { key, .. } | Self::Made { key, .. } => *key,
        }
    }

    /// Its bytes as stored.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Dense { entries, .. } => HEADER + entries.iter().map(|entry| entry.cost() as usize).sum::<usize>(),
            Self::Made { bytes, .. } => bytes.len(),
        }
    }

    #[cfg(test)]
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.bytes(&mut Vec::new()).to_vec()
    }

    /// Its bytes; made in `scratch` if they are nowhere yet.
    pub(crate) fn bytes<'a>(&'a self, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match self {
            Self::Dense { key, data, entries } => {
                scratch.clear();
                build(*key, data, entries, scratch);
                scratch
            }
            Self::Made { bytes, .. } => bytes,
        }
    }
}

fn build(key: Key, data: &[u8], entries: &[Entry], out: &mut Vec<u8>) {
    begin(DENSE, key, entries.len(), out);
    entries.iter().for_each(|entry| line(*entry, out));
    seal_header(out);
    // What follows each other there is copied at once.
    for run in entries.chunk_by(|one, next| one.at + one.len == next.at) {
        let bytes: usize = run.iter().map(|entry| entry.len as usize).sum();
        let at = run.first().map_or(0, |entry| entry.at as usize);
        out.extend_from_slice(&data[at..at + bytes]);
    }
}

/// Makes a block of records with gaps between their offsets; the first one's is the block's key. Distances fit 32 bits.
pub(crate) fn build_sparse<'a>(stream: u8, records: &[(u64, Entry, &[u8])]) -> NewBlock<'a> {
    let first = records.first().map_or(0, |(offset, ..)| *offset);
    let key = (stream, first);
    let bytes: usize = records.iter().map(|(_, entry, _)| sparse_cost(*entry)).sum();
    let mut out = Vec::with_capacity(HEADER + bytes);
    begin(SPARSE, key, records.len(), &mut out);
    for (offset, entry, _) in records {
        line(*entry, &mut out);
        out.extend_from_slice(&((offset - first) as u32).to_le_bytes());
    }
    seal_header(&mut out);
    records.iter().for_each(|(_, _, bytes)| out.extend_from_slice(bytes));
    NewBlock::Made {
        key,
        bytes: Bytes::from(out),
    }
}

/// What a record takes in a sparse block.
pub(crate) const fn sparse_cost(entry: Entry) -> usize {
    entry.len as usize + SPARSE_INDEX
}

fn begin(version: u8, (stream, first): Key, count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[version, stream]);
    out.extend_from_slice(&(count as u16).to_le_bytes());
    out.extend_from_slice(&first.to_le_bytes());
}

fn line(entry: Entry, out: &mut Vec<u8>) {
    out.push(entry.partition);
    out.extend_from_slice(&entry.slot.to_le_bytes());
    out.extend_from_slice(&entry.len.to_le_bytes());
}

/// The header's checksum, once the index is complete and nothing else is there.
fn seal_header(block: &mut [u8]) {
    let crc = crc32c::crc32c(&block[4..]);
    block[..4].copy_from_slice(&crc.to_le_bytes());
}

/// A block as read back.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) first: u64,
    /// Where the next block begins.
    pub(crate) until: u64,
    pub(crate) bytes: Bytes,
    pub(crate) entries: Vec<Entry>,
    /// The index is damaged: the entries are the records that were found whole, others may have been here.
    pub(crate) is_unsure: bool,
    /// Its records were found one by one.
    is_found: bool,
    /// Each entry's distance from `first`; `None` if consecutive.
    distances: Option<Vec<u32>>,
}

/// What header and index say.
struct Index {
    first: u64,
    entries: Vec<Entry>,
    distances: Option<Vec<u32>>,
}

impl Block {
    /// Reads the index; when it is damaged, looks for whole records instead.
    pub(crate) fn parse(raw: RawBlock) -> Self {
        let RawBlock { first, until, bytes } = raw;
        let index = index(&bytes).filter(|index| index.first == first);
        let is_unsure = index.is_none();
        let Index { entries, distances, .. } = index.unwrap_or_else(|| found(first, find(first, until, &bytes)));
        Self {
            first,
            until,
            bytes,
            entries,
            is_unsure,
            is_found: false,
            distances,
        }
    }

    /// A block of records that were found whole somewhere: their offsets and places in `bytes`, in order.
    pub(crate) fn of_found(until: u64, bytes: Bytes, records: Vec<(u64, Entry)>) -> Self {
        let first = records.first().map_or(until, |(offset, _)| *offset);
        let Index { entries, distances, .. } = found(first, records);
        Self {
            first,
            until,
            bytes,
            entries,
            is_unsure: false,
            is_found: true,
            distances,
        }
    }

    /// Whether its bytes are a block as written, which may be copied unchanged.
    pub(crate) fn is_whole(&self) -> bool {
        !self.is_unsure && !self.is_found
    }

    /// The offset of an entry.
    pub(crate) fn offset(&self, nth: usize) -> u64 {
        let distance = match &self.distances {
            Some(distances) => u64::from(distances[nth]),
            None => nth as u64,
        };
        self.first.saturating_add(distance)
    }

    /// The entries whose offsets are in a range, in order.
    pub(crate) fn entries_within(&self, range: Range<u64>) -> impl Iterator<Item = usize> + '_ {
        (0..self.entries.len()).filter(move |nth| range.contains(&self.offset(*nth)))
    }

    /// Where an offset's entry is.
    pub(crate) fn position(&self, offset: u64) -> Option<usize> {
        let distance = offset.checked_sub(self.first)?;
        match &self.distances {
            Some(distances) => distances.binary_search(&u32::try_from(distance).ok()?).ok(),
            None => usize::try_from(distance).ok().filter(|nth| *nth < self.entries.len()),
        }
    }

    /// The bytes of an entry; `None` if they reach beyond the block.
    pub(crate) fn stored(&self, nth: usize) -> Option<&[u8]> {
        let entry = self.entries.get(nth)?;
        self.bytes
            .get(entry.at as usize..(entry.at as usize).checked_add(entry.len as usize)?)
    }

    /// The record of an entry, checked; `None` if damaged.
    pub(crate) fn record(&self, nth: usize) -> Option<View<'_>> {
        record::decode(self.stored(nth)?).filter(|view| view.offset == self.offset(nth))
    }
}

/// Whether the header is whole and the records that it names fill the block exactly.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    records(bytes).is_some_and(|(header, lengths)| header + lengths.iter().sum::<usize>() == bytes.len())
}

/// Where the records begin that a whole header names, and their lengths.
pub(crate) fn records(bytes: &[u8]) -> Option<(usize, Vec<usize>)> {
    let entries = index(bytes)?.entries;
    let begin = entries.first()?.at as usize;
    Some((begin, entries.into_iter().map(|entry| entry.len as usize).collect()))
}

/// The index that whole records amount to.
fn found(first: u64, records: Vec<(u64, Entry)>) -> Index {
    let distances = records.iter().map(|(offset, _)| (offset - first) as u32).collect();
    Index {
        first,
        entries: records.into_iter().map(|(_, entry)| entry).collect(),
        distances: Some(distances),
    }
}

/// Whether a block lies under another key than its own: then redb's page is damaged.
pub(crate) fn is_misplaced(bytes: &[u8], key: (u8, u64)) -> bool {
    header(bytes).is_some_and(|header| header.key != key)
}

/// A block's header, checked together with its index.
struct Header<'a> {
    version: u8,
    key: (u8, u64),
    count: usize,
    index: &'a [u8],
}

fn header(bytes: &[u8]) -> Option<Header<'_>> {
    let mut rest = Cursor(bytes);
    let crc = rest.u32()?;
    let version = rest.u8()?;
    let stream = rest.u8()?;
    let count = usize::from(rest.u16()?);
    let first = rest.u64()?;
    let line = match version {
        DENSE => INDEX,
        SPARSE => SPARSE_INDEX,
        _ => return None,
    };
    let index = rest.take(count * line)?;
    (crc32c::crc32c(&bytes[4..HEADER + index.len()]) == crc).then_some(Header {
        version,
        key: (stream, first),
        count,
        index,
    })
}

fn index(bytes: &[u8]) -> Option<Index> {
    let Header {
        version,
        key: (_, first),
        count,
        index,
    } = header(bytes)?;
    let mut lines = Cursor(index);
    let mut at = (HEADER + index.len()) as u32;
    let mut entries = Vec::with_capacity(count);
    let mut distances = Vec::new();
    for _ in 0..count {
        let entry = Entry {
            partition: lines.u8()?,
            slot: lines.u32()?,
            len: lines.u32()?,
            at,
        };
        at = at.checked_add(entry.len)?;
        entries.push(entry);
        if version == SPARSE {
            distances.push(lines.u32()?);
        }
    }
    let is_sparse = version == SPARSE;
    (!is_sparse || distances.is_sorted_by(|one, next| one < next)).then_some(Index {
        first,
        entries,
        distances: is_sparse.then_some(distances),
    })
}

/// Finds the records from `first` up to `until` whose own CRC is right.
fn find(first: u64, until: u64, bytes: &[u8]) -> Vec<(u64, Entry)> {
    let expected = Cell::new(first);
    let is_in_place = |_: u8, offset: u64| (expected.get()..until).contains(&offset) && offset - first <= u64::from(u32::MAX);
    let wanted = Wanted {
        record: &is_in_place,
        rows: false,
        by_blocks: false,
    };
    let mut found: Vec<(u64, Entry)> = Vec::new();
    for piece in Scan::new(bytes, bytes.len(), wanted) {
        if let Whole::Record(view) = piece.what {
            expected.set(view.offset + 1);
            found.push((view.offset, record::entry_of(&view, piece.at)));
        }
    }
    found
}
