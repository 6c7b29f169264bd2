//! Finding whole records and rows in bytes, whatever lies around them. Each carries its own checksum, so that what is found is
//! what was written. This is the one place that asks every byte of a damaged segment.

use crate::encoding::block::{self, HEADER, INDEX};
use crate::encoding::record::{self, FIXED, MAX_RECORD, View};
use crate::encoding::row::{Row, decode_row_at};
use crate::record::{Partition, StreamId};

/// Something whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Whole<'a> {
    Record(View<'a>),
    Row(Row),
}

/// Something whole, and where it lies in the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) at: usize,
    pub(crate) len: usize,
    pub(crate) what: Whole<'a>,
}

/// What a scan looks for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'w> {
    /// Whether a record of this stream and offset is of use. Bytes that claim to be another are looked into.
    pub(crate) record: &'w dyn Fn(u8, u64) -> bool,
    /// Rows of the catalogue are of use.
    pub(crate) rows: bool,
    /// As long as a block's header is whole, only what it names is taken from the block, so that nothing inside a payload is
    /// taken for a record of its own.
    pub(crate) by_blocks: bool,
}

/// Goes through bytes in order.
pub(crate) struct Scan<'a, 'w> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
    wanted: Wanted<'w>,
    /// Lengths of the records that follow, as a block's header names them.
    named: std::vec::IntoIter<usize>,
}

impl<'a, 'w> Scan<'a, 'w> {
    /// Finds what begins before `end`; it may reach beyond.
    pub(crate) fn new(bytes: &'a [u8], end: usize, wanted: Wanted<'w>) -> Self {
        Self {
            bytes,
            at: 0,
            end,
            wanted,
            named: Vec::new().into_iter(),
        }
    }

    /// Up to where everything was found: at least `end`, once there is nothing more.
    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    fn record(&self, at: usize) -> Option<Piece<'a>> {
        let (stream, offset) = record::peek(self.bytes, at)?;
        if !(self.wanted.record)(stream, offset) {
            return None;
        }
        let view = record::decode_at(self.bytes, at)?;
        Some(Piece {
            at,
            len: view.len(),
            what: Whole::Record(view),
        })
    }

    fn row(&self, at: usize) -> Option<Piece<'a>> {
        let (row, len) = decode_row_at(self.bytes, at).filter(|_| self.wanted.rows)?;
        Some(Piece {
            at,
            len,
            what: Whole::Row(row),
        })
    }
}

impl<'a> Iterator for Scan<'a, '_> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        loop {
            if let Some(len) = self.named.next() {
                let at = self.at;
                self.at += len;
                match self.record(at).filter(|piece| piece.len == len) {
                    Some(piece) => return Some(piece),
                    None => continue,
                }
            }
            if self.at >= self.end {
                return None;
            }
            let header = self.wanted.by_blocks.then(|| block_at(self.bytes, self.at)).flatten();
            if let Some((header, lengths)) = header {
                self.at += header;
                self.named = lengths.into_iter();
            } else if let Some(piece) = self.record(self.at).or_else(|| self.row(self.at)) {
                self.at += piece.len;
                return Some(piece);
            } else {
                self.at += 1;
            }
        }
    }
}

/// The length of the whole block header that begins here, and the lengths of the records behind it.
fn block_at(bytes: &[u8], at: usize) -> Option<(usize, Vec<usize>)> {
    let bytes = bytes.get(at..)?;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Scan, Wanted, Whole};
    use crate::clock::{BootId, Timestamp};
    use crate::encoding::block::NewBlock;
    use crate::encoding::change::Change;
    use crate::encoding::entry::Entry;
    use crate::encoding::record::encode;
    use crate::encoding::row::{RowKind, encode_row};
    use crate::record::{NewRecord, Partition, StreamId};

    const ALL: Wanted<'static> = Wanted {
        record: &|_, _| true,
        rows: true,
        by_blocks: false,
    };

    fn record(offset: u64, payload: &[u8]) -> Vec<u8> {
        let received = Timestamp {
            wall_ms: 1,
            boot: BootId(1),
            monotonic_ms: 1,
            trusted: true,
        };
        let record = NewRecord {
            stream: StreamId(1),
            received,
            identity: "d",
            route: "r",
            topic: "t",
            payload,
            qos: 1,
            retain: false,
            expiry: None,
            properties: &[],
        };
        let mut out = Vec::new();
        encode(&record, offset, 0, None, &mut out);
        out
    }

    fn block(records: &[Vec<u8>]) -> Vec<u8> {
        let data = records.concat();
        let mut at = 0;
        let entry = |bytes: &Vec<u8>| {
            let entry = Entry {
                partition: Partition::of("d").index() as u8,
                slot: 0,
                at,
                len: bytes.len() as u32,
            };
            at += entry.len;
            entry
        };
        let entries: Vec<Entry> = records.iter().map(entry).collect();
        let block = NewBlock::Dense {
            key: (1, 7),
            data: &data,
            entries: &entries,
        };
        block.to_vec()
    }

    fn offsets(bytes: &[u8], wanted: Wanted<'_>) -> Vec<u64> {
        let pieces = Scan::new(bytes, bytes.len(), wanted);
        let offset = |what| match what {
            Whole::Record(view) => Some(view.offset),
            Whole::Row(_) => None,
        };
        pieces.filter_map(|piece| offset(piece.what)).collect()
    }

    #[test]
    fn records_and_rows_are_found_among_anything() {
        let row = encode_row(RowKind::Delta, 3, &[Change::Epoch { epoch: 5 }]);
        let bytes = [
            b"noise".to_vec(),
            record(7, b"one"),
            vec![0; 99],
            row.clone(),
            record(8, b"two"),
            b"end".to_vec(),
        ]
        .concat();
        let found: Vec<_> = Scan::new(&bytes, bytes.len(), ALL).map(|piece| (piece.at, piece.len)).collect();
        let len = record(7, b"one").len();
        assert_eq!(found, [(5, len), (5 + len + 99, row.len()), (5 + len + 99 + row.len(), len)]);
        assert_eq!(offsets(&bytes, ALL), [7, 8]);
        let wanted = Wanted {
            record: &|stream, offset| (stream, offset) == (1, 8),
            ..ALL
        };
        assert_eq!(offsets(&bytes, wanted), [8]);
    }

    #[test]
    fn what_begins_at_the_end_is_for_the_next_scan() {
        let bytes = [record(7, b"one"), record(8, b"two")].concat();
        let mut scan = Scan::new(&bytes, 1, ALL);
        assert!(scan.next().is_some() && scan.next().is_none());
        assert_eq!(scan.position(), record(7, b"one").len());
    }

    #[test]
    fn a_record_in_a_payload_is_none_as_long_as_the_header_is_whole() {
        let mut bytes = block(&[record(7, &record(99, b"forged")), record(8, b"next")]);
        let by_blocks = Wanted { by_blocks: true, ..ALL };
        assert_eq!(offsets(&bytes, by_blocks), [7, 8]);
        // The checksum of the record around it is wrong now.
        let header = bytes.len() - record(7, &record(99, b"forged")).len() - record(8, b"next").len();
        bytes[header] ^= 1;
        assert_eq!(offsets(&bytes, by_blocks), [8]);
        assert_eq!(offsets(&bytes, ALL), [99, 8]);
    }
}
