//! A file that this process has begun: what is read back is compared with what was written.
//!
//! redb reads the pages of an open database unchecked. Over a damaged one it panics in the middle of a commit, and some of its cursors panic
//! once more while the stack unwinds, which no process survives. A page that is not what was written must not get that far, so it is an
//! error of the read. It is read again past the page cache first: cards are known that read wrongly once.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crate::io::directory::StorageFile;
use crate::stats::Stats;
use crate::sync::lock;

const PAGE: usize = 4096;
/// How often a page that is not what was written is read again.
const AGAIN: usize = 3;
/// Stands for a page of which the sum is not known: it was never written, or not whole.
const UNKNOWN: u32 = 0;

/// A file, and the sums of its pages: four bytes for each of 4 KiB, so a thousandth of the file.
#[derive(Debug)]
pub(crate) struct Checked {
    file: Arc<dyn StorageFile>,
    sums: Mutex<Vec<u32>>,
    stats: Arc<Stats>,
}

impl Checked {
    /// Over a file that nobody else writes.
    pub(crate) fn over(file: Arc<dyn StorageFile>, stats: &Arc<Stats>) -> Arc<dyn StorageFile> {
        Arc::new(Self {
            file,
            sums: Mutex::default(),
            stats: stats.clone(),
        })
    }

    /// The first page that is not what was written.
    fn wrong(&self, offset: u64, data: &[u8]) -> Option<usize> {
        let sums = lock(&self.sums);
        let mut pages = whole_pages(offset, data);
        pages.find_map(|(page, content)| {
            let known = sums.get(page).copied().filter(|known| *known != UNKNOWN)?;
            (sum(content) != known).then_some(page)
        })
    }
}

/// The pages that `data` covers whole, with their numbers.
fn whole_pages(offset: u64, data: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (offset as usize).div_ceil(PAGE);
    let skipped = (first * PAGE - offset as usize).min(data.len());
    (first..).zip(data[skipped..].chunks_exact(PAGE))
}

fn sum(page: &[u8]) -> u32 {
    crc32c::crc32c(page).max(UNKNOWN + 1)
}

impl StorageFile for Checked {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)?;
        let Some(mut page) = self.wrong(offset, out) else { return Ok(()) };
        for _ in 0..AGAIN {
            if let Err(error) = self.file.forget_cache() {
                tracing::debug!(%error, "the system keeps what it has cached of the active segment");
            }
            self.file.read(offset, out)?;
            match self.wrong(offset, out) {
                Some(still) => page = still,
                None => {
                    self.stats.reads_corrected.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(
                        at = page * PAGE,
                        "a page of the active segment was read wrongly, and rightly when it was read again: check the disk and its cable"
                    );
                    return Ok(());
                }
            }
        }
        let text = format!("the page at {} is not what was written there", page * PAGE);
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        {
            // While it is being written it is neither the one nor the other, and after a failure it stays so.
            let mut sums = lock(&self.sums);
            let (first, end) = (offset as usize / PAGE, (offset as usize + data.len()).div_ceil(PAGE));
            let known = sums.len().max(end);
            sums.resize(known, UNKNOWN);
            sums[first..end].fill(UNKNOWN);
        }
        self.file.write(offset, data)?;
        let mut sums = lock(&self.sums);
        for (page, content) in whole_pages(offset, data) {
            if let Some(known) = sums.get_mut(page) {
                *known = sum(content);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut sums = lock(&self.sums);
        sums.truncate(len as usize / PAGE);
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn allocated(&self) -> io::Result<u64> {
        self.file.allocated()
    }

    fn id(&self) -> io::Result<Option<(u64, u64)>> {
        self.file.id()
    }

    fn filled(&self) -> io::Result<u64> {
        self.file.filled()
    }

    fn forget_cache(&self) -> io::Result<()> {
        self.file.forget_cache()
    }

    fn trim(&self) -> io::Result<()> {
        self.file.trim()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file() -> (Arc<dyn StorageFile>, std::fs::File) {
        let raw = tempfile::tempfile().unwrap();
        let file = Checked::over(Arc::new(raw.try_clone().unwrap()), &Arc::default());
        (file, raw)
    }

    #[test]
    fn a_page_that_is_not_what_was_written_is_an_error_of_the_read() {
        let (file, raw) = file();
        file.write(0, &[7; 3 * PAGE]).unwrap();
        file.write(PAGE as u64, &[8; PAGE]).unwrap();
        let mut out = vec![0; 3 * PAGE];
        file.read(0, &mut out).unwrap();
        StorageFile::write(&raw, PAGE as u64 + 5, &[9]).unwrap();
        let error = file.read(0, &mut out).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert!(error.to_string().contains("4096"), "{error}");
        // The others are as they were, and a page that is written anew is known again.
        file.read(0, &mut out[..PAGE]).unwrap();
        file.write(PAGE as u64, &[1; PAGE]).unwrap();
        file.read(0, &mut out).unwrap();
    }

    #[test]
    fn what_was_not_written_whole_is_not_judged() {
        let (file, raw) = file();
        file.write(0, &[7; 2 * PAGE]).unwrap();
        file.write(10, &[8; 20]).unwrap();
        StorageFile::write(&raw, 5, &[9]).unwrap();
        let mut out = vec![0; PAGE];
        file.read(0, &mut out).unwrap();
        file.set_len(PAGE as u64).unwrap();
        file.set_len(2 * PAGE as u64).unwrap();
        file.read(PAGE as u64, &mut out).unwrap();
        assert_eq!(out, [0; PAGE], "what was cut is zeros, and not what was written before");
        // Half a page is not compared, and half a read neither.
        file.read(PAGE as u64 + 8, &mut out[..100]).unwrap();
    }
}
