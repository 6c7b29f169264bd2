//! Files that nothing needs any more, on their way out.
//!
//! Unlinking a large file can take as long as a hundred commits, on a disk mounted with `discard` seconds, and commits wait meanwhile for the
//! file system's own. So a file only gets another name at first, [`Removal::take`], which is deleted at the next start if the process ends; it
//! goes beside the commits, piece by piece ([`Removal::work`]), or at once where its room is needed ([`Removal::hurry`]). Until it is gone it
//! counts in `max_disk`.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::io::directory::Directory;
use crate::sync::lock;

/// How much of a file goes at a time.
const PIECE: u64 = 1 << 20;
/// How long the disk is left to the commits after a piece.
const REST: Duration = Duration::from_millis(10);

/// A file on its way out.
#[derive(Clone, Debug)]
struct Going {
    name: String,
    bytes: u64,
    /// Nobody reads in it, so that it may be cut.
    is_unread: bool,
}

/// All files on their way out.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    going: Mutex<VecDeque<Going>>,
    /// What the disk did not let go.
    stuck: Mutex<Vec<Going>>,
    bytes: AtomicU64,
    is_urgent: AtomicBool,
    taken: AtomicU64,
}

impl Removal {
    /// Takes a file out of the log: it has no name of its own from now on.
    ///
    /// # Errors
    /// There is no such file.
    pub(crate) fn take(&self, directory: &dyn Directory, name: &str, is_unread: bool) -> io::Result<()> {
        let bytes = directory.allocated(name)?;
        let gone = format!("gone-{}.tmp", self.taken.fetch_add(1, Ordering::Relaxed));
        let name = match directory.rename(name, &gone) {
            Ok(()) => gone,
            Err(error) => {
                tracing::debug!(name, %error, "a file that is no longer needed keeps its name until it is removed");
                name.to_owned()
            }
        };
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        lock(&self.going).push_back(Going { name, bytes, is_unread });
        Ok(())
    }

    /// Bytes that these files still occupy.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether none is to be removed now.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.going).is_empty()
    }

    /// What the disk did not let go is tried again.
    pub(crate) fn try_again(&self) {
        lock(&self.going).extend(lock(&self.stuck).drain(..));
    }

    /// Removes them, one after the other, in pieces with a rest after each. To be called by one thread at a time.
    pub(crate) fn work(&self, directory: &dyn Directory) {
        loop {
            // Until it is gone it is in the list.
            let Some(first) = lock(&self.going).front().cloned() else { return };
            let removed = self.remove(directory, &first);
            lock(&self.going).pop_front();
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(name = first.name, %error, "a file that is no longer needed could not be removed; it is tried again");
                    lock(&self.stuck).push(first);
                }
                _ => {
                    self.bytes.fetch_sub(first.bytes, Ordering::Relaxed);
                }
            }
        }
    }

    /// Lets a removal that goes on come to its end without rests.
    pub(crate) fn hurry(&self, is_urgent: bool) {
        self.is_urgent.store(is_urgent, Ordering::Relaxed);
    }

    fn remove(&self, directory: &dyn Directory, going: &Going) -> io::Result<()> {
        if going.is_unread
            && let Err(error) = self.cut(directory, going)
        {
            tracing::debug!(name = going.name, %error, "a file is removed whole");
        }
        directory.remove(&going.name)
    }

    fn cut(&self, directory: &dyn Directory, going: &Going) -> io::Result<()> {
        if going.bytes <= PIECE || self.is_urgent.load(Ordering::Relaxed) {
            return Ok(());
        }
        let file = directory.open_to_write(&going.name)?;
        let mut len = file.len()?;
        while len > 0 && !self.is_urgent.load(Ordering::Relaxed) {
            len = len.saturating_sub(PIECE);
            file.set_len(len)?;
            std::thread::park_timeout(REST);
        }
        Ok(())
    }
}
