//! What goes to the device: every write and sync of a file that the log appends to, redb's own pages included.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::io::directory::StorageFile;
use crate::stats::Stats;

/// A file whose writes are counted in [`Stats::device_bytes`] and [`Stats::device_syncs`].
#[derive(Debug)]
pub(crate) struct Metered {
    file: Arc<dyn StorageFile>,
    stats: Arc<Stats>,
}

impl Metered {
    pub(crate) fn over(file: Arc<dyn StorageFile>, stats: &Arc<Stats>) -> Arc<dyn StorageFile> {
        let stats = stats.clone();
        Arc::new(Self { file, stats })
    }
}

impl StorageFile for Metered {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.stats.device_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.file.write(offset, data)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.stats.device_syncs.fetch_add(1, Ordering::Relaxed);
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

    fn trim(&self) -> io::Result<()> {
        self.file.trim()
    }

    fn forget_cache(&self) -> io::Result<()> {
        self.file.forget_cache()
    }
}
