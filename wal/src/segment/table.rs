//! The one table of a segment.
//!
//! Blocks stand by stream and first offset, and behind them all the rows of the catalogue, newest first. So the place of
//! a commit's newest block and that of its row are neighbours, and redb, which writes each page anew that a commit
//! changes, mostly has one path of pages to write for both.

use redb::{Database, ReadOnlyTable, ReadableDatabase as _, TableDefinition};

use crate::encoding::block::NewBlock;
use crate::encoding::entry::Key;
use crate::segment::database::SegmentError;

const LOG: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("log");
/// Stands in a row's key where a block's has its stream; no stream has this number.
const ROWS: u8 = 0xFF;

/// The table as it is after one commit.
pub(crate) struct Table(ReadOnlyTable<Key, &'static [u8]>);

impl Table {
    pub(crate) fn open(db: &Database) -> Result<Self, SegmentError> {
        Ok(Self(db.begin_read()?.open_table(LOG)?))
    }

    /// The key of the last block of a stream at or before an offset.
    pub(crate) fn last_at(&self, stream: u8, offset: u64) -> Result<Option<Key>, SegmentError> {
        let entry = self.0.range((stream, 0)..=(stream, offset))?.next_back();
        Ok(entry.transpose()?.map(|(key, _)| key.value()))
    }

    /// Shows blocks from a key on, in order, until told to stop.
    pub(crate) fn each_block(
        &self,
        range: std::ops::Range<Key>,
        mut see: impl FnMut(Key, &[u8]) -> Result<Next, SegmentError>,
    ) -> Result<(), SegmentError> {
        for entry in self.0.range(range.start..range.end.min((ROWS, 0)))? {
            let (key, value) = entry?;
            if see(key.value(), value.value())? == Next::Stop {
                break;
            }
        }
        Ok(())
    }

    /// Shows the rows of the state up to one, oldest first, until told to stop.
    pub(crate) fn each_row(&self, last: u64, mut see: impl FnMut(u64, &[u8]) -> Next) -> Result<(), SegmentError> {
        for entry in self.0.range(row_key(last)..=(ROWS, u64::MAX))?.rev() {
            let (key, value) = entry?;
            if see(u64::MAX - key.value().1, value.value()) == Next::Stop {
                break;
            }
        }
        Ok(())
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    More,
    Stop,
}

/// Every key that a block may have.
pub(crate) const ALL: std::ops::Range<Key> = (0, 0)..(ROWS, 0);

/// The key of a row.
fn row_key(number: u64) -> Key {
    (ROWS, u64::MAX - number)
}

/// Makes the table.
pub(crate) fn create(db: &Database) -> Result<(), SegmentError> {
    let transaction = db.begin_write()?;
    transaction.open_table(LOG)?;
    Ok(transaction.commit()?)
}

/// Commits blocks and a row. `Durability::Immediate` with one phase is what redb does by default: one `fdatasync`.
pub(crate) fn write(db: &Database, blocks: &[NewBlock<'_>], row: u64, value: &[u8]) -> Result<(), SegmentError> {
    let transaction = db.begin_write()?;
    {
        let mut table = transaction.open_table(LOG)?;
        let mut scratch = Vec::new();
        for block in blocks {
            table.insert(block.key(), block.bytes(&mut scratch))?;
        }
        table.insert(row_key(row), value)?;
    }
    Ok(transaction.commit()?)
}
