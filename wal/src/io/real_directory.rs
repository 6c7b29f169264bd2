//! The directory of a real file system.
//!
//! Everything is done relative to the directory as it was opened, never by its path: when another file system is mounted
//! there, nothing of ours reaches it. [`Directory::confirm`] compares the two before a commit is believed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::fs::{AtFlags, Dir, FallocateFlags, Mode, OFlags, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;

use crate::io::directory::{Directory, Inode, StorageFile};
use crate::io::lock_guard::{Held, LockGuard};
use crate::sync::lock;

/// Only the user that runs the gateway may read what devices sent.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const DIRECTORY_MODE: u32 = 0o700;

/// The directory of a real file system.
#[derive(Debug)]
pub(crate) struct RealDirectory {
    path: PathBuf,
    handle: RwLock<Arc<File>>,
    held: Arc<Mutex<Option<Held>>>,
    /// It was said that this file system syncs no directories.
    sync_is_unknown: AtomicBool,
}

impl RealDirectory {
    pub(crate) fn new(path: PathBuf) -> io::Result<Self> {
        make_durable(&path)?;
        let handle = open_directory(&path)?;
        Ok(Self {
            path,
            handle: RwLock::new(Arc::new(handle)),
            held: Arc::default(),
            sync_is_unknown: AtomicBool::new(false),
        })
    }

    fn handle(&self) -> Arc<File> {
        Arc::clone(&self.handle.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens a file to write to it and keeps others from doing so for as long as it is open.
    fn open_exclusively(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let directory = self.handle();
        let file = open_at(&directory, name, OFlags::RDWR | flags)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let text = format!("another process writes to {name}; stop it, because two writers lose each other's records");
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
            // The directory's lock has to do.
            Err(fs::TryLockError::Error(error)) => tracing::debug!(name, %error, "a segment could not be locked"),
        }
        if flags.contains(OFlags::CREATE) {
            file.set_len(0)?;
            give_to_owner(&directory, &file)?;
        }
        Ok(file)
    }

    fn gone(&self, what: &str) -> io::Error {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "{what}: nothing would find what is written now at the next start; put the directory {} back, or restart Forebay to begin a new log there",
                self.path.display()
            ),
        )
    }
}

impl Directory for RealDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.handle())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(self.open_exclusively(name, OFlags::CREATE)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(open_at(&self.handle(), name, OFlags::RDONLY)?))
    }

    fn open_to_write(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(self.open_exclusively(name, OFlags::empty())?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let directory = self.handle();
        Ok(rustix::fs::renameat(&directory, from, &directory, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(self.handle(), name, AtFlags::empty())?)
    }

    fn sync(&self) -> io::Result<()> {
        match self.handle().sync_all() {
            // Some FUSE and network file systems know no sync of a directory: they make names durable by themselves, or never.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                if !self.sync_is_unknown.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        directory = %self.path.display(),
                        %error,
                        "this file system cannot sync a directory: after a power cut the newest segment may be missing; use a local file system (ext4)"
                    );
                }
                Ok(())
            }
            done => done,
        }
    }

    fn allocated(&self, name: &str) -> io::Result<u64> {
        let stat = rustix::fs::statat(self.handle(), name, AtFlags::empty())?;
        Ok(stat.st_blocks.unsigned_abs() * 512)
    }

    fn stamped(&self, name: &str) -> io::Result<u64> {
        let stat = rustix::fs::statat(self.handle(), name, AtFlags::empty())?;
        Ok(u64::try_from(stat.st_mtime).unwrap_or(0))
    }

    fn stamp(&self, name: &str, seconds: u64) -> io::Result<()> {
        let at = Timespec {
            tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: at,
            last_modification: at,
        };
        Ok(rustix::fs::utimensat(self.handle(), name, &times, AtFlags::empty())?)
    }

    fn free(&self) -> io::Result<u64> {
        let system = rustix::fs::fstatvfs(self.handle())?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn reserve(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = self.open_exclusively(name, OFlags::CREATE)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Option<LockGuard>> {
        let directory = self.handle();
        let file = open_at(&directory, name, OFlags::RDWR | OFlags::CREATE)?;
        let Some(held) = Held::try_both(&directory, file)? else {
            return Ok(None);
        };
        give_to_owner(&directory, &held.file)?;
        *lock(&self.held) = Some(held);
        Ok(Some(LockGuard::new(Arc::clone(&self.held))))
    }

    fn confirm(&self, name: &str, file: &dyn StorageFile) -> io::Result<()> {
        let directory = self.handle();
        let ours = directory.metadata()?;
        match fs::metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {}
            Ok(_) => return Err(self.gone("another directory or disk stands in the place of the log's directory")),
            Err(_) => return Err(self.gone("the log's directory was removed or unmounted")),
        }
        let there = rustix::fs::statat(&directory, name, AtFlags::empty());
        match (there, file.id()?) {
            (Ok(there), Some(ours)) if (there.st_dev, there.st_ino) == ours => Ok(()),
            (_, None) => Ok(()),
            _ => Err(self.gone(&format!("the log's newest segment, {name}, was removed or replaced"))),
        }
    }

    fn attach_again(&self, lock_name: &str, is_ours: &dyn Fn(&[u8], &[String]) -> bool) -> io::Result<()> {
        let directory = open_directory(&self.path).map_err(|_| self.gone("the log's directory was removed or unmounted"))?;
        let there = directory.metadata()?;
        // On a network file system ours may be stale, which says nothing of the one that the path leads to.
        let ours = self.handle().metadata().ok();
        if ours.is_some_and(|ours| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(());
        }
        let directory = Arc::new(directory);
        let said = open_at(&directory, lock_name, OFlags::RDONLY).and_then(|file| read_all(&file));
        let names = list(&directory)?;
        match said {
            Ok(said) if is_ours(&said, &names) => {}
            Ok(_) => return Err(self.gone("another log lies in the place of this one")),
            Err(_) => return Err(self.gone("a directory without this log stands in its place")),
        }
        let file = open_at(&directory, lock_name, OFlags::RDWR)?;
        let Some(held) = Held::try_both(&directory, file)? else {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "another process took the log's directory while it was away; stop that process",
            ));
        };
        let mut guarded = lock(&self.held);
        if guarded.is_none() {
            return Err(io::Error::other("the log is closed"));
        }
        *guarded = Some(held);
        *self.handle.write().unwrap_or_else(PoisonError::into_inner) = directory;
        Ok(())
    }

    fn lock_again(&self, name: &str) -> io::Result<bool> {
        let directory = self.handle();
        let mut guarded = lock(&self.held);
        let Some(held) = guarded.as_mut() else { return Ok(false) };
        let ours = held.file.metadata()?;
        match rustix::fs::statat(&directory, name, AtFlags::empty()) {
            Ok(there) if (there.st_dev, there.st_ino) == (ours.dev(), ours.ino()) => return Ok(false),
            _ => {}
        }
        let file = open_at(&directory, name, OFlags::RDWR | OFlags::CREATE)?;
        give_to_owner(&directory, &file)?;
        file.try_lock()?;
        held.file = file;
        Ok(true)
    }

    fn inode(&self, name: &str) -> io::Result<Inode> {
        let directory = self.handle();
        let number = rustix::fs::statat(&directory, name, AtFlags::empty())?.st_ino;
        let asked = StatxFlags::BTIME;
        let born_ns = match rustix::fs::statx(&directory, name, AtFlags::empty(), asked) {
            Ok(told) if told.stx_mask & asked.bits() != 0 => {
                told.stx_btime.tv_sec.unsigned_abs() * 1_000_000_000 + u64::from(told.stx_btime.tv_nsec)
            }
            _ => 0,
        };
        Ok(Inode { number, born_ns })
    }

    fn note(&self, name: &str, at: u64, text: &str) -> io::Result<()> {
        let file = open_at(&self.handle(), name, OFlags::WRONLY)?;
        file.write_all_at(text.as_bytes(), at)?;
        file.sync_data()
    }

    fn jot(&self, name: &str, at: u64, text: &str) -> io::Result<()> {
        open_at(&self.handle(), name, OFlags::WRONLY)?.write_all_at(text.as_bytes(), at)
    }

    fn noted(&self, name: &str) -> io::Result<Vec<u8>> {
        read_all(&open_at(&self.handle(), name, OFlags::RDONLY)?)
    }
}

fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn open_at(directory: &File, name: &str, flags: OFlags) -> io::Result<File> {
    Ok(rustix::fs::openat(directory, name, flags | OFlags::CLOEXEC, FILE_MODE)?.into())
}

fn list(directory: &File) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        if let Ok(name) = entry?.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn read_all(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut file, &mut bytes)?;
    Ok(bytes)
}

/// A command that root runs must not leave files that the service cannot use: new ones go to the directory's owner.
fn give_to_owner(directory: &File, file: &File) -> io::Result<()> {
    let (owner, has) = (directory.metadata()?, file.metadata()?);
    if rustix::process::geteuid().is_root() && (has.uid(), has.gid()) != (owner.uid(), owner.gid()) {
        std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// Makes a directory and those above it; each new one is durable only once the one above is synced.
fn make_durable(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|part| !part.as_os_str().is_empty() && !part.exists())
        .collect();
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), DIRECTORY_MODE);
    builder.create(path)?;
    for part in missing {
        let above = part.parent().filter(|above| !above.as_os_str().is_empty());
        match File::open(above.unwrap_or(Path::new(".")))?.sync_all() {
            Err(error) if error.raw_os_error() != Some(Errno::INVAL.raw_os_error()) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
