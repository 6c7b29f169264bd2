//! A spare segment's blocks, used again by the next one.
//!
//! A segment that grows makes the file system write its own metadata with every sync, which on a flash card is a third of all
//! that is written at low rates. So the last segment that is not needed any more is not unlinked but kept as [`SPARE`], and the next segment is laid
//! over it: redb sees an empty file that it may fill, while nothing of what lies there moves.
//!
//! What an earlier life left behind is never taken for something of this one: redb reads no page that it has not written,
//! and past redb records are looked for by the ranges of the catalogue, and rows of the state from the first snapshot on
//! that names the segment.

use std::io;
use std::sync::{Arc, Mutex};

use crate::io::directory::StorageFile;
use crate::sync::lock;

/// The spare segment.
pub(crate) const SPARE: &str = "spare.tmp";

/// A segment laid over an older one that takes more room than it has come to need.
#[derive(Debug)]
pub(crate) struct Reused {
    file: Arc<dyn StorageFile>,
    extent: Mutex<Extent>,
}

#[derive(Debug)]
struct Extent {
    /// How long redb believes it to be.
    len: u64,
    /// How long it is.
    there: u64,
    /// Up to here it was written in this life.
    filled: u64,
}

impl Reused {
    /// An empty segment in the place of an older one.
    pub(crate) fn over(file: Arc<dyn StorageFile>) -> io::Result<Arc<dyn StorageFile>> {
        let there = file.len()?;
        let extent = Mutex::new(Extent { len: 0, there, filled: 0 });
        Ok(Arc::new(Self { file, extent }))
    }
}

impl StorageFile for Reused {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.extent).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > lock(&self.extent).len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read(offset, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        {
            let mut extent = lock(&self.extent);
            extent.filled = extent.filled.max(offset + data.len() as u64);
        }
        self.file.write(offset, data)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut extent = lock(&self.extent);
        if len > extent.there {
            self.file.set_len(len)?;
            extent.there = len;
        }
        extent.len = len;
        Ok(())
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
        Ok(lock(&self.extent).filled.min(self.file.allocated()?))
    }

    fn trim(&self) -> io::Result<()> {
        let mut extent = lock(&self.extent);
        if extent.len < extent.there {
            self.file.set_len(extent.len)?;
            extent.there = extent.len;
            self.file.sync()?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::io::real_directory::RealDirectory;
    use crate::segment::segments::{Segments, name};

    /// A directory of three segments, of which the last is active.
    fn three_files(path: &std::path::Path) -> Segments {
        let segments = Segments::new(Arc::new(RealDirectory::new(path.to_owned()).unwrap()), Arc::default());
        for number in 1..=3 {
            segments.switch(number, number * 10, &[]).unwrap();
        }
        segments
    }

    #[test]
    fn a_spent_file_is_kept_for_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let segments = three_files(directory.path());
        segments.retire(1).unwrap();
        assert!(directory.path().join(SPARE).exists() && segments.ahead_allocated() > 0);
        segments.retire(2).unwrap();
        assert!(!directory.path().join(name(2)).exists(), "one is enough");
        segments.prepare().unwrap();
        assert!(!directory.path().join(SPARE).exists() && segments.ahead_allocated() > 0);
        segments.switch(4, 40, &[]).unwrap();
        assert_eq!(segments.ahead_allocated(), 0);
    }

    #[test]
    fn a_spent_file_is_not_laid_over_while_it_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let segments = three_files(directory.path());
        let read = segments.read(1, |_| {
            segments.retire(1).map_err(crate::segment::database::SegmentError::Io)?;
            Ok(directory.path().join(SPARE).exists())
        });
        assert!(!read.unwrap(), "the next segment would be written over what is being read");
    }
}
