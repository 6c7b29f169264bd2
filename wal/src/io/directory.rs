//! All access to files goes through here, so that a test can put a simulated disk in its place.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// One directory with everything in it that the log may touch.
pub(crate) trait Directory: Send + Sync + Debug {
    /// Where it is, for error texts.
    fn path(&self) -> &Path;
    /// The names of its files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// An empty file, in place of any other of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    /// An existing file.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    /// Renames within the directory; durable after [`Directory::sync`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Unlinks.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync(&self) -> io::Result<()>;
    /// Bytes that a file occupies.
    fn allocated(&self, name: &str) -> io::Result<u64>;
    /// Bytes that the file system has left for this user.
    fn free(&self) -> io::Result<u64>;
    /// Makes a file that occupies `bytes`.
    fn reserve(&self, name: &str, bytes: u64) -> io::Result<()>;
    /// Takes the lock file for as long as the guard lives; none = another process has it.
    fn lock(&self, name: &str) -> io::Result<Option<LockGuard>>;
    /// Writes a few durable words into a file that exists; what stands elsewhere in it stays.
    fn note(&self, name: &str, at: u64, text: &str) -> io::Result<()>;
    /// All that stands in such a file.
    fn noted(&self, name: &str) -> io::Result<Vec<u8>>;
}

/// One open file.
pub(crate) trait StorageFile: Send + Sync + Debug {
    /// Its length.
    fn len(&self) -> io::Result<u64>;
    /// Fills `out` from `offset` on, or fails.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Writes all of `data` at `offset`.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Truncates, or grows with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&self) -> io::Result<()>;
    /// Bytes that it occupies.
    fn allocated(&self) -> io::Result<u64>;
    /// Bytes that it occupies and has use for.
    fn filled(&self) -> io::Result<u64> {
        self.allocated()
    }
    /// Gives back what it occupies beyond its length.
    fn trim(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Holds the directory's lock until dropped.
#[derive(Debug)]
pub(crate) struct LockGuard {
    /// None where nobody else can come.
    _file: Option<File>,
}

#[cfg(test)]
impl LockGuard {
    /// The lock of a directory that only this process knows.
    pub(crate) const fn of_nobody() -> Self {
        Self { _file: None }
    }
}

/// The directory of a real file system.
#[derive(Debug)]
pub(crate) struct RealDirectory {
    path: PathBuf,
}

impl RealDirectory {
    pub(crate) fn new(path: PathBuf) -> io::Result<Self> {
        make_durable(&path)?;
        Ok(Self { path })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Directory for RealDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(self.at(name))?,
        ))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(self.at(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn allocated(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.at(name))?.blocks() * 512)
    }

    fn free(&self) -> io::Result<u64> {
        let system = rustix::fs::statvfs(&self.path)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn reserve(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(self.at(name))?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Option<LockGuard>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.at(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(LockGuard { _file: Some(file) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn note(&self, name: &str, at: u64, text: &str) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.at(name))?;
        file.write_all_at(text.as_bytes(), at)?;
        file.sync_data()
    }

    fn noted(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.at(name))
    }
}

impl StorageFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.metadata()?.blocks() * 512)
    }
}

/// The active file, as redb sees it.
#[derive(Debug)]
pub(crate) struct Backend(pub(crate) Arc<dyn StorageFile>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// Makes a directory and those above it; each new one is durable only once the one above is synced.
fn make_durable(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|part| !part.as_os_str().is_empty() && !part.exists())
        .collect();
    fs::create_dir_all(path)?;
    for part in missing {
        let above = part.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

const PAGE: u64 = 4096;

/// A file that is never written again, as redb sees it: what a repair wants to write stays in memory.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: Arc<dyn StorageFile>,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// Up to here the file itself is visible; less after it was cut.
    below: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    pub(crate) fn new(file: Arc<dyn StorageFile>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self {
            file,
            written: Mutex::new(Written {
                len,
                below: len,
                pages: BTreeMap::new(),
            }),
        })
    }

    fn read_below(&self, below: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = below.saturating_sub(offset).min(out.len() as u64) as usize;
        out[there..].fill(0);
        if there == 0 {
            Ok(())
        } else {
            self.file.read(offset, &mut out[..there])
        }
    }
}

impl redb::StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.written).len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = lock(&self.written);
        let end = offset + out.len() as u64;
        if end > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_below(written.below, offset, out)?;
        for (page, data) in written.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let from = (page * PAGE).max(offset);
            let until = ((page + 1) * PAGE).min(end);
            let source = &data[(from - page * PAGE) as usize..(until - page * PAGE) as usize];
            out[(from - offset) as usize..(until - offset) as usize].copy_from_slice(source);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = lock(&self.written);
        written.len = len;
        written.below = written.below.min(len);
        written.pages.split_off(&len.div_ceil(PAGE));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = lock(&self.written);
        let end = offset + data.len() as u64;
        let below = written.below;
        for page in offset / PAGE..end.div_ceil(PAGE) {
            let from = (page * PAGE).max(offset);
            let until = ((page + 1) * PAGE).min(end);
            let content = match written.pages.entry(page) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(free) => {
                    let mut content = vec![0; PAGE as usize].into_boxed_slice();
                    self.read_below(below, page * PAGE, &mut content)?;
                    free.insert(content)
                }
            };
            let target = &mut content[(from - page * PAGE) as usize..(until - page * PAGE) as usize];
            target.copy_from_slice(&data[(from - offset) as usize..(until - offset) as usize]);
        }
        Ok(())
    }
}
