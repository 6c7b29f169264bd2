//! One redb database and what can go wrong with it.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::Database;
use rustix::io::Errno;

use crate::io::watched::errno;

/// Why a file could not be used.
#[derive(Debug)]
pub(crate) enum SegmentError {
    /// The system said no; another time it may say yes.
    Io(io::Error),
    /// The content is wrong.
    Damaged(String),
    /// The content is well, in a format of another version.
    Version(u8),
}

impl fmt::Display for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Damaged(what) => write!(f, "damaged: {what}"),
            Self::Version(found) => write!(f, "its format is {found}, this version knows {}", crate::format::VERSION),
        }
    }
}

impl std::error::Error for SegmentError {}

impl SegmentError {
    /// Whether trying again is of no use: the content is wrong, the disk cannot read it, or the file is gone.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            // The version that wrote it reads it.
            Self::Version(_) => false,
            Self::Io(error) => error.kind() == io::ErrorKind::NotFound || self.is_of_disk(),
        }
    }

    /// Whether the disk could not read or write, which it may another time.
    pub(crate) fn is_of_disk(&self) -> bool {
        matches!(self, Self::Io(error) if errno(error) == Some(Errno::IO.raw_os_error()))
    }

    /// Whether the file is not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the file was replaced on its server since it was opened: opened again, it may be there.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self, Self::Io(error) if errno(error) == Some(Errno::STALE.raw_os_error()))
    }

    /// Whether the disk is full.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

impl<E: Into<redb::Error>> From<E> for SegmentError {
    fn from(error: E) -> Self {
        match error.into() {
            // redb says so when the file is no redb database at all.
            redb::Error::Io(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::PreviousIo => Self::Io(io::Error::other("an earlier write to this file failed")),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Runs what touches redb. It panics on some damaged pages; here that is an answer like any other, because nothing of
/// ours is left half done by it and the file is not used again.
pub(crate) fn contained<T>(action: impl FnOnce() -> Result<T, SegmentError>) -> Result<T, SegmentError> {
    catch_unwind(AssertUnwindSafe(action)).unwrap_or_else(|panic| Err(SegmentError::Damaged(panic_text(panic.as_ref()))))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("redb panicked: {}", text.unwrap_or("no text"))
}

/// A database whose end is contained, too: redb writes when it is dropped, and may meet damaged pages then.
#[derive(Debug)]
pub(crate) struct Store(Option<Database>);

impl Store {
    pub(crate) fn of(db: Database) -> Self {
        Self(Some(db))
    }

    /// Compares redb's own checksums with its pages; false = they did not agree, and what redb could repair is repaired.
    pub(crate) fn check_integrity(&mut self) -> Result<bool, SegmentError> {
        match &mut self.0 {
            Some(db) => contained(|| Ok(db.check_integrity()?)),
            None => Err(SegmentError::Damaged("it is closed".into())),
        }
    }

    /// Closes it properly.
    pub(crate) fn close(mut self) -> Result<(), SegmentError> {
        let db = self.0.take();
        contained(|| db.map_or(Ok(()), |db| Ok(db.close()?)))
    }

    pub(crate) fn db(&self) -> Result<&Database, SegmentError> {
        self.0.as_ref().ok_or_else(|| SegmentError::Damaged("it is closed".into()))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let db = self.0.take();
        let end = contained(|| {
            drop(db);
            Ok(())
        });
        if let Err(error) = end {
            tracing::debug!(%error, "a segment could not be closed in order");
        }
    }
}

/// Opens a database; says whether it had been closed properly.
pub(crate) fn open_db(backend: impl redb::StorageBackend, cache: usize) -> Result<(Store, bool), SegmentError> {
    let repaired = Arc::new(AtomicBool::new(false));
    let noted = repaired.clone();
    let db = Database::builder()
        .set_cache_size(cache)
        .set_repair_callback(move |_| noted.store(true, Ordering::Relaxed))
        .create_with_backend(backend)?;
    Ok((Store(Some(db)), !repaired.load(Ordering::Relaxed)))
}
