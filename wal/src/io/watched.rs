//! What fails at the disk: each call that does says which call it was, on what, where in it and with which error, and is counted.
//!
//! An error keeps its kind. Its number is found by [`errno`], because an error of the system cannot carry a text.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::io::directory::{Directory, Inode, StorageFile};
use crate::io::lock_guard::LockGuard;
use crate::stats::{DiskCall, Stats};
use crate::sync::lock;

/// How often at most a call on a file that fails again and again is logged.
const QUIET: Duration = Duration::from_secs(60);
/// How many lines there may be in that time.
const MAX_TOLD: usize = 64;

/// A call that failed.
#[derive(Debug)]
struct Failed {
    call: DiskCall,
    /// The file, or from which name to which.
    what: String,
    offset: Option<u64>,
    error: io::Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, what, offset, error } = self;
        match offset {
            Some(offset) => write!(f, "{} of {what} at {offset}: {error}", call.label()),
            None => write!(f, "{} of {what}: {error}", call.label()),
        }
    }
}

impl std::error::Error for Failed {}

/// The system's number of an error, also of one that says which call failed.
pub(crate) fn errno(error: &io::Error) -> Option<i32> {
    let failed = || error.get_ref()?.downcast_ref::<Failed>()?.error.raw_os_error();
    error.raw_os_error().or_else(failed)
}

/// Counts failures and says them in the log.
#[derive(Debug)]
struct Witness {
    stats: Arc<Stats>,
    /// When each call on each file was logged last.
    told: Mutex<HashMap<(DiskCall, String), Instant>>,
}

impl Witness {
    /// Adds to an error what failed. What callers ask for on purpose is no failure: a file that is not there, a lock that is taken, a
    /// read beyond the end.
    fn see<T>(&self, call: DiskCall, what: impl FnOnce() -> String, offset: Option<u64>, done: io::Result<T>) -> io::Result<T> {
        use io::ErrorKind::{NotFound, QuotaExceeded, StorageFull, UnexpectedEof, WouldBlock};
        let error = match done {
            Err(error) if !matches!(error.kind(), NotFound | UnexpectedEof | WouldBlock) => error,
            done => return done,
        };
        if error.get_ref().is_some_and(|inner| inner.is::<Failed>()) {
            return Err(error);
        }
        let (kind, number) = (error.kind(), errno(&error));
        let what = what();
        // A full disk is told in other words.
        let is_fault = !matches!(kind, StorageFull | QuotaExceeded);
        let total = if is_fault { self.stats.disk_errors.count(call) } else { 0 };
        if is_fault && self.is_news(call, &what) {
            tracing::error!(
                call = call.label(),
                file = what,
                offset,
                errno = number,
                %error,
                total,
                "a call to the log's disk failed; each file is logged once a minute at most, and all are counted in forebay_disk_errors_total"
            );
        }
        Err(io::Error::new(kind, Failed { call, what, offset, error }))
    }

    fn is_news(&self, call: DiskCall, what: &str) -> bool {
        let now = Instant::now();
        let mut told = lock(&self.told);
        told.retain(|_, last| now.duration_since(*last) < QUIET);
        let key = (call, what.to_owned());
        let is_news = told.len() < MAX_TOLD && !told.contains_key(&key);
        if is_news {
            told.insert(key, now);
        }
        is_news
    }
}

/// The name of a file while it is open: it may be renamed.
type Name = Mutex<String>;

/// A directory whose failures are told and counted.
#[derive(Debug)]
pub(crate) struct Watched {
    directory: Arc<dyn Directory>,
    witness: Arc<Witness>,
    open: Mutex<HashMap<String, Weak<Name>>>,
}

#[derive(Debug)]
struct WatchedFile {
    file: Arc<dyn StorageFile>,
    name: Arc<Name>,
    witness: Arc<Witness>,
}

impl Watched {
    pub(crate) fn over(directory: Arc<dyn Directory>, stats: &Arc<Stats>) -> Arc<dyn Directory> {
        Arc::new(Self {
            directory,
            witness: Arc::new(Witness {
                stats: Arc::clone(stats),
                told: Mutex::default(),
            }),
            open: Mutex::default(),
        })
    }

    fn see<T>(&self, call: DiskCall, what: &str, done: io::Result<T>) -> io::Result<T> {
        self.witness.see(call, || what.to_owned(), None, done)
    }

    fn watch(&self, name: &str, opened: io::Result<Arc<dyn StorageFile>>) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.see(DiskCall::Open, name, opened)?;
        let mut open = lock(&self.open);
        open.retain(|_, name| name.strong_count() > 0);
        let known = open.get(name).and_then(Weak::upgrade);
        let name = known.unwrap_or_else(|| {
            let new = Arc::new(Mutex::new(name.to_owned()));
            open.insert(name.to_owned(), Arc::downgrade(&new));
            new
        });
        Ok(Arc::new(WatchedFile {
            file,
            name,
            witness: Arc::clone(&self.witness),
        }))
    }

    fn renamed(&self, from: &str, to: &str) {
        let mut open = lock(&self.open);
        if let Some(name) = open.remove(from) {
            if let Some(name) = name.upgrade() {
                to.clone_into(&mut lock(&name));
            }
            open.insert(to.to_owned(), name);
        }
    }
}

impl Directory for Watched {
    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.see(DiskCall::List, "the directory", self.directory.list())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        lock(&self.open).remove(name);
        self.watch(name, self.directory.create(name))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.watch(name, self.directory.open(name))
    }

    fn open_to_write(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.watch(name, self.directory.open_to_write(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let renamed = self.directory.rename(from, to);
        self.witness.see(DiskCall::Rename, || format!("{from} to {to}"), None, renamed)?;
        self.renamed(from, to);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.see(DiskCall::Unlink, name, self.directory.remove(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.see(DiskCall::SyncDirectory, "the directory", self.directory.sync())
    }

    fn allocated(&self, name: &str) -> io::Result<u64> {
        self.see(DiskCall::Stat, name, self.directory.allocated(name))
    }

    fn stamped(&self, name: &str) -> io::Result<u64> {
        self.see(DiskCall::Stat, name, self.directory.stamped(name))
    }

    fn stamp(&self, name: &str, seconds: u64) -> io::Result<()> {
        self.see(DiskCall::Stat, name, self.directory.stamp(name, seconds))
    }

    fn free(&self) -> io::Result<u64> {
        self.see(DiskCall::Stat, "the file system", self.directory.free())
    }

    fn reserve(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.see(DiskCall::SetLength, name, self.directory.reserve(name, bytes))
    }

    fn lock(&self, name: &str) -> io::Result<Option<LockGuard>> {
        self.see(DiskCall::Open, name, self.directory.lock(name))
    }

    fn confirm(&self, name: &str, file: &dyn StorageFile) -> io::Result<()> {
        self.directory.confirm(name, file)
    }

    fn attach_again(&self, lock: &str, is_ours: &dyn Fn(&[u8], &[String]) -> bool) -> io::Result<()> {
        self.directory.attach_again(lock, is_ours)
    }

    fn lock_again(&self, name: &str) -> io::Result<bool> {
        self.see(DiskCall::Open, name, self.directory.lock_again(name))
    }

    fn inode(&self, name: &str) -> io::Result<Inode> {
        self.see(DiskCall::Stat, name, self.directory.inode(name))
    }

    fn note(&self, name: &str, at: u64, text: &str) -> io::Result<()> {
        let noted = self.directory.note(name, at, text);
        self.witness.see(DiskCall::Write, || name.to_owned(), Some(at), noted)
    }

    fn jot(&self, name: &str, at: u64, text: &str) -> io::Result<()> {
        let noted = self.directory.jot(name, at, text);
        self.witness.see(DiskCall::Write, || name.to_owned(), Some(at), noted)
    }

    fn noted(&self, name: &str) -> io::Result<Vec<u8>> {
        self.see(DiskCall::Read, name, self.directory.noted(name))
    }
}

impl WatchedFile {
    fn see<T>(&self, call: DiskCall, offset: Option<u64>, done: io::Result<T>) -> io::Result<T> {
        self.witness.see(call, || lock(&self.name).clone(), offset, done)
    }
}

impl StorageFile for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.see(DiskCall::Stat, None, self.file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.see(DiskCall::Read, Some(offset), self.file.read(offset, out))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.see(DiskCall::Write, Some(offset), self.file.write(offset, data))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.see(DiskCall::SetLength, Some(len), self.file.set_len(len))
    }

    fn sync(&self) -> io::Result<()> {
        self.see(DiskCall::Sync, None, self.file.sync())
    }

    fn allocated(&self) -> io::Result<u64> {
        self.see(DiskCall::Stat, None, self.file.allocated())
    }

    fn id(&self) -> io::Result<Option<(u64, u64)>> {
        self.file.id()
    }

    fn filled(&self) -> io::Result<u64> {
        self.see(DiskCall::Stat, None, self.file.filled())
    }

    fn trim(&self) -> io::Result<()> {
        self.see(DiskCall::SetLength, None, self.file.trim())
    }

    fn forget_cache(&self) -> io::Result<()> {
        self.file.forget_cache()
    }
}
