//! What can be read of a segment past redb: whole records, by their own checksums.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::encoding::block::Block;
use crate::encoding::change::Range;
use crate::encoding::record;
use crate::encoding::row::Rows;
use crate::encoding::scan::{Wanted, Whole};
use crate::io::directory::StorageFile;
use crate::record::StreamId;
use crate::segment::blocks::Blocks;
use crate::segment::search::{Step, each_whole, is_readable};
use crate::segment::segments::Segments;

/// How much is looked at at a time.
const WINDOW: usize = 1 << 20;
/// The whole records of one segment.
#[derive(Debug)]
pub(crate) struct Remains {
    file: Option<Arc<dyn StorageFile>>,
    /// Where each lies.
    records: BTreeMap<(u8, u64), (u64, u32)>,
}

impl Remains {
    /// Looks through all bytes of a segment for records of `ranges`. What a refused commit left in it lies in none of them.
    ///
    /// # Errors
    /// The segment is there and cannot be opened now.
    pub(crate) fn look_for(segments: &Segments, number: u64, ranges: &[(u8, Range)]) -> io::Result<Self> {
        let is_wanted = |stream: u8, offset: u64| {
            let mut of_stream = ranges.iter().filter(|(id, _)| *id == stream);
            of_stream.any(|(_, range)| (range.first..range.end).contains(&offset))
        };
        Self::scan(segments, number, &is_wanted, None)
    }

    /// Looks through all bytes of the newest segment for everything that is of use.
    ///
    /// # Errors
    /// The segment is there and cannot be opened now.
    pub(crate) fn look_for_all(segments: &Segments, number: u64) -> io::Result<(Self, Rows)> {
        let mut rows = Rows::new();
        let remains = Self::scan(segments, number, &|stream, _| stream <= StreamId::DEAD.0, Some(&mut rows))?;
        Ok((remains, rows))
    }

    fn scan(segments: &Segments, number: u64, is_wanted: &dyn Fn(u8, u64) -> bool, mut rows: Option<&mut Rows>) -> io::Result<Self> {
        let mut records = BTreeMap::new();
        let file = match segments.raw(number) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let wanted = Wanted {
            record: is_wanted,
            rows: rows.is_some(),
            by_blocks: false,
        };
        if let Some(file) = &file {
            each_whole(file.as_ref(), WINDOW, wanted, &mut |step| {
                if let Step::Found(piece, _, begin) = step {
                    match piece.what {
                        Whole::Record(view) => {
                            records.insert((view.stream.0, view.offset), (begin + piece.at as u64, piece.len as u32));
                        }
                        Whole::Row(row) => {
                            if let Some(rows) = rows.as_mut() {
                                rows.insert(row.number, row);
                            }
                        }
                    }
                }
                true
            })?;
        }
        Ok(Self { file, records })
    }

    /// Whether any record of a stream was found.
    pub(crate) fn has(&self, stream: u8) -> bool {
        self.records.range((stream, 0)..=(stream, u64::MAX)).next().is_some()
    }

    /// The next records of a range, about `max_bytes`, as a block.
    pub(crate) fn blocks(&self, stream: u8, range: std::ops::Range<u64>, max_bytes: usize) -> Blocks {
        let mut buffer = Vec::new();
        let mut found = Vec::new();
        let mut until = range.end;
        for ((_, offset), (at, len)) in self.records.range((stream, range.start)..(stream, range.end)) {
            if buffer.len() >= max_bytes {
                until = *offset;
                break;
            }
            let start = buffer.len();
            buffer.resize(start + *len as usize, 0);
            let is_read = self
                .file
                .as_ref()
                .is_some_and(|file| is_readable(file.as_ref(), *at, &mut buffer[start..]));
            let view = record::decode(&buffer[start..]).filter(|view| view.offset == *offset && view.stream.0 == stream);
            match view.filter(|_| is_read) {
                Some(view) => found.push((*offset, record::entry_of(&view, start))),
                None => buffer.truncate(start),
            }
        }
        let block = (!found.is_empty()).then(|| Block::of_found(until, Bytes::from(buffer), found));
        Blocks {
            list: block.into_iter().collect(),
            until,
        }
    }
}
