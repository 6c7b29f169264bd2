//! Large state that follows the log: sessions, retained messages, packet ids.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};

use crate::record::Offset;
use crate::segment::database::{SegmentError, Store, contained};

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const APPLIED: &str = "applied";
const VERSION_KEY: &str = "version";
const VERSION: u64 = 1;
/// What is read and written here comes in the order of its keys, so a larger one is hardly faster.
const CACHE: usize = 1 << 20;

/// A key and its new value; `None` if the key goes.
pub type Write = (Vec<u8>, Option<Vec<u8>>);

/// A map of bytes to bytes in a file of its own, applied *behind* the stream [`crate::StreamId::LOCAL`]: the log stays
/// the one truth, and what the checkpoint lacks is read again from there.
///
/// After a start, read the stream and pass by what is below [`Checkpoint::applied`]. After [`Checkpoint::apply`],
/// settle the stream up to there, which trims it. It may be read while it is written.
pub struct Checkpoint {
    path: PathBuf,
    db: Store,
    applied: AtomicU64,
}

/// The entries of a checkpoint as of one moment. What is written meanwhile takes room until it is dropped.
pub struct Snapshot {
    path: PathBuf,
    entries: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

/// Why a checkpoint could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// redb or the file system failed. After a failed write the checkpoint must be opened again.
    #[error("the state in {path} could not be used; check the disk's health and free space")]
    Storage {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its content is wrong. It can be moved away, and made again from what the log still has.
    #[error("the state in {path} is damaged; check the disk (`dmesg`)")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file was written by a later version.
    #[error("the state in {path} has format {found}, this version knows up to {VERSION}; start the newer Forebay again")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
}

impl Checkpoint {
    /// Opens the file, or makes it. Blocks on the disk.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let is_new = !path.exists();
        Self::of(path, is_new, create(path)?)
    }

    /// As [`Checkpoint::open`], and compares all pages with their checksums, which reads the whole file. A state that redb
    /// kept beside a damaged one is taken up, with an older [`Checkpoint::applied`]. Blocks on the disk.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] if there is no sound state in it.
    pub fn open_verified(path: &Path) -> Result<Self, CheckpointError> {
        let fail = |error| failed(path, error);
        let is_new = !path.exists();
        let mut store = create(path)?;
        // The first call takes up the older state, and the second one says whether that is sound.
        if !is_new && !store.check_integrity().map_err(fail)? && !store.check_integrity().map_err(fail)? {
            return Err(fail(SegmentError::Damaged("its pages do not match their checksums".into())));
        }
        Self::of(path, is_new, store)
    }

    fn of(path: &Path, is_new: bool, store: Store) -> Result<Self, CheckpointError> {
        let fail = |error| failed(path, error);
        let (version, applied) = contained(|| {
            let transaction = store.db()?.begin_write()?;
            transaction.open_table(ENTRIES)?;
            let found = {
                let mut meta = transaction.open_table(META)?;
                let version = meta.get(VERSION_KEY)?.map(|value| value.value());
                if version.is_none() {
                    meta.insert(VERSION_KEY, VERSION)?;
                }
                let applied = meta.get(APPLIED)?.map_or(0, |value| value.value());
                (version.unwrap_or(VERSION), applied)
            };
            transaction.commit()?;
            Ok(found)
        })
        .map_err(fail)?;
        if version > VERSION {
            return Err(CheckpointError::Version {
                path: path.to_owned(),
                found: version,
            });
        }
        if is_new {
            sync_parent(path).map_err(|error| fail(SegmentError::Io(error)))?;
        }
        Ok(Self {
            path: path.to_owned(),
            db: store,
            applied: AtomicU64::new(applied),
        })
    }

    /// Everything of the stream below this offset is in here.
    #[must_use]
    pub fn applied(&self) -> Offset {
        Offset(self.applied.load(Ordering::Acquire))
    }

    /// The entries as they are now. Blocks on the disk.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn snapshot(&self) -> Result<Snapshot, CheckpointError> {
        let entries = contained(|| Ok(self.db.db()?.begin_read()?.open_table(ENTRIES)?)).map_err(|error| failed(&self.path, error))?;
        Ok(Snapshot {
            path: self.path.clone(),
            entries,
        })
    }

    /// Visits all entries in the order of their keys. Blocks on the disk.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), CheckpointError> {
        self.snapshot()?.visit_from(&[], |key, value| {
            visit(key, value);
            true
        })
    }

    /// The value of a key. Blocks on the disk.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        self.snapshot()?.value(key)
    }

    /// Makes all `writes` and notes that the stream is applied below `through`, in one durable transaction. A later
    /// write of the same key wins. Blocks on the disk.
    ///
    /// # Errors
    /// See [`CheckpointError`]; then nothing of it is applied.
    pub fn apply(&self, writes: &[Write], through: Offset) -> Result<(), CheckpointError> {
        contained(|| {
            let transaction = self.db.db()?.begin_write()?;
            {
                let mut entries = transaction.open_table(ENTRIES)?;
                for (key, value) in writes {
                    match value {
                        Some(value) => drop(entries.insert(key.as_slice(), value.as_slice())?),
                        None => drop(entries.remove(key.as_slice())?),
                    }
                }
                transaction.open_table(META)?.insert(APPLIED, through.0)?;
            }
            transaction.commit()?;
            Ok(())
        })
        .map_err(|error| failed(&self.path, error))?;
        self.applied.store(through.0, Ordering::Release);
        Ok(())
    }
}

impl Snapshot {
    /// Visits the entries from a key on, in the order of their keys, until `visit` gives false. Blocks on the disk.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn visit_from(&self, from: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result<(), CheckpointError> {
        contained(|| {
            for entry in self.entries.range(from..)? {
                let (key, value) = entry?;
                if !visit(key.value(), value.value()) {
                    break;
                }
            }
            Ok(())
        })
        .map_err(|error| failed(&self.path, error))
    }

    /// The value of a key. Blocks on the disk.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        contained(|| Ok(self.entries.get(key)?.map(|value| value.value().to_vec()))).map_err(|error| failed(&self.path, error))
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("path", &self.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("applied", &self.applied())
            .finish_non_exhaustive()
    }
}

fn create(path: &Path) -> Result<Store, CheckpointError> {
    let db = contained(|| Ok(Database::builder().set_cache_size(CACHE).create(path)?));
    Ok(Store::of(db.map_err(|error| failed(path, error))?))
}

fn failed(path: &Path, error: SegmentError) -> CheckpointError {
    let path = path.to_owned();
    match error {
        SegmentError::Damaged(_) => CheckpointError::Damaged {
            path,
            source: Box::new(error),
        },
        SegmentError::Io(_) | SegmentError::Version(_) => CheckpointError::Storage {
            path,
            source: Box::new(error),
        },
    }
}

/// A new file survives a power cut once its directory is synced.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all() {
        // Some file systems know no sync of a directory; the log has said so.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => Ok(()),
        done => done,
    }
}
