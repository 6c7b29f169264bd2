//! One redb database and what can go wrong with it.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
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

/// What redb answers after a call that failed: it touches the file no more.
#[derive(Debug, thiserror::Error)]
#[error("an earlier read or write of this file failed")]
struct Earlier;

impl<E: Into<redb::Error>> From<E> for SegmentError {
    fn from(error: E) -> Self {
        match error.into() {
            // redb says so when the file is no redb database at all.
            redb::Error::Io(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::PreviousIo => Self::Io(io::Error::other(Earlier)),
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
pub(crate) struct Store {
    db: Option<Database>,
    /// Nothing that it writes is kept.
    is_view: bool,
    disk: Disk,
}

impl Store {
    pub(crate) fn of(db: Database) -> Self {
        Self {
            db: Some(db),
            is_view: false,
            disk: Disk::default(),
        }
    }

    /// Compares redb's own checksums with its pages; false = they did not agree, and what redb could repair is repaired.
    pub(crate) fn check_integrity(&mut self) -> Result<bool, SegmentError> {
        match &mut self.db {
            Some(db) => contained(|| Ok(db.check_integrity()?)).map_err(|error| self.disk.judge(error)),
            None => Err(SegmentError::Damaged("it is closed".into())),
        }
    }

    /// Closes it properly.
    pub(crate) fn close(mut self) -> Result<(), SegmentError> {
        let db = self.db.take();
        contained(|| db.map_or(Ok(()), |db| Ok(db.close()?)))
    }

    /// As [`contained`]; tells damage that redb met earlier from a disk that failed.
    pub(crate) fn contained<T>(&self, action: impl FnOnce(&Database) -> Result<T, SegmentError>) -> Result<T, SegmentError> {
        contained(|| action(self.db()?)).map_err(|error| self.disk.judge(error))
    }

    pub(crate) fn db(&self) -> Result<&Database, SegmentError> {
        self.db.as_ref().ok_or_else(|| SegmentError::Damaged("it is closed".into()))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        if self.is_view {
            return let_go(db);
        }
        let end = contained(|| {
            drop(db);
            Ok(())
        });
        if let Err(error) = end {
            tracing::debug!(%error, "a segment could not be closed in order");
        }
    }
}

/// Drops a database in such a way that redb commits nothing. Its last commit reads pages that nobody has read before; on damaged ones
/// it panics, and then once more in the drop of its own cursor, which no process survives. redb leaves that commit out when the thread unwinds,
/// so the thread does, without the noise of a panic.
fn let_go(db: Database) {
    let unwinding = move || {
        let _db = db;
        resume_unwind(Box::new("let go"))
    };
    catch_unwind(AssertUnwindSafe(unwinding)).unwrap_or(());
}

/// Whether the disk has failed a database. redb says of any call that failed only that there was one; pages that point beyond the end of the
/// file fail as well, and that is damage.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<AtomicBool>);

impl Disk {
    fn judge(&self, error: SegmentError) -> SegmentError {
        let is_earlier = matches!(&error, SegmentError::Io(io) if io.get_ref().is_some_and(|cause| cause.is::<Earlier>()));
        if is_earlier && !self.0.load(Ordering::Relaxed) {
            return SegmentError::Damaged("its pages are not as they were written, or lead beyond its end".into());
        }
        error
    }

    fn heard<T>(&self, answer: io::Result<T>) -> io::Result<T> {
        answer.inspect_err(|error| {
            // What lies there, and not the disk.
            if !matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) {
                self.0.store(true, Ordering::Relaxed);
            }
        })
    }
}

/// Hears what the disk answers.
#[derive(Debug)]
struct Heard<B> {
    backend: B,
    disk: Disk,
}

impl<B: redb::StorageBackend> redb::StorageBackend for Heard<B> {
    fn len(&self) -> io::Result<u64> {
        self.disk.heard(self.backend.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.heard(self.backend.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.heard(self.backend.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.heard(self.backend.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.heard(self.backend.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.disk.heard(self.backend.close())
    }
}

/// Opens a database; says whether it had been closed properly.
pub(crate) fn open_db(backend: impl redb::StorageBackend, cache: usize) -> Result<(Store, bool), SegmentError> {
    let repaired = Arc::new(AtomicBool::new(false));
    let noted = repaired.clone();
    let disk = Disk::default();
    let heard = Heard {
        backend,
        disk: disk.clone(),
    };
    let db = Database::builder()
        .set_cache_size(cache)
        .set_repair_callback(move |_| noted.store(true, Ordering::Relaxed))
        .create_with_backend(heard)
        .map_err(|error| disk.judge(error.into()))?;
    let store = Store {
        db: Some(db),
        is_view: false,
        disk,
    };
    Ok((store, !repaired.load(Ordering::Relaxed)))
}

/// As [`open_db`], of a file that is only looked at: nothing is written when it is dropped.
pub(crate) fn open_view(backend: impl redb::StorageBackend, cache: usize) -> Result<(Store, bool), SegmentError> {
    let (mut store, clean) = open_db(backend, cache)?;
    store.is_view = true;
    Ok((store, clean))
}

/// As [`open_view`], but only of a file that had been closed properly: `None` if it had not, and then nothing was read to repair it.
pub(crate) fn open_closed_view(backend: impl redb::StorageBackend, cache: usize) -> Result<Option<Store>, SegmentError> {
    let disk = Disk::default();
    let heard = Heard {
        backend,
        disk: disk.clone(),
    };
    let opened = Database::builder()
        .set_cache_size(cache)
        .set_repair_callback(redb::RepairSession::abort)
        .create_with_backend(heard);
    match opened {
        Ok(db) => Ok(Some(Store {
            db: Some(db),
            is_view: true,
            disk,
        })),
        Err(redb::DatabaseError::RepairAborted) => Ok(None),
        Err(error) => Err(disk.judge(error.into())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;

    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::segment::table;
    use crate::sync::lock;

    /// Content that outlives its databases, a count of what they write, and what each read fails with.
    #[derive(Clone, Debug, Default)]
    struct Counted {
        content: Arc<InMemoryBackend>,
        writes: Arc<AtomicUsize>,
        failing: Arc<Mutex<Option<io::ErrorKind>>>,
    }

    impl redb::StorageBackend for Counted {
        fn len(&self) -> io::Result<u64> {
            self.content.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            match *lock(&self.failing) {
                Some(kind) => Err(kind.into()),
                None => self.content.read(offset, out),
            }
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            self.content.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.writes.fetch_add(1, Ordering::Relaxed);
            self.content.write(offset, data)
        }
    }

    /// What redb writes at the end met damaged pages in the simulation (damage, seed 2275), and took the process down.
    #[test]
    fn redb_commits_nothing_when_a_view_is_let_go() {
        let counted = Counted::default();
        let (store, _) = open_db(counted.clone(), 1 << 20).unwrap();
        table::create(store.db().unwrap()).unwrap();
        store.close().unwrap();

        for _ in 0..3 {
            let (view, is_clean) = open_view(counted.clone(), 1 << 20).unwrap();
            // Each view finds it as the one before left it: not closed properly once redb has marked it as open.
            table::Table::open(view.db().unwrap()).unwrap();
            let before = counted.writes.load(Ordering::Relaxed);
            drop(view);
            assert_eq!(counted.writes.load(Ordering::Relaxed), before, "clean before: {is_clean}");
        }
        assert!(!std::thread::panicking());
    }

    /// In the middle of a commit redb panicked over such a page, and then once more (damage, seed 501141).
    #[test]
    fn a_page_of_the_active_segment_that_was_not_written_so_is_an_error_and_no_panic() {
        use std::os::unix::fs::FileExt as _;

        use crate::io::checked::Checked;
        use crate::io::directory::Backend;

        let mut errors = 0;
        for page in 1.. {
            let raw = tempfile::tempfile().unwrap();
            let file = Checked::over(Arc::new(raw.try_clone().unwrap()), &Arc::default());
            let (store, _) = open_db(Backend(file.clone()), 0).unwrap();
            table::create(store.db().unwrap()).unwrap();
            let write = |row| store.contained(|db| table::write(db, &[], row, &[row as u8; 900]));
            (0..40).for_each(|row| write(row).unwrap());
            if page * 4096 >= file.len().unwrap() {
                break;
            }
            let mut content = [0; 4096];
            raw.read_exact_at(&mut content, page * 4096).unwrap();
            content.iter_mut().skip(1).step_by(64).for_each(|byte| *byte ^= 0x41);
            raw.write_all_at(&content, page * 4096).unwrap();
            if let Some(error) = (40..44).find_map(|row| write(row).err()) {
                errors += 1;
                let text = error.to_string();
                assert!(
                    matches!(error, SegmentError::Damaged(_)) && !text.contains("panicked"),
                    "page {page}: {text}"
                );
            }
        }
        assert!(errors > 3, "{errors} damaged pages were read");
    }

    /// A start refused such a segment for ever in the simulation (damage, seed 500242): it took it for a disk that had failed.
    #[test]
    fn pages_that_lead_beyond_the_end_are_damage_and_a_disk_that_fails_is_none() {
        let counted = Counted::default();
        let (store, _) = open_db(counted.clone(), 1 << 20).unwrap();
        table::create(store.db().unwrap()).unwrap();
        store.close().unwrap();

        for (kind, is_damage) in [(io::ErrorKind::UnexpectedEof, true), (io::ErrorKind::PermissionDenied, false)] {
            let (view, _) = open_view(counted.clone(), 0).unwrap();
            *lock(&counted.failing) = Some(kind);
            for nth in ["first", "later"] {
                let error = view.contained(|db| table::Table::open(db).map(drop)).unwrap_err();
                assert_eq!(matches!(error, SegmentError::Damaged(_)), is_damage, "{kind:?}, {nth}: {error:?}");
            }
            *lock(&counted.failing) = None;
        }
    }
}
