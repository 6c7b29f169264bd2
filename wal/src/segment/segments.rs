//! The redb files of the directory: one active, the others only read.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, TryLockError};

use bytes::Bytes;
use redb::Database;

use crate::encoding::block::{self, Block, NewBlock};
use crate::encoding::change::Change;
use crate::encoding::entry::RawBlock;
use crate::encoding::row::{RowKind, encode_row};
use crate::io::checked::Checked;
use crate::io::directory::{Backend, Directory, Overlay, StorageFile};
use crate::io::metered::Metered;
use crate::io::watched::Watched;
use crate::segment::blocks::Blocks;
use crate::segment::database::{SegmentError, Store, contained, open_closed_view, open_db, open_view};
use crate::segment::failed_starts::FailedStarts;
use crate::segment::life::{Life, Lives};
use crate::segment::quarantine::UNCOUNTED;
use crate::segment::removal::Removal;
use crate::segment::reuse::{Reused, SPARE};
use crate::segment::table::{self, Next, Table};
use crate::stats::Stats;
use crate::sync::lock;

/// Locked for as long as the directory is in use; says which segment is the newest.
pub(crate) const LOCK: &str = "lock";
/// The segment that is made ahead.
pub(crate) const NEXT: &str = "next.tmp";
const ACTIVE_CACHE: usize = 4 << 20;
pub(crate) const CLOSED_CACHE: usize = 1 << 20;
const OPEN_CLOSED: usize = 2;
/// How often what was read wrongly is read again before it is taken for damaged.
pub(crate) const READ_AGAIN: usize = 3;

/// The name of a segment.
pub(crate) fn name(number: u64) -> String {
    format!("{number:010}.redb")
}

/// The number in a segment's name.
pub(crate) fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".redb")
        .filter(|digits| digits.len() == 10)
        .and_then(|digits| digits.parse().ok())
}

/// Whether a name is that of a segment that was quarantined.
pub(crate) fn is_quarantined(name: &str) -> bool {
    name.contains(".redb.damaged")
}

/// The segment that takes appends.
#[derive(Debug)]
struct Active {
    number: u64,
    db: Store,
    file: Arc<dyn StorageFile>,
}

/// A segment made ahead.
#[derive(Debug)]
struct Ahead {
    db: Store,
    file: Arc<dyn StorageFile>,
    /// It lies over the spare one.
    is_overlaid: bool,
}

/// The open segments.
#[derive(Debug)]
pub(crate) struct Segments {
    pub(crate) directory: Arc<dyn Directory>,
    active: RwLock<Option<Active>>,
    lives: Lives,
    pub(super) closed: Mutex<Vec<(u64, Arc<Store>)>>,
    /// Segments that do not open, with the reason: trying takes as long as the segment is large, and is of no use.
    pub(super) unopenable: Mutex<BTreeMap<u64, String>>,
    ahead: Mutex<Option<Ahead>>,
    /// Bytes that the segment made ahead occupies.
    ahead_bytes: AtomicU64,
    /// Bytes that the spare segment occupies; 0 = there is none.
    spare_bytes: AtomicU64,
    /// The number of the segment that was active last.
    pub(super) newest: AtomicU64,
    pub(super) failed_starts: FailedStarts,
    pub(crate) removal: Removal,
    /// Which log this is.
    pub(super) log: OnceLock<u128>,
    stats: Arc<Stats>,
}

impl Segments {
    pub(crate) fn new(directory: Arc<dyn Directory>, stats: Arc<Stats>) -> Self {
        Self {
            directory: Watched::over(directory, &stats),
            active: RwLock::new(None),
            lives: Lives::default(),
            closed: Mutex::new(Vec::new()),
            unopenable: Mutex::default(),
            ahead: Mutex::new(None),
            ahead_bytes: AtomicU64::new(0),
            spare_bytes: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            failed_starts: FailedStarts::default(),
            removal: Removal::default(),
            log: OnceLock::new(),
            stats,
        }
    }

    /// Reads in a segment that is only looked at: what redb would repair in it stays in memory. Gives besides whether it had
    /// been closed properly.
    pub(crate) fn look_at<T>(
        &self,
        number: u64,
        read: impl FnOnce(&Database) -> Result<T, SegmentError>,
    ) -> Result<(T, bool), SegmentError> {
        self.failed_starts.refuse(number)?;
        let overlay = Overlay::new(self.raw(number).map_err(SegmentError::Io)?).map_err(SegmentError::Io)?;
        contained(|| {
            let (db, clean) = open_view(overlay, CLOSED_CACHE)?;
            Ok((db.contained(read)?, clean))
        })
    }

    /// The same of a segment that had been closed properly; `None` if it had not, and nothing was read then.
    pub(crate) fn look_at_closed<T>(
        &self,
        number: u64,
        read: impl FnOnce(&Database) -> Result<T, SegmentError>,
    ) -> Result<Option<T>, SegmentError> {
        self.failed_starts.refuse(number)?;
        let overlay = Overlay::new(self.raw(number).map_err(SegmentError::Io)?).map_err(SegmentError::Io)?;
        contained(|| match open_closed_view(overlay, CLOSED_CACHE)? {
            Some(db) => Ok(Some(db.contained(read)?)),
            None => Ok(None),
        })
    }

    /// Opens a segment that had been closed properly for appending, once all of its pages were read and are right: redb reads them
    /// unchecked, and in the middle of a commit it can abort the process over a damaged one.
    pub(crate) fn open_verified(&self, number: u64) -> Result<(), SegmentError> {
        self.failed_starts.refuse(number)?;
        let overlay = Overlay::new(self.raw(number).map_err(SegmentError::Io)?).map_err(SegmentError::Io)?;
        let is_whole = contained(|| {
            let (mut view, _) = open_view(overlay, CLOSED_CACHE)?;
            view.check_integrity()
        })?;
        if !is_whole {
            return Err(SegmentError::Damaged("redb's page checksums do not agree with its pages".into()));
        }
        self.open_active(number, |_| Ok(())).map(drop)
    }

    /// Opens a segment for appending, if what is to be read in it can be read. Gives besides whether it had been closed properly.
    pub(crate) fn open_active<T>(
        &self,
        number: u64,
        read: impl FnOnce(&Database) -> Result<T, SegmentError>,
    ) -> Result<(T, bool), SegmentError> {
        self.failed_starts.refuse(number)?;
        let file = self.directory.open_to_write(&name(number)).map_err(SegmentError::Io)?;
        let file = Metered::over(file, &self.stats);
        let (active, found, clean) = contained(|| {
            let (db, clean) = open_db(Backend(file.clone()), ACTIVE_CACHE)?;
            let found = db.contained(read)?;
            Ok((Active { number, db, file }, found, clean))
        })?;
        self.activate(active);
        Ok((found, clean))
    }

    /// The spare segment, to be laid over.
    fn take_spare(&self) -> Option<Arc<dyn StorageFile>> {
        let bytes = self.spare_bytes.swap(0, Ordering::Relaxed);
        if bytes == 0 {
            return None;
        }
        self.ahead_bytes.store(bytes, Ordering::Relaxed);
        let renamed = self.directory.rename(SPARE, NEXT);
        let file = renamed.and_then(|()| Reused::over(self.directory.open_to_write(NEXT)?));
        file.inspect_err(|error| {
            tracing::debug!(%error, "a spare segment could not be reused");
            self.directory.remove(SPARE).ok();
            self.ahead_bytes.store(0, Ordering::Relaxed);
        })
        .ok()
    }

    /// Whether there is a spare segment, or one that is made ahead over it.
    pub(crate) fn has_spare(&self) -> bool {
        self.spare_bytes.load(Ordering::Relaxed) > 0 || lock(&self.ahead).as_ref().is_some_and(|ahead| ahead.is_overlaid)
    }

    /// Gives the room back that the spare segment takes; false = there is none.
    pub(crate) fn drop_spare(&self) -> bool {
        if self.spare_bytes.swap(0, Ordering::Relaxed) > 0 {
            return self.removal.take(&*self.directory, SPARE, true).is_ok();
        }
        let is_overlaid = lock(&self.ahead).as_ref().is_some_and(|ahead| ahead.is_overlaid);
        if is_overlaid {
            self.discard_ahead();
        }
        is_overlaid
    }

    /// Bytes that the next segment takes, and what it is to be laid over.
    pub(crate) fn ahead_allocated(&self) -> u64 {
        self.ahead_bytes.load(Ordering::Relaxed) + self.spare_bytes.load(Ordering::Relaxed)
    }

    /// Makes the next segment ahead of time, if it is not there yet.
    pub(crate) fn prepare(&self) -> Result<(), SegmentError> {
        let mut ahead = lock(&self.ahead);
        if ahead.is_none() {
            let overlaid = self.take_spare();
            let is_overlaid = overlaid.is_some();
            let file = overlaid.map_or_else(|| self.directory.create(NEXT), Ok).map_err(SegmentError::Io)?;
            let file = Checked::over(Metered::over(file, &self.stats), &self.stats);
            let db = contained(|| {
                let (db, _) = open_db(Backend(file.clone()), ACTIVE_CACHE)?;
                table::create(db.db()?)?;
                Ok(db)
            })?;
            self.ahead_bytes.store(file.allocated().unwrap_or(0), Ordering::Relaxed);
            *ahead = Some(Ahead { db, file, is_overlaid });
        }
        Ok(())
    }

    /// Whether the next segment is being made just now.
    pub(crate) fn is_in_making(&self) -> bool {
        matches!(self.ahead.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Whether the next segment is there, or being made.
    pub(crate) fn is_prepared(&self) -> bool {
        match self.ahead.try_lock() {
            Ok(ahead) => ahead.is_some(),
            Err(TryLockError::Poisoned(ahead)) => ahead.into_inner().is_some(),
            Err(TryLockError::WouldBlock) => true,
        }
    }

    /// Switches to a new segment that begins with `snapshot`:
    /// 1. the old segment is closed cleanly, so that at most one is ever unclean,
    /// 2. the snapshot is committed into the new one, twice, because nothing else says what it says: `row` and the next. In
    ///    two commits: where the pages of a segment's last commit are damaged, redb goes back to the one before,
    /// 3. it gets its name,
    /// 4. the directory is synced,
    /// 5. its number is noted, so that its loss is noticed.
    ///
    /// Only then may it take records.
    pub(crate) fn switch(&self, number: u64, row: u64, snapshot: &[Change]) -> Result<(), SegmentError> {
        self.prepare()?;
        self.close_active()?;
        let ahead = lock(&self.ahead).take();
        self.ahead_bytes.store(0, Ordering::Relaxed);
        let Some(ahead) = ahead else {
            return Err(SegmentError::Damaged("the next segment is gone".into()));
        };
        for row in [row, row + 1] {
            let encoded = encode_row(RowKind::Snapshot, row, snapshot);
            ahead.db.contained(|db| table::write(db, &[], row, &encoded))?;
        }
        self.directory.rename(NEXT, &name(number)).map_err(SegmentError::Io)?;
        self.directory.sync().map_err(SegmentError::Io)?;
        self.note(number, u64::MAX);
        self.activate(Active {
            number,
            db: ahead.db,
            file: ahead.file,
        });
        Ok(())
    }

    fn activate(&self, active: Active) {
        self.newest.store(active.number, Ordering::Relaxed);
        self.lives.enter(active.number, Life::Active);
        *self.active.write().unwrap_or_else(PoisonError::into_inner) = Some(active);
    }

    /// Closes the active segment: waits for those that read in it; others wait until it is closed.
    pub(crate) fn close_active(&self) -> Result<(), SegmentError> {
        self.leave_active(|Active { db, file, .. }| {
            db.close()?;
            if let Err(error) = file.trim() {
                tracing::debug!(%error, "a segment is longer than it need be");
            }
            Ok(())
        })
    }

    /// Lets go of the active segment without a thought for how it is left.
    pub(crate) fn abandon_active(&self) {
        self.leave_active(|active| {
            drop(active);
            Ok(())
        })
        .ok();
    }

    fn leave_active(&self, end: impl FnOnce(Active) -> Result<(), SegmentError>) -> Result<(), SegmentError> {
        let Some(number) = self.active_number() else { return Ok(()) };
        self.lives.enter(number, Life::Closing);
        let active = self.active.write().unwrap_or_else(PoisonError::into_inner).take();
        let ended = contained(|| active.map_or(Ok(()), end));
        self.lives.enter(number, Life::Closed);
        ended
    }

    /// Drops what was made ahead.
    pub(crate) fn discard_ahead(&self) {
        drop(lock(&self.ahead).take());
        self.ahead_bytes.store(0, Ordering::Relaxed);
        // Half made, it takes room as well.
        match self.directory.remove(NEXT) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, "the segment made ahead could not be removed");
            }
            _ => {}
        }
    }

    /// Commits blocks and a row of the state. What lies in a segment that no name leads to any more is not believed.
    pub(crate) fn commit(&self, blocks: &[NewBlock<'_>], row: u64, delta: &[u8]) -> Result<(), SegmentError> {
        let active = self.active.read().unwrap_or_else(PoisonError::into_inner);
        let active = active.as_ref().ok_or_else(|| SegmentError::Damaged("no segment is open".into()))?;
        active.db.contained(|db| table::write(db, blocks, row, delta))?;
        self.directory
            .confirm(&name(active.number), &*active.file)
            .map_err(SegmentError::Io)
    }

    /// Bytes that the active segment occupies.
    pub(crate) fn active_allocated(&self) -> u64 {
        let active = self.active.read().unwrap_or_else(PoisonError::into_inner);
        active.as_ref().and_then(|active| active.file.allocated().ok()).unwrap_or(0)
    }

    /// Bytes of the active segment that are in use.
    pub(crate) fn active_filled(&self) -> u64 {
        let active = self.active.read().unwrap_or_else(PoisonError::into_inner);
        active.as_ref().and_then(|active| active.file.filled().ok()).unwrap_or(0)
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
    pub(crate) fn blocks(&self, number: u64, stream: u8, from: u64, end: u64, max_bytes: usize) -> Result<Blocks, SegmentError> {
        let raw = self.raw_blocks(number, stream, from, end, max_bytes)?;
        Ok(Blocks {
            until: raw.last().map_or(end, |last| last.until),
            list: raw.into_iter().map(Block::parse).collect(),
        })
    }

    fn raw_blocks(&self, number: u64, stream: u8, from: u64, end: u64, max_bytes: usize) -> Result<Vec<RawBlock>, SegmentError> {
        self.read(number, |table| {
            let start = table.last_at(stream, from)?.unwrap_or((stream, from));
            let mut blocks: Vec<RawBlock> = Vec::new();
            let mut bytes = 0;
            table.each_block(start..(stream, end), |key, value| {
                let first = key.1;
                let is_in_place = (start.1..end).contains(&first) && key.0 == stream;
                if !is_in_place || block::is_misplaced(value, key) {
                    return Err(SegmentError::Damaged(format!("a block's key, {key:?}, is out of its place")));
                }
                if let Some(last) = blocks.last_mut() {
                    last.until = first;
                    if bytes >= max_bytes && first > from {
                        return Ok(Next::Stop);
                    }
                }
                bytes += value.len();
                blocks.push(RawBlock {
                    first,
                    until: end,
                    bytes: Bytes::copy_from_slice(value),
                });
                Ok(Next::More)
            })?;
            Ok(blocks)
        })
    }

    /// Does something with a segment that may have been read wrongly: after damage, or an error of the disk, again past what redb and the
    /// system have cached of it, [`READ_AGAIN`] times. A file that is stale is opened again as often.
    ///
    /// # Errors
    /// The last one.
    pub(crate) fn patiently<T>(&self, number: u64, action: impl Fn() -> Result<T, SegmentError>) -> Result<T, SegmentError> {
        let mut done = action();
        for _ in 0..READ_AGAIN {
            let error = match done {
                Err(error) if error.is_stale() => {
                    self.forget(number);
                    done = action();
                    continue;
                }
                Err(error) if error.is_lasting() && !error.is_missing() => error,
                done => return done,
            };
            self.forget_cached(number);
            done = action();
            if done.is_ok() {
                self.corrected(number, &error.to_string());
            }
        }
        done
    }

    /// Lets redb and the system forget what they have cached of a closed segment.
    pub(crate) fn forget_cached(&self, number: u64) {
        self.forget(number);
        if let Ok(file) = self.raw(number)
            && let Err(error) = file.forget_cache()
        {
            tracing::debug!(segment = number, %error, "the system keeps what it has cached of a segment");
        }
    }

    /// What was read wrongly before was right this time.
    pub(crate) fn corrected(&self, number: u64, what: &str) {
        self.stats.reads_corrected.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            segment = number,
            what,
            "a segment was read wrongly, and rightly when it was read again: check the disk and its cable"
        );
    }

    /// The bytes of a segment as they lie there, past redb.
    pub(crate) fn raw(&self, number: u64) -> io::Result<Arc<dyn StorageFile>> {
        self.directory.open(&name(number))
    }

    /// Whether a closed segment opens.
    pub(crate) fn check(&self, number: u64) -> Result<(), SegmentError> {
        self.read(number, |_| Ok(()))
    }

    /// Closes and unlinks a segment that the catalogue no longer names.
    pub(crate) fn unlink(&self, number: u64) -> io::Result<()> {
        self.forget(number);
        self.lives.spend(number);
        let removed = self.directory.remove(&name(number));
        self.lives.forget(number);
        removed
    }

    /// Takes a segment that the catalogue no longer names out of the log: the next segment may be laid over it, unless there is one for that,
    /// or somebody reads in it. Otherwise it is removed beside the commits.
    pub(crate) fn retire(&self, number: u64) -> io::Result<()> {
        self.forget(number);
        let is_free = self.lives.spend(number);
        let retired = self.keep_or_remove(&name(number), is_free);
        self.lives.forget(number);
        retired
    }

    fn keep_or_remove(&self, name: &str, is_free: bool) -> io::Result<()> {
        // Held, it is not being laid over a spare just now.
        let ahead = self.ahead.try_lock();
        if !is_free || ahead.is_err() || self.spare_bytes.load(Ordering::Relaxed) > 0 {
            return self.removal.take(&*self.directory, name, is_free);
        }
        let allocated = self.directory.allocated(name)?;
        if allocated == 0 || self.directory.rename(name, SPARE).is_err() {
            return self.removal.take(&*self.directory, name, is_free);
        }
        self.spare_bytes.store(allocated, Ordering::Relaxed);
        Ok(())
    }

    /// Renames a segment that cannot be used, for salvage. What waited in it was copied or counted.
    pub(crate) fn quarantine(&self, number: u64) -> io::Result<()> {
        self.quarantine_as(number, ".damaged")
    }

    /// Renames a segment of which nobody knows what waited in it.
    pub(crate) fn quarantine_uncounted(&self, number: u64) -> io::Result<()> {
        self.quarantine_as(number, UNCOUNTED)
    }

    fn quarantine_as(&self, number: u64, end: &str) -> io::Result<()> {
        self.forget(number);
        let name = name(number);
        let taken = self.directory.list()?;
        let first = format!("{name}{end}");
        let others = (1..).map(|n| format!("{first}-{n}"));
        let mut free = std::iter::once(first.clone()).chain(others).filter(|aside| !taken.contains(aside));
        let aside = free.next().unwrap_or(first);
        self.directory.rename(&name, &aside)?;
        self.failed_starts.forget(&*self.directory, number);
        // From here on it is what it is to be, whatever fails. Until a trusted clock has seen it, its age is not known.
        if let Err(error) = self.directory.stamp(&aside, 0) {
            tracing::debug!(name = aside, %error, "the time of a quarantined segment could not be set");
        }
        if let Err(error) = self.directory.sync() {
            tracing::warn!(name = aside, %error, "after a power cut a quarantined segment may have its old name again");
        }
        Ok(())
    }

    fn forget(&self, number: u64) {
        lock(&self.closed).retain(|(open, _)| *open != number);
        lock(&self.unopenable).remove(&number);
    }

    pub(crate) fn read<T>(&self, number: u64, action: impl FnOnce(&Table) -> Result<T, SegmentError>) -> Result<T, SegmentError> {
        let _reading = self.lives.read(number);
        {
            let active = self.active.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(active) = active.as_ref().filter(|active| active.number == number) {
                return active.db.contained(|db| action(&Table::open(db)?));
            }
        }
        let db = self.closed(number)?;
        db.contained(|db| action(&Table::open(db)?))
    }

    /// A closed segment, opened on demand; the two used last stay open.
    fn closed(&self, number: u64) -> Result<Arc<Store>, SegmentError> {
        if !self.lives.wait_until_closed(number) {
            return Err(SegmentError::Io(io::ErrorKind::NotFound.into()));
        }
        let mut closed = lock(&self.closed);
        if let Some(at) = closed.iter().position(|(open, _)| *open == number) {
            let entry = closed.remove(at);
            let db = entry.1.clone();
            closed.push(entry);
            return Ok(db);
        }
        self.failed_starts.refuse(number)?;
        if let Some(what) = lock(&self.unopenable).get(&number) {
            return Err(SegmentError::Damaged(what.clone()));
        }
        let file = self.directory.open(&name(number)).map_err(SegmentError::Io)?;
        let overlay = Overlay::new(file).map_err(SegmentError::Io)?;
        let opened = contained(|| open_view(overlay, CLOSED_CACHE)).inspect_err(|error| {
            if let SegmentError::Damaged(what) = error {
                lock(&self.unopenable).insert(number, what.clone());
            }
        });
        let (db, is_clean) = opened?;
        if !is_clean {
            self.stats.repairs.fetch_add(1, Ordering::Relaxed);
        }
        let db = Arc::new(db);
        if closed.len() == OPEN_CLOSED {
            closed.remove(0);
        }
        closed.push((number, db.clone()));
        Ok(db)
    }
}
