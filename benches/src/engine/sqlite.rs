//! The usual choice for such a log: SQLite, WAL, `synchronous=FULL`, a row per record.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use rusqlite::{Connection, params};

use super::{BACKLOG, Commits, RECORD, Store, record};

/// A database with a row per record. The transaction that adds rows deletes the oldest beyond the backlog.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    /// Id of the last row.
    last: u64,
    /// Rows that stay.
    backlog: u64,
    /// Bytes of a record.
    size: usize,
    sequence: u64,
    buffer: Vec<u8>,
}

impl Sqlite {
    /// Makes the database for records of `size` bytes, of which `backlog` stay.
    ///
    /// # Errors
    ///
    /// The directory cannot be written.
    pub fn create(directory: &Path, size: usize, backlog: u64) -> anyhow::Result<Sqlite> {
        let path = directory.join("log.sqlite");
        let connection = Connection::open(&path).with_context(|| format!("creating {}", path.display()))?;
        // The page cache is as large as that of Forebay's log.
        connection.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-4096;
             CREATE TABLE log (id INTEGER PRIMARY KEY, record BLOB NOT NULL);",
        )?;
        Ok(Sqlite {
            connection,
            last: 0,
            backlog,
            size,
            sequence: 0,
            buffer: Vec::new(),
        })
    }

    /// Makes the database with the backlog that all engines compared have.
    ///
    /// # Errors
    ///
    /// As [`Sqlite::create`].
    pub fn with_backlog(directory: &Path) -> anyhow::Result<Sqlite> {
        let mut sqlite = Sqlite::create(directory, RECORD, BACKLOG)?;
        for _ in 0..BACKLOG / 1000 {
            Commits::commit(&mut sqlite, 1000)?;
        }
        Ok(sqlite)
    }

    /// Which SQLite.
    pub fn version() -> &'static str {
        rusqlite::version()
    }
}

impl Store for Sqlite {
    fn commit(&mut self, records: &[u8]) -> anyhow::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO log (id, record) VALUES (?1, ?2)")?;
            for record in records.chunks_exact(self.size) {
                self.last += 1;
                insert.execute(params![self.last as i64, record])?;
            }
            let mut trim = transaction.prepare_cached("DELETE FROM log WHERE id <= ?1")?;
            trim.execute(params![self.last.saturating_sub(self.backlog) as i64])?;
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Commits for Sqlite {
    fn commit(&mut self, count: usize) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        for _ in 0..count {
            self.sequence += 1;
            record::encode(self.sequence, &mut buffer);
        }
        Store::commit(self, &buffer)?;
        self.buffer = buffer;
        Ok(began.elapsed())
    }
}
