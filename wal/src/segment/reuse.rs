//! A spent file's blocks, used again by the next one.
//!
//! A file that grows makes the file system write its own metadata with every sync, which on a flash card is a third of all
//! that is written at low rates. So the last spent file is not unlinked but kept as [`SPARE`], and the next file is laid
//! over it: redb sees an empty file that it may fill, while nothing of what lies there moves.
//!
//! What an earlier life left behind is never taken for something of this one: redb reads no page that it has not written,
//! and past redb records are looked for by the ranges of the catalogue, and rows of the state from the first snapshot on
//! that names the file.

use std::io;
use std::sync::{Arc, Mutex};

use crate::io::directory::StorageFile;
use crate::sync::lock;

/// The spent file that is kept.
pub(crate) const SPARE: &str = "spare.tmp";

/// A file laid over an older one that takes more room than it has come to need.
#[derive(Debug)]
pub(crate) struct Overlaid {
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

impl Overlaid {
    /// An empty file in the place of an older one.
    pub(crate) fn over(file: Arc<dyn StorageFile>) -> io::Result<Arc<dyn StorageFile>> {
        let there = file.len()?;
        let extent = Mutex::new(Extent { len: 0, there, filled: 0 });
        Ok(Arc::new(Self { file, extent }))
    }
}

impl StorageFile for Overlaid {
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
    use crate::segment::segments::{Files, name};

    /// A directory of three files, of which the last is active.
    fn three_files(path: &std::path::Path) -> Files {
        let files = Files::new(Arc::new(RealDirectory::new(path.to_owned()).unwrap()), Arc::default());
        for number in 1..=3 {
            files.switch(number, number * 10, &[]).unwrap();
        }
        files
    }

    #[test]
    fn a_spent_file_is_kept_for_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let files = three_files(directory.path());
        files.retire(1).unwrap();
        assert!(directory.path().join(SPARE).exists() && files.ahead_allocated() > 0);
        files.retire(2).unwrap();
        assert!(!directory.path().join(name(2)).exists(), "one is enough");
        files.prepare().unwrap();
        assert!(!directory.path().join(SPARE).exists() && files.ahead_allocated() > 0);
        files.switch(4, 40, &[]).unwrap();
        assert_eq!(files.ahead_allocated(), 0);
    }

    #[test]
    fn a_spent_file_is_not_laid_over_while_it_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let files = three_files(directory.path());
        let read = files.read(1, |_| {
            files.retire(1).map_err(crate::segment::database::FileError::Io)?;
            Ok(directory.path().join(SPARE).exists())
        });
        assert!(!read.unwrap(), "the next file would be written over what is being read");
    }
}
