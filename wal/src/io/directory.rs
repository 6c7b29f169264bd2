//! All access to files goes through here, so that a test can put a simulated disk in its place.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::io::lock_guard::LockGuard;
use crate::sync::lock;

/// Names a file on its disk: a copy of it has another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inode {
    /// Its number on the file system.
    pub(crate) number: u64,
    /// When it was made, nanoseconds since 1970; 0 where the file system does not say.
    pub(crate) born_ns: u64,
}

/// One directory with everything in it that the log may touch.
pub(crate) trait Directory: Send + Sync + Debug {
    /// Where it is, for error texts.
    fn path(&self) -> &Path;
    /// The names of its files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// An empty file, in place of any other of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    /// An existing file, to be read only.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    /// An existing file, to be written; fails with [`io::ErrorKind::WouldBlock`] when another process writes to it.
    fn open_to_write(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    /// Renames within the directory; durable after [`Directory::sync`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Unlinks.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync(&self) -> io::Result<()>;
    /// Bytes that a file occupies.
    fn allocated(&self, name: &str) -> io::Result<u64>;
    /// When a file was stamped or last written, seconds since 1970; 0 if that is not known.
    fn stamped(&self, _name: &str) -> io::Result<u64> {
        Ok(0)
    }
    /// Says since when a file counts as what it is now.
    fn stamp(&self, _name: &str, _seconds: u64) -> io::Result<()> {
        Ok(())
    }
    /// Bytes that the file system has left for this user.
    fn free(&self) -> io::Result<u64>;
    /// Makes a file that occupies `bytes`.
    fn reserve(&self, name: &str, bytes: u64) -> io::Result<()>;
    /// Locks the directory and the lock file in it for as long as the guard lives; `None` if another process has either.
    fn lock(&self, name: &str) -> io::Result<Option<LockGuard>>;
    /// Fails, with what an operator should do, when the path no longer leads to this directory, or the file `name` in it
    /// is not `file` any more: what is written then is lost, because nothing finds it at the next start.
    fn confirm(&self, _name: &str, _file: &dyn StorageFile) -> io::Result<()> {
        Ok(())
    }
    /// Goes over to the directory that the path leads to now, if `is_ours` says so of what its lock file says and of the
    /// names in it, and nobody else has it. Needs the lock.
    fn attach_again(&self, _lock: &str, _is_ours: &dyn Fn(&[u8], &[String]) -> bool) -> io::Result<()> {
        Ok(())
    }
    /// Locks the lock file anew when somebody removed or replaced it; `true` if it had to be made.
    fn lock_again(&self, _name: &str) -> io::Result<bool> {
        Ok(false)
    }
    /// What the file is on this disk.
    fn inode(&self, _name: &str) -> io::Result<Inode> {
        Ok(Inode::default())
    }
    /// Writes a few durable words into a file that exists; what stands elsewhere in it stays.
    fn note(&self, name: &str, at: u64, text: &str) -> io::Result<()>;
    /// As [`Directory::note`], durable over the death of the process, not of the machine.
    fn jot(&self, name: &str, at: u64, text: &str) -> io::Result<()> {
        self.note(name, at, text)
    }
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
    /// Which file it is: its device and its number there. `None` where there are none.
    fn id(&self) -> io::Result<Option<(u64, u64)>> {
        Ok(None)
    }
    /// Bytes that it occupies and has use for.
    fn filled(&self) -> io::Result<u64> {
        self.allocated()
    }
    /// Lets the system forget what it has cached of it, so that the next read asks the disk.
    fn forget_cache(&self) -> io::Result<()> {
        Ok(())
    }
    /// Gives back what it occupies beyond its length.
    fn trim(&self) -> io::Result<()> {
        Ok(())
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

    fn id(&self) -> io::Result<Option<(u64, u64)>> {
        let metadata = self.metadata()?;
        Ok(Some((metadata.dev(), metadata.ino())))
    }

    fn forget_cache(&self) -> io::Result<()> {
        Ok(rustix::fs::fadvise(self, 0, None, rustix::fs::Advice::DontNeed)?)
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
