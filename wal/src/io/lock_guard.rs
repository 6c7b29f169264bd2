//! The lock on a directory: on the directory itself, which no name can take away, and on the lock file in it.
//!
//! The lock on the directory is the one that counts: removing a "stale" lock file lets nobody else in. The lock file is
//! locked as well for versions that know only that one, and for file systems that cannot lock a directory.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::sync::lock;

/// What is locked; closing unlocks it.
#[derive(Debug)]
pub(crate) struct Held {
    directory: Arc<File>,
    pub(crate) file: File,
}

impl Held {
    /// Locks both; `None` if another process has either.
    pub(crate) fn try_both(directory: &Arc<File>, file: File) -> io::Result<Option<Self>> {
        match directory.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) if is_unknown_here(&error) => {
                tracing::info!(%error, "this file system locks no directories; only the lock file is locked");
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let held = Self {
            directory: Arc::clone(directory),
            file,
        };
        match held.file.try_lock() {
            Ok(()) => Ok(Some(held)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Others may still have the directory open.
        self.directory.unlock().ok();
    }
}

/// Network file systems make a lock out of a write lock, which a directory cannot have.
fn is_unknown_here(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::BADF, Errno::INVAL, Errno::NOTSUP, Errno::ISDIR]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

/// Keeps a directory locked until dropped.
#[derive(Debug)]
pub(crate) struct LockGuard(Option<Arc<Mutex<Option<Held>>>>);

impl LockGuard {
    /// `held` stays where the directory can replace it when it is mounted again.
    pub(crate) const fn new(held: Arc<Mutex<Option<Held>>>) -> Self {
        Self(Some(held))
    }
}

#[cfg(test)]
impl LockGuard {
    /// The lock of a directory that only this process knows.
    pub(crate) const fn of_nobody() -> Self {
        Self(None)
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if let Some(held) = &self.0 {
            *lock(held) = None;
        }
    }
}
