//! A directory in which nothing can be changed.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::io::directory::{Directory, StorageFile};
use crate::io::lock_guard::LockGuard;

/// A directory in which nothing can be changed.
#[derive(Debug)]
pub(crate) struct ReadOnly {
    pub(crate) path: PathBuf,
}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Directory for ReadOnly {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn StorageFile>> {
        refused()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(File::open(self.path.join(name))?))
    }

    fn open_to_write(&self, _: &str) -> io::Result<Arc<dyn StorageFile>> {
        refused()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refused()
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocated(&self, name: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path.join(name))?.blocks() * 512)
    }

    fn free(&self) -> io::Result<u64> {
        let system = rustix::fs::statvfs(&self.path)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn reserve(&self, _: &str, _: u64) -> io::Result<()> {
        refused()
    }

    fn lock(&self, _: &str) -> io::Result<Option<LockGuard>> {
        refused()
    }

    fn note(&self, _: &str, _: u64, _: &str) -> io::Result<()> {
        refused()
    }

    fn noted(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.path.join(name))
    }
}
