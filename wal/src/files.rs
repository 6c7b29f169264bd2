//! The redb files of the directory: one active, the others only read.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition};
use rustix::io::Errno;

use crate::block;
use crate::counted::Counted;
use crate::disk::{Backend, Directory, Overlay, StorageFile};
use crate::note::Note;
use crate::rescue::Rows;
use crate::row::{self, Row, RowKind, encode_row};
use crate::state::{Change, State};
use crate::sync::lock;
use crate::{Stats, StreamId};

/// Records, by stream and first offset.
pub(crate) const BLOCKS: TableDefinition<'_, (u8, u64), &[u8]> = TableDefinition::new("blocks");
/// Snapshots and deltas of the small state, by commit.
pub(crate) const STATE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("state");

/// Locked for as long as the directory is in use; says which file is the newest.
pub(crate) const LOCK: &str = "lock";
/// The file that is made ahead.
pub(crate) const NEXT: &str = "next.tmp";
const ACTIVE_CACHE: usize = 16 << 20;
pub(crate) const CLOSED_CACHE: usize = 1 << 20;
const OPEN_CLOSED: usize = 2;

/// The name of a log file.
pub(crate) fn name(number: u64) -> String {
    format!("{number:010}.redb")
}

/// The number in a log file's name.
pub(crate) fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".redb")
        .filter(|digits| digits.len() == 10)
        .and_then(|digits| digits.parse().ok())
}

/// Whether a name is that of a log file that was set aside.
pub(crate) fn is_set_aside(name: &str) -> bool {
    name.contains(".redb.damaged")
}

/// Why a file could not be used.
#[derive(Debug)]
pub(crate) enum FileError {
    /// The system said no; another time it may say yes.
    Io(io::Error),
    /// The content is wrong.
    Damaged(String),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Damaged(what) => write!(f, "damaged: {what}"),
        }
    }
}

impl std::error::Error for FileError {}

impl FileError {
    /// Whether trying again is of no use: the content is wrong, the disk cannot read it, or the file is gone.
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            Self::Io(error) => error.kind() == io::ErrorKind::NotFound || self.is_of_disk(),
        }
    }

    /// Whether the disk could not read or write, which it may another time.
    pub(crate) fn is_of_disk(&self) -> bool {
        matches!(self, Self::Io(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()))
    }

    /// Whether the disk is full.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

impl<E: Into<redb::Error>> From<E> for FileError {
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
pub(crate) fn contained<T>(action: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    catch_unwind(AssertUnwindSafe(action)).unwrap_or_else(|panic| Err(FileError::Damaged(panic_text(panic.as_ref()))))
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
    /// Compares redb's own checksums with its pages; false = they did not agree, and what redb could mend is mended.
    pub(crate) fn check_integrity(&mut self) -> Result<bool, FileError> {
        match &mut self.0 {
            Some(db) => contained(|| Ok(db.check_integrity()?)),
            None => Err(FileError::Damaged("it is closed".into())),
        }
    }

    fn close(mut self) -> Result<(), FileError> {
        let db = self.0.take();
        contained(|| db.map_or(Ok(()), |db| Ok(db.close()?)))
    }

    pub(crate) fn db(&self) -> Result<&Database, FileError> {
        self.0.as_ref().ok_or_else(|| FileError::Damaged("it is closed".into()))
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
            tracing::debug!(%error, "a log file could not be left in order");
        }
    }
}

/// The file that takes appends.
#[derive(Debug)]
struct Active {
    number: u64,
    db: Store,
    file: Arc<dyn StorageFile>,
}

/// A file made ahead.
#[derive(Debug)]
struct Ahead {
    db: Store,
    file: Arc<dyn StorageFile>,
}

/// The open files.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) directory: Arc<dyn Directory>,
    active: RwLock<Option<Active>>,
    closed: Mutex<Vec<(u64, Arc<Store>)>>,
    ahead: Mutex<Option<Ahead>>,
    stats: Arc<Stats>,
}

/// A block as stored.
#[derive(Debug)]
pub(crate) struct RawBlock {
    pub(crate) first: u64,
    /// Where the next one begins, or the end of what was asked for.
    pub(crate) until: u64,
    pub(crate) bytes: Bytes,
}

/// What an opened newest file says.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) last_row: u64,
    pub(crate) clean: bool,
    /// Rows of the state that could not be read.
    pub(crate) damaged_rows: u64,
    /// A change was lost with one: the state is to be rebuilt.
    pub(crate) incomplete: bool,
    /// Records of user streams that the file's rows say were appended to it.
    pub(crate) appended: u64,
    /// Each stream's next offset when the file began.
    pub(crate) began: BTreeMap<u8, u64>,
    /// Its epoch is over: it cannot be proved that the next offsets were never used.
    pub(crate) renew: bool,
    /// A write to it failed.
    pub(crate) has_failed: bool,
}

impl Files {
    pub(crate) fn new(directory: Arc<dyn Directory>, stats: Arc<Stats>) -> Self {
        Self {
            directory,
            active: RwLock::new(None),
            closed: Mutex::new(Vec::new()),
            ahead: Mutex::new(None),
            stats,
        }
    }

    /// Notes which file is the newest, and up to which row it is believed: less than all after a write to it failed.
    pub(crate) fn note(&self, number: u64, last_row: u64) {
        let noted = self.directory.noted(LOCK).and_then(|bytes| {
            let (at, line) = Note::parse(&bytes).0.next(number, last_row).line();
            self.directory.note(LOCK, at, &line)
        });
        if let Err(error) = noted {
            tracing::warn!(%error, "the newest log file's number could not be noted");
        }
    }

    /// What was noted last, and whether that is sure.
    pub(crate) fn noted(&self) -> (Note, bool) {
        match self.directory.noted(LOCK) {
            Ok(bytes) => Note::parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Note::NONE, true),
            Err(error) => {
                tracing::warn!(%error, "which log file is the newest could not be read; none is written again");
                (Note::NONE, false)
            }
        }
    }

    /// Reads the small state in the newest file after a write to it failed. It is believed up to the row `last` and only
    /// looked at: a repair would write over what is still good in it.
    pub(crate) fn look_at(&self, number: u64, last: u64) -> Result<Recovered, FileError> {
        let overlay = Overlay::new(self.raw(number).map_err(FileError::Io)?).map_err(FileError::Io)?;
        let mut recovered = contained(|| read_state(open_db(overlay, CLOSED_CACHE)?.0.db()?, last))?;
        (recovered.has_failed, recovered.clean) = (true, false);
        Ok(recovered)
    }

    /// Opens the newest file for appending and reads the small state in it.
    pub(crate) fn open_active(&self, number: u64) -> Result<Recovered, FileError> {
        let file = Counted::over(self.directory.open(&name(number)).map_err(FileError::Io)?, &self.stats);
        let (active, recovered) = contained(|| {
            let (db, clean) = open_db(Backend(file.clone()), ACTIVE_CACHE)?;
            let mut recovered = read_state(db.db()?, u64::MAX)?;
            recovered.clean = clean;
            Ok((Active { number, db, file }, recovered))
        })?;
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = Some(active);
        Ok(recovered)
    }

    /// Makes the next file ahead of time, if it is not there yet.
    pub(crate) fn prepare(&self) -> Result<(), FileError> {
        let mut ahead = lock(&self.ahead);
        if ahead.is_none() {
            let file = Counted::over(self.directory.create(NEXT).map_err(FileError::Io)?, &self.stats);
            let db = contained(|| {
                let (db, _) = open_db(Backend(file.clone()), ACTIVE_CACHE)?;
                let transaction = db.db()?.begin_write()?;
                transaction.open_table(BLOCKS)?;
                transaction.open_table(STATE)?;
                transaction.commit()?;
                Ok(db)
            })?;
            *ahead = Some(Ahead { db, file });
        }
        Ok(())
    }

    pub(crate) fn is_prepared(&self) -> bool {
        lock(&self.ahead).is_some()
    }

    /// Switches to a new file that begins with `snapshot`:
    /// 1. the old file is closed cleanly, so that at most one is ever unclean,
    /// 2. the snapshot is committed into the new one, twice, because nothing else says what it says: `row` and the next,
    /// 3. it gets its name,
    /// 4. the directory is synced,
    /// 5. its number is noted, so that its loss is noticed.
    ///
    /// Only then may it take records.
    pub(crate) fn switch(&self, number: u64, row: u64, snapshot: &[Change]) -> Result<(), FileError> {
        self.prepare()?;
        self.close_active()?;
        let Some(ahead) = lock(&self.ahead).take() else {
            return Err(FileError::Damaged("the next file is gone".into()));
        };
        let encoded = |row| encode_row(RowKind::Snapshot, row, snapshot);
        contained(|| write(ahead.db.db()?, &[], &[(row, &encoded(row)), (row + 1, &encoded(row + 1))]))?;
        self.directory.rename(NEXT, &name(number)).map_err(FileError::Io)?;
        self.directory.sync().map_err(FileError::Io)?;
        self.note(number, u64::MAX);
        let active = Active {
            number,
            db: ahead.db,
            file: ahead.file,
        };
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = Some(active);
        Ok(())
    }

    /// Closes the active file; waits for readers in it.
    pub(crate) fn close_active(&self) -> Result<(), FileError> {
        let active = self.active.write().unwrap_or_else(PoisonError::into_inner).take();
        active.map_or(Ok(()), |active| active.db.close())
    }

    /// Lets go of the active file without a thought for how it is left.
    pub(crate) fn abandon_active(&self) {
        drop(self.active.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Drops what was made ahead.
    pub(crate) fn discard_ahead(&self) {
        drop(lock(&self.ahead).take());
        // Half made, it takes room as well.
        match self.directory.remove(NEXT) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, "the file made ahead could not be removed");
            }
            _ => {}
        }
    }

    /// Commits blocks and a row of the state.
    pub(crate) fn commit(&self, blocks: &[(u8, u64, Vec<u8>)], row: u64, delta: &[u8]) -> Result<(), FileError> {
        let active = self.active.read().unwrap_or_else(PoisonError::into_inner);
        let active = active.as_ref().ok_or_else(|| FileError::Damaged("no file is open".into()))?;
        contained(|| write(active.db.db()?, blocks, &[(row, delta)]))
    }

    /// Bytes that the active file occupies.
    pub(crate) fn active_allocated(&self) -> u64 {
        let active = self.active.read().unwrap_or_else(PoisonError::into_inner);
        active.as_ref().and_then(|active| active.file.allocated().ok()).unwrap_or(0)
    }

    pub(crate) fn active_number(&self) -> Option<u64> {
        self.active
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|active| active.number)
    }

    /// Blocks of a stream from the one that holds `from` on, up to `end`, until `max_bytes` are gathered; at least one
    /// that reaches beyond `from` if there is one. Copies out and closes the transaction before it returns.
    pub(crate) fn blocks(&self, number: u64, stream: u8, from: u64, end: u64, max_bytes: usize) -> Result<Vec<RawBlock>, FileError> {
        self.read(number, |transaction| {
            let table = transaction.open_table(BLOCKS)?;
            let start = match table.range((stream, 0)..=(stream, from))?.next_back() {
                Some(entry) => entry?.0.value(),
                None => (stream, from),
            };
            let mut blocks: Vec<RawBlock> = Vec::new();
            let mut bytes = 0;
            for entry in table.range(start..(stream, end))? {
                let (key, value) = entry?;
                let first = key.value().1;
                let is_in_place = (start.1..end).contains(&first) && key.value().0 == stream;
                if !is_in_place || block::is_misplaced(value.value(), key.value()) {
                    return Err(FileError::Damaged(format!("a block's key, {:?}, is out of its place", key.value())));
                }
                if let Some(last) = blocks.last_mut() {
                    last.until = first;
                    if bytes >= max_bytes && first > from {
                        break;
                    }
                }
                bytes += value.value().len();
                blocks.push(RawBlock {
                    first,
                    until: end,
                    bytes: Bytes::copy_from_slice(value.value()),
                });
            }
            Ok(blocks)
        })
    }

    /// The bytes of a file as they lie there, past redb.
    pub(crate) fn raw(&self, number: u64) -> io::Result<Arc<dyn StorageFile>> {
        self.directory.open(&name(number))
    }

    /// Whether a closed file opens.
    pub(crate) fn check(&self, number: u64) -> Result<(), FileError> {
        self.read(number, |transaction| {
            transaction.open_table(BLOCKS)?;
            Ok(())
        })
    }

    /// Closes and unlinks a file that the catalogue no longer names.
    pub(crate) fn unlink(&self, number: u64) -> io::Result<()> {
        self.forget(number);
        self.directory.remove(&name(number))
    }

    /// Renames a file that cannot be used, for salvage.
    pub(crate) fn set_aside(&self, number: u64) -> io::Result<()> {
        self.forget(number);
        let name = name(number);
        let taken = self.directory.list()?;
        let aside = (0..).map(|n| {
            if n == 0 {
                format!("{name}.damaged")
            } else {
                format!("{name}.damaged-{n}")
            }
        });
        let aside = aside
            .into_iter()
            .find(|aside| !taken.contains(aside))
            .unwrap_or_else(|| format!("{name}.damaged"));
        self.directory.rename(&name, &aside)?;
        self.directory.sync()
    }

    fn forget(&self, number: u64) {
        lock(&self.closed).retain(|(open, _)| *open != number);
    }

    pub(crate) fn read<T>(&self, number: u64, action: impl FnOnce(&ReadTransaction) -> Result<T, FileError>) -> Result<T, FileError> {
        {
            let active = self.active.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(active) = active.as_ref().filter(|active| active.number == number) {
                return contained(|| action(&active.db.db()?.begin_read()?));
            }
        }
        let db = self.closed(number)?;
        contained(|| action(&db.db()?.begin_read()?))
    }

    /// A closed file, opened on demand; the two used last stay open.
    fn closed(&self, number: u64) -> Result<Arc<Store>, FileError> {
        let mut closed = lock(&self.closed);
        if let Some(at) = closed.iter().position(|(open, _)| *open == number) {
            let entry = closed.remove(at);
            let db = entry.1.clone();
            closed.push(entry);
            return Ok(db);
        }
        let file = self.directory.open(&name(number)).map_err(FileError::Io)?;
        let overlay = Overlay::new(file).map_err(FileError::Io)?;
        let (db, _) = contained(|| open_db(overlay, CLOSED_CACHE))?;
        let db = Arc::new(db);
        if closed.len() == OPEN_CLOSED {
            closed.remove(0);
        }
        closed.push((number, db.clone()));
        Ok(db)
    }
}

/// Opens a database; says whether it had been closed properly.
pub(crate) fn open_db(backend: impl redb::StorageBackend, cache: usize) -> Result<(Store, bool), FileError> {
    let repaired = Arc::new(AtomicBool::new(false));
    let noted = repaired.clone();
    let db = Database::builder()
        .set_cache_size(cache)
        .set_repair_callback(move |_| noted.store(true, Ordering::Relaxed))
        .create_with_backend(backend)?;
    Ok((Store(Some(db)), !repaired.load(Ordering::Relaxed)))
}

/// `Durability::Immediate` with one phase is what redb does by default: one `fdatasync`.
fn write(db: &Database, blocks: &[(u8, u64, Vec<u8>)], rows: &[(u64, &[u8])]) -> Result<(), FileError> {
    let transaction = db.begin_write()?;
    {
        let mut table = transaction.open_table(BLOCKS)?;
        for (stream, first, block) in blocks {
            table.insert((*stream, *first), block.as_slice())?;
        }
        let mut table = transaction.open_table(STATE)?;
        for (row, value) in rows {
            table.insert(row, value)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// Folds the newest snapshot of a file and the deltas after it.
pub(crate) fn read_state(db: &Database, last: u64) -> Result<Recovered, FileError> {
    let transaction = db.begin_read()?;
    let table = transaction.open_table(STATE)?;
    let mut folded = Folded::default();
    for entry in table.range::<u64>(..=last)? {
        let (number, value) = entry?;
        folded.take(number.value(), row::decode_row(value.value()));
    }
    folded.into_recovered()
}

/// Folds the rows that were found in the bytes of a file that does not open. What followed the last one is not known.
pub(crate) fn fold_rows(rows: Rows) -> Result<Recovered, FileError> {
    let mut folded = Folded::default();
    for (number, row) in rows {
        folded.take(number, Some(row));
    }
    folded.incomplete = true;
    folded.into_recovered()
}

/// Rows on their way to a state.
#[derive(Default)]
struct Folded {
    state: Option<State>,
    last_row: u64,
    damaged_rows: u64,
    incomplete: bool,
    appended: u64,
    began: BTreeMap<u8, u64>,
}

impl Folded {
    fn take(&mut self, number: u64, row: Option<Row>) {
        let is_next = self.state.is_none() || number == self.last_row + 1;
        self.last_row = number;
        let row = row.filter(|row| row.number == number);
        match (row, &mut self.state) {
            (Some(row), _) if row.kind == RowKind::Snapshot => {
                let mut state = State::default();
                row.changes.iter().for_each(|change| state.apply(change));
                self.began = state.streams.iter().map(|stream| (stream.id, stream.next)).collect();
                self.state = Some(state);
                self.incomplete = false;
            }
            (Some(row), Some(state)) => {
                self.incomplete |= !is_next;
                for change in &row.changes {
                    if let Change::Appended { stream, records, .. } = change
                        && *stream < StreamId::LOCAL.0
                    {
                        self.appended += records;
                    }
                    // The lost row may have suspended what this progress passes over.
                    if !(self.incomplete && matches!(change, Change::Progress { .. })) {
                        state.apply(change);
                    }
                }
            }
            (Some(_), None) | (None, _) => {
                self.damaged_rows += 1;
                self.incomplete = true;
            }
        }
    }

    fn into_recovered(self) -> Result<Recovered, FileError> {
        let missing = || FileError::Damaged("it holds no readable snapshot of the log's state".into());
        Ok(Recovered {
            state: self.state.ok_or_else(missing)?,
            last_row: self.last_row,
            clean: true,
            damaged_rows: self.damaged_rows,
            incomplete: self.incomplete,
            appended: self.appended,
            began: self.began,
            renew: self.incomplete || self.damaged_rows > 0,
            has_failed: false,
        })
    }
}
