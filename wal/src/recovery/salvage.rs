//! Taking what is whole out of a file that does not open, or that was quarantined.
//!
//! 1. The file is opened through redb, with what redb repairs kept in memory, and every record with a right checksum is
//!    taken. That gives what was committed, and the streams' names.
//! 2. If it does not open, or anything in it is damaged, its raw bytes are searched for whole blocks and records, and
//!    what the first step did not have is taken too. That may bring records of a commit that never ended, whose devices
//!    got no ack, and is why each record says how it was found.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::catalog::catalogue::Catalogue;
use crate::catalog::replay::read_state;
use crate::encoding::block::{self, Block};
use crate::encoding::entry::RawBlock;
use crate::encoding::record::View;
use crate::encoding::row::RowKind;
use crate::encoding::scan::{Wanted, Whole};
use crate::io::directory::{Directory as _, Overlay, StorageFile};
use crate::io::read_only::ReadOnly;
use crate::record::{Epoch, Record};
use crate::segment::database::{SegmentError, contained, open_view};
use crate::segment::search::{Step, each_whole};
use crate::segment::segments::CLOSED_CACHE;
use crate::segment::table::{self, Next, Table};

/// Bytes searched at a time, beside a record that reaches beyond them.
const WINDOW: usize = 8 << 20;

/// A record taken out of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// The record; its id's epoch is [`Salvaged::epoch`] unless it was put back.
    pub record: Record,
    /// The epoch under which it was accepted; `None` if the file does not say any more.
    pub epoch: Option<Epoch>,
    /// Its place in the stream.
    pub offset: u64,
    /// Its stream's name; `None` if the file does not say any more.
    pub stream: Option<String>,
    /// It was found in the file's raw bytes: a commit that never ended may have left it.
    pub is_carved: bool,
}

/// What a salvage found in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SalvageReport {
    /// Bytes of the file.
    pub bytes: u64,
    /// Records taken.
    pub records: u64,
    /// How many of them were found in the raw bytes alone.
    pub carved: u64,
    /// Records that have a place in a block and a wrong checksum.
    pub damaged: u64,
    /// Why the file was not read through redb to its end; `None` if it was, and is whole.
    pub trouble: Option<String>,
}

/// How a salvage goes on.
#[derive(Debug)]
pub enum SalvageStep {
    /// A record.
    Record(Box<Salvaged>),
    /// So many of the file's bytes were searched.
    Searched(u64),
}

struct Salvage<'a> {
    report: SalvageReport,
    state: Option<Catalogue>,
    number: Option<u64>,
    taken: Taken,
    see: &'a mut dyn FnMut(SalvageStep) -> bool,
    stopped: bool,
}

/// Takes what is whole out of one segment, which is opened for reading only. `see` gets each record once, and ends the
/// search by false.
///
/// # Errors
/// The system's, when the file cannot be opened or its length read. A part that cannot be read is skipped.
pub fn salvage(file: &Path, see: &mut dyn FnMut(SalvageStep) -> bool) -> io::Result<SalvageReport> {
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = ReadOnly {
        path: file.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let source = folder.open(&name)?;
    let mut salvage = Salvage {
        report: SalvageReport {
            bytes: source.len()?,
            ..SalvageReport::default()
        },
        state: None,
        number: name.split_once(".redb").and_then(|(digits, _)| digits.parse().ok()),
        taken: Taken::default(),
        see,
        stopped: false,
    };
    if let Err(error) = salvage.through_redb(&source) {
        salvage.report.trouble = Some(error.to_string());
    }
    if salvage.report.trouble.is_some() && !salvage.stopped {
        if salvage.state.is_none() {
            salvage.state = find_snapshot(source.as_ref())?;
        }
        salvage.through_bytes(source.as_ref())?;
    }
    Ok(salvage.report)
}

impl Salvage<'_> {
    fn through_redb(&mut self, source: &Arc<dyn StorageFile>) -> Result<(), SegmentError> {
        let overlay = Overlay::new(source.clone()).map_err(SegmentError::Io)?;
        let (mut db, _) = contained(|| open_view(overlay, CLOSED_CACHE))?;
        let is_whole = db.check_integrity();
        self.state = db.contained(|db| read_state(db, u64::MAX)).ok().map(|recovered| recovered.state);
        db.contained(|db| {
            Table::open(db)?.each_block(table::ALL, |(stream, first), value| {
                let bytes = Bytes::copy_from_slice(value);
                if !block::is_whole(&bytes) {
                    self.report.trouble = Some(format!("the block of stream {stream} at {first} is damaged"));
                }
                self.block(RawBlock {
                    first,
                    until: u64::MAX,
                    bytes,
                });
                Ok(if self.stopped { Next::Stop } else { Next::More })
            })
        })?;
        match is_whole? {
            true => Ok(()),
            false => Err(SegmentError::Damaged("redb's page checksums do not agree with its pages".into())),
        }
    }

    fn block(&mut self, raw: RawBlock) {
        let block = Block::parse(raw);
        for nth in 0..block.entries.len() {
            match block.record(nth) {
                Some(view) => self.take(view, &block.bytes, false),
                None => {
                    self.report.damaged += 1;
                    self.report
                        .trouble
                        .get_or_insert_with(|| "records in it have wrong checksums".into());
                }
            }
        }
    }

    fn take(&mut self, view: View<'_>, buffer: &Bytes, is_carved: bool) {
        if self.stopped || !self.taken.insert(view.stream.0, view.offset) {
            return;
        }
        let state = self.state.as_ref();
        let epoch = state.map(|state| {
            let place = self.number.and_then(|number| {
                let compacted = state.epoch_of(number, view.stream.0, view.offset);
                compacted.or_else(|| Some(state.segment(number)?.epoch))
            });
            Epoch(place.unwrap_or(state.epoch))
        });
        self.report.records += 1;
        self.report.carved += u64::from(is_carved);
        let salvaged = Salvaged {
            record: view.to_record(buffer, epoch.unwrap_or(Epoch(0))),
            epoch,
            offset: view.offset,
            stream: state.and_then(|state| Some(state.stream(view.stream.0)?.name.clone())),
            is_carved,
        };
        self.stopped |= !(self.see)(SalvageStep::Record(Box::new(salvaged)));
    }

    fn through_bytes(&mut self, source: &dyn StorageFile) -> io::Result<()> {
        let wanted = Wanted {
            record: &|_, _| true,
            rows: false,
            by_blocks: true,
        };
        each_whole(source, WINDOW, wanted, &mut |step| {
            match step {
                Step::Found(piece, window, _) => {
                    if let Whole::Record(view) = piece.what {
                        self.take(view, window, true);
                    }
                }
                Step::Searched(bytes) => self.stopped |= !(self.see)(SalvageStep::Searched(bytes)),
            }
            !self.stopped
        })
    }
}

/// The oldest whole snapshot in a file's raw bytes: it gives the streams their names and the ids their epoch.
fn find_snapshot(source: &dyn StorageFile) -> io::Result<Option<Catalogue>> {
    let wanted = Wanted {
        record: &|_, _| false,
        rows: true,
        by_blocks: false,
    };
    let mut found = None;
    each_whole(source, WINDOW, wanted, &mut |step| {
        if let Step::Found(piece, ..) = step
            && let Whole::Row(row) = piece.what
            && row.kind == RowKind::Snapshot
        {
            found = Some(Catalogue::of(&row.changes));
        }
        found.is_none()
    })?;
    Ok(found)
}

/// Which offsets were taken, as ranges: a file holds few.
#[derive(Debug, Default)]
struct Taken(BTreeMap<(u8, u64), u64>);

impl Taken {
    /// Notes an offset; false = it was taken before.
    fn insert(&mut self, stream: u8, offset: u64) -> bool {
        let before = self.0.range(..=(stream, offset)).next_back().map(|(key, end)| (*key, *end));
        let before = before.filter(|(key, _)| key.0 == stream);
        if before.is_some_and(|(_, end)| offset < end) {
            return false;
        }
        let start = match before {
            Some((key, end)) if end == offset => key,
            _ => (stream, offset),
        };
        let end = offset + 1;
        let end = self.0.remove(&(stream, end)).unwrap_or(end);
        self.0.insert(start, end);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Taken;

    #[test]
    fn offsets_are_taken_once_in_whatever_order_they_come() {
        let mut taken = Taken::default();
        for offset in [5, 3, 4, 9, 0, 1, 2] {
            assert!(taken.insert(1, offset), "{offset}");
            assert!(!taken.insert(1, offset), "{offset}");
        }
        assert!(taken.insert(2, 4), "another stream's");
        assert_eq!(taken.0.into_iter().collect::<Vec<_>>(), [((1, 0), 6), ((1, 9), 10), ((2, 4), 5)]);
    }
}
