//! redb by itself: what a commit costs of which Forebay's log is made, with nothing of Forebay's in it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use redb::{Database, TableDefinition};

use super::{BACKLOG, Commits, RECORD, Store, record};

/// Records back to back, by the number of the first.
const SEGMENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("segments");
/// As much as Forebay's log has for the file that it appends to.
const CACHE: usize = 4 << 20;
/// What redb and the key take of a run of pages.
const SLACK: usize = 64;
/// The largest run is so many pages, as a power of two.
const LARGEST_RUN: u32 = 4;

/// One table of segments cut to runs of pages; the transaction that adds some removes those beyond the backlog. No ledger, no
/// progress, no streams, no second file.
pub struct Redb {
    database: Database,
    /// The number of the next record.
    next: u64,
    buffer: Vec<u8>,
}

impl Redb {
    /// Makes the database with the backlog that all engines compared have.
    ///
    /// # Errors
    ///
    /// The directory cannot be written.
    pub fn with_backlog(directory: &Path) -> anyhow::Result<Redb> {
        let path = directory.join("log.redb");
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create(&path)
            .with_context(|| format!("creating {}", path.display()))?;
        let mut redb = Redb {
            database,
            next: 0,
            buffer: Vec::new(),
        };
        for _ in 0..BACKLOG / 1000 {
            Commits::commit(&mut redb, 1000)?;
        }
        Ok(redb)
    }
}

impl Store for Redb {
    fn commit(&mut self, records: &[u8]) -> anyhow::Result<()> {
        let transaction = self.database.begin_write()?;
        {
            let mut table = transaction.open_table(SEGMENTS)?;
            let mut rest = records;
            while !rest.is_empty() {
                let (segment, after) = rest.split_at(segment_bytes(rest.len()));
                table.insert(self.next, segment)?;
                self.next += (segment.len() / RECORD) as u64;
                rest = after;
            }
            table.retain_in(..self.next.saturating_sub(BACKLOG), |_, _| false)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// Whole records that fill the largest run of pages that `left` bytes fill, or all that are left.
fn segment_bytes(left: usize) -> usize {
    let runs = (0..=LARGEST_RUN).rev().map(|power| (4096 << power) - SLACK);
    let bytes = runs.into_iter().find(|run| *run <= left).unwrap_or(left);
    bytes / RECORD * RECORD
}

impl Commits for Redb {
    fn commit(&mut self, count: usize) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        for nth in 0..count as u64 {
            record::encode(self.next + nth, &mut buffer);
        }
        Store::commit(self, &buffer)?;
        self.buffer = buffer;
        Ok(began.elapsed())
    }
}
