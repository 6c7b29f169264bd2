//! What the disk can do: one write and one `fdatasync` per commit, into a file whose blocks are already written.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::{Commits, RECORD, Store, record};

const BYTES: u64 = 256 << 20;

/// A preallocated file, written from front to back and round again.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    at: u64,
    sequence: u64,
    buffer: Vec<u8>,
}

impl RawFile {
    /// Makes the file and fills it with zeros.
    ///
    /// # Errors
    ///
    /// The directory cannot be written.
    pub fn create(directory: &Path) -> anyhow::Result<RawFile> {
        let path = directory.join("raw");
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let zeros = vec![0; 1 << 20];
        for at in (0..BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at)?;
        }
        file.sync_all()?;
        Ok(RawFile {
            file,
            at: 0,
            sequence: 0,
            buffer: Vec::new(),
        })
    }
}

impl Store for RawFile {
    fn commit(&mut self, records: &[u8]) -> anyhow::Result<()> {
        let length = records.len() as u64;
        if self.at + length > BYTES {
            self.at = 0;
        }
        self.file.write_all_at(records, self.at)?;
        self.file.sync_data()?;
        self.at += length;
        Ok(())
    }
}

impl Commits for RawFile {
    fn commit(&mut self, count: usize) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.reserve(count * RECORD);
        for _ in 0..count {
            self.sequence += 1;
            record::encode(self.sequence, &mut buffer);
        }
        Store::commit(self, &buffer)?;
        self.buffer = buffer;
        Ok(began.elapsed())
    }
}
