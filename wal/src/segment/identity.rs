//! What the lock file of a running log says: which log this is and where it lies, which segment is the newest, and what starts died of.

use std::io;
use std::sync::atomic::Ordering;

use crate::clock::random_u64;
use crate::segment::lock_file::{Note, Origin};
use crate::segment::segments::{LOCK, Segments, number};
use crate::sync::lock;

/// What the lock file says of where this log comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provenance {
    /// It lies where it was written, or nothing says otherwise.
    Here,
    /// The directory was copied or restored, or its lock file is gone: what was written after the copy was made is not in it.
    Elsewhere,
}

impl Segments {
    /// Which log this is, and whether it lies where it was written. `has_segments`: there are any.
    pub(crate) fn identify(&self, has_segments: bool) -> io::Result<Provenance> {
        let said = self.directory.noted(LOCK)?;
        let inode = self.directory.inode(LOCK)?;
        let known = Origin::parse(&said);
        let log = known.map_or_else(|| u128::from(random_u64()) << 64 | u128::from(random_u64()), |origin| origin.log);
        self.log.set(log).ok();
        // Of a log that an older version wrote, nothing is known.
        let is_elsewhere = match known {
            Some(origin) => origin.inode != inode,
            None => said.is_empty() && has_segments,
        };
        Ok(if is_elsewhere { Provenance::Elsewhere } else { Provenance::Here })
    }

    /// Writes down which log this is and where it lies.
    pub(crate) fn note_origin(&self) {
        let noted = self.directory.inode(LOCK).and_then(|inode| {
            let log = self.log.get().copied().unwrap_or_default();
            self.directory.note(LOCK, Origin::AT, &Origin { log, inode }.line())
        });
        if let Err(error) = noted {
            tracing::warn!(%error, "which log this is could not be noted");
        }
    }

    /// Reads at which segment earlier starts died.
    pub(crate) fn recall_failed_starts(&self) {
        self.failed_starts.recall(&*self.directory);
    }

    /// Notes that a start opens a segment; if it dies of that twice, the segment is not opened again.
    pub(crate) fn note_opening(&self, number: u64) {
        self.failed_starts.opening(&*self.directory, number);
    }

    /// Notes that a start has opened all that it had to.
    pub(crate) fn note_opened(&self) {
        self.failed_starts.opened(&*self.directory);
    }

    /// Makes the lock file anew if it was removed.
    pub(crate) fn keep_lock(&self) {
        match self.directory.lock_again(LOCK) {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!("the log's lock file had been removed while the log is in use; it is made again");
                self.note(self.newest.load(Ordering::Relaxed), u64::MAX);
                self.note_origin();
            }
            Err(error) => tracing::warn!(%error, "the log's lock file was removed and could not be made again"),
        }
    }

    /// Finds the directory again after it was unmounted or replaced: only this log, as it was left, is written on.
    pub(crate) fn attach_again(&self) -> io::Result<()> {
        let newest = self.newest.load(Ordering::Relaxed);
        let is_ours = |said: &[u8], names: &[String]| {
            let is_same_log = Origin::parse(said).map(|origin| origin.log) == self.log.get().copied();
            is_same_log && names.iter().filter_map(|name| number(name)).max() == Some(newest)
        };
        self.directory.attach_again(LOCK, &is_ours)?;
        lock(&self.closed).clear();
        lock(&self.unopenable).clear();
        Ok(())
    }

    /// Notes which segment is the newest, and up to which row it is believed: less than all after a write to it failed.
    pub(crate) fn note(&self, number: u64, last_row: u64) {
        let noted = self.directory.noted(LOCK).and_then(|bytes| {
            let (at, line) = Note::parse(&bytes).0.next(number, last_row).line();
            self.directory.note(LOCK, at, &line)
        });
        if let Err(error) = noted {
            tracing::warn!(%error, "the number of the newest segment could not be written to the lock file");
        }
    }

    /// What was noted last, and whether that is sure.
    pub(crate) fn noted(&self) -> (Note, bool) {
        match self.directory.noted(LOCK) {
            Ok(bytes) => Note::parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Note::NONE, true),
            Err(error) => {
                tracing::warn!(%error, "the lock file could not be read; no existing segment is written again");
                (Note::NONE, false)
            }
        }
    }
}
