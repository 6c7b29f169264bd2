//! What stands at the end of each stream in the segment that is written.
//!
//! redb puts a large block into one run of pages with the small ones before it that shared a page with what follows. Cut to
//! fill a run by itself, it would so take one of twice the size.

use std::collections::BTreeMap;

use crate::encoding::block::NewBlock;

const PAGE: usize = 4096;
/// What redb takes of a page.
const HEAD: usize = 4;
/// What redb and the key take of a page for each thing in it.
const EACH: usize = 13;

/// By how much the next block of each stream must be smaller. This follows what redb does when it splits its pages; where it
/// is wrong, as at the end of a stream before the last one, a block takes more room than it need, and nothing else.
#[derive(Debug, Default)]
pub(crate) struct PageFill(BTreeMap<u8, LastPage>);

/// The page in which a stream ends: what things in it take.
#[derive(Debug, Default)]
struct LastPage {
    /// The stream's last blocks.
    blocks: Vec<usize>,
    /// The rows behind them.
    rows: Vec<usize>,
}

impl PageFill {
    /// Bytes of small blocks that would share a run of pages with the next one.
    pub(crate) fn beside(&self, stream: u8) -> usize {
        self.0.get(&stream).map_or(0, |tail| tail.blocks.iter().sum())
    }

    /// A commit has stored this.
    pub(crate) fn stored(&mut self, blocks: &[NewBlock<'_>], row: &[u8]) {
        for block in blocks {
            self.0.entry(block.key().0).or_default().insert_block(block.len() + EACH);
        }
        self.0.values_mut().for_each(|tail| tail.insert_row(row.len() + EACH));
    }

    /// Another segment begins.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

impl LastPage {
    fn insert_block(&mut self, bytes: usize) {
        if self.is_one_large() {
            // It gets a page of its own: before the row that is here, or behind the block.
            self.blocks.clear();
            if self.rows.is_empty() {
                self.blocks.push(bytes);
            }
            return;
        }
        self.blocks.push(bytes);
        self.split();
    }

    fn insert_row(&mut self, bytes: usize) {
        if self.is_one_large() {
            self.rows.clear();
            self.blocks.clear();
        }
        self.rows.insert(0, bytes);
        self.split();
    }

    fn is_one_large(&self) -> bool {
        self.blocks.len() + self.rows.len() == 1 && self.taken() > PAGE
    }

    fn taken(&self) -> usize {
        HEAD + self.blocks.iter().chain(&self.rows).sum::<usize>()
    }

    /// What does not fit the page goes to two: the first gets things until it has half of the bytes. What comes next goes to
    /// the one with the newest row.
    fn split(&mut self) {
        let (taken, things) = (self.taken(), self.blocks.len() + self.rows.len());
        if taken <= PAGE || things == 1 {
            return;
        }
        let mut first = 0;
        let mut count = 0_usize;
        for bytes in self.blocks.iter().chain(&self.rows).take(things - 1) {
            first += bytes;
            count += 1;
            if first >= taken / 2 {
                break;
            }
        }
        match count.checked_sub(self.blocks.len()) {
            Some(rows) if rows > 0 => self.rows.truncate(rows),
            _ => drop(self.blocks.drain(..count)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::encoding::block;
    use crate::encoding::entry::Entry;
    use crate::segment::database::open_db;
    use crate::segment::table;

    const RECORD: usize = 300;

    /// Bytes that redb takes for each byte of 200 commits of so many records.
    fn taken(records: usize, row: usize, minds_the_tail: bool) -> f64 {
        let (db, _) = open_db(InMemoryBackend::new(), 1 << 20).unwrap();
        let db = db.db().unwrap();
        table::create(db).unwrap();
        let data = vec![b'x'; records * RECORD];
        let entry = |nth: usize| Entry {
            partition: 0,
            slot: 0,
            at: (nth * RECORD) as u32,
            len: RECORD as u32,
        };
        let entries: Vec<Entry> = (0..records).map(entry).collect();
        let costs: Vec<usize> = entries.iter().map(|entry| entry.cost() as usize).collect();
        let (mut page_fill, mut first, mut stored) = (PageFill::default(), 0, 0);
        let row = vec![b'r'; row];
        for number in 0..200 {
            let mut at = 0;
            let mut blocks = Vec::new();
            for count in block::cut(&costs, page_fill.beside(0)) {
                blocks.push(NewBlock::Dense {
                    key: (0, first + at as u64),
                    data: &data,
                    entries: &entries[at..at + count],
                });
                at += count;
            }
            first += records as u64;
            table::write(db, &blocks, number, &row).unwrap();
            stored += row.len() + blocks.iter().map(NewBlock::len).sum::<usize>();
            if minds_the_tail {
                page_fill.stored(&blocks, &row);
            }
        }
        let pages = db.begin_write().unwrap().stats().unwrap().allocated_pages();
        pages as f64 * 4096.0 / stored as f64
    }

    #[test]
    fn large_blocks_take_little_more_room_than_they_have_bytes() {
        for records in [50, 64, 512, 700] {
            for row in [120, 1000] {
                let (minded, not) = (taken(records, row, true), taken(records, row, false));
                assert!(minded < 1.15, "{records} records, rows of {row}: {minded:.2}, without {not:.2}");
            }
        }
        assert!(taken(700, 120, false) > 1.25, "the tail need not be minded");
    }
}
