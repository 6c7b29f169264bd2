//! The bounds on the disk: what the directory occupies, and what `max_disk` and `keep_free` leave of it.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;

use crate::intake::batch::OpenBatch;
use crate::segment::quarantine::{Because, Quarantine};
use crate::segment::segments::{Segments, name};
use crate::shared::Shared;
use crate::sync::lock;

/// Space that a commit without records may still use, so that trimming never stops.
const RESERVE: u64 = 1 << 20;
/// Reserved bytes that are given back when the disk is full, so that trimming can begin.
pub(crate) const BALLAST: &str = "ballast";
const BALLAST_MAX: u64 = 16 << 20;
/// A new segment and what it must say of the others.
const BALLAST_MIN: u64 = 4 << 20;

/// What the directory occupies.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) segment_bytes: u64,
    /// Bytes of the active segment.
    pub(crate) active: u64,
    closed: HashMap<u64, u64>,
    ballast: u64,
    quarantine: Quarantine,
    /// Records are refused because there is no room.
    pub(crate) is_full: bool,
    /// What was asked for when there was no room.
    wanted: u64,
}

impl Space {
    /// `max_disk` decides how large a segment may be: a sixteenth of it, 8 to 128 MiB.
    pub(crate) fn new(max_disk: u64) -> Self {
        Self {
            segment_bytes: (max_disk / 16).clamp(8 << 20, 128 << 20),
            active: 0,
            closed: HashMap::new(),
            ballast: 0,
            quarantine: Quarantine::default(),
            is_full: false,
            wanted: 0,
        }
    }

    /// Takes in what lies in the directory when the log is opened.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn measure(&mut self, shared: &Shared) -> io::Result<()> {
        let directory = &shared.segments.directory;
        let segments: Vec<u64> = lock(&shared.catalogue).segments.iter().map(|segment| segment.number).collect();
        let active = shared.segments.active_number();
        for segment in segments.into_iter().filter(|segment| Some(*segment) != active) {
            if let Ok(allocated) = directory.allocated(&name(segment)) {
                self.closed.insert(segment, allocated);
            }
        }
        for name in directory.list()? {
            if name == BALLAST {
                self.ballast = directory.allocated(&name)?;
            }
        }
        self.active = shared.segments.active_allocated();
        self.look_at_quarantine(shared);
        Ok(())
    }

    /// Takes in what is quarantined, and removes what is too old or too much.
    pub(crate) fn keep_quarantine(&mut self, shared: &Shared) {
        // A person may have removed some.
        if !self.quarantine.is_empty() {
            self.look_at_quarantine(shared);
        }
        let now = shared.clock.now();
        while let Some(because) = self.quarantine.due(&now, shared.options.max_disk) {
            self.drop_quarantined(shared, because);
        }
    }

    /// Removes the first quarantined segment that may go; `false` if there is none.
    pub(crate) fn drop_quarantined(&mut self, shared: &Shared, because: Because) -> bool {
        let is_gone = self.quarantine.remove_first(&shared.segments, because, &shared.stats);
        *lock(&shared.quarantined) = self.quarantine.report();
        is_gone
    }

    /// Whether anything is quarantined.
    pub(crate) const fn has_quarantined(&self) -> bool {
        !self.quarantine.is_empty()
    }

    fn look_at_quarantine(&mut self, shared: &Shared) {
        if let Err(error) = self.quarantine.look(&*shared.segments.directory, &shared.clock.now()) {
            tracing::debug!(%error, "the quarantined segments cannot be listed now");
        }
        *lock(&shared.quarantined) = self.quarantine.report();
    }

    /// The active segment is left; its bytes stay in the directory whatever becomes of it.
    pub(crate) fn leave_active(&mut self, segments: &Segments) {
        if let Some(closing) = segments.active_number() {
            self.closed.insert(closing, segments.active_allocated());
            self.active = 0;
        }
    }

    /// A segment's file is gone.
    pub(crate) fn forget(&mut self, segment: u64) {
        self.closed.remove(&segment);
    }

    /// What a closed segment occupies.
    pub(crate) fn allocated(&self, segment: u64) -> u64 {
        self.closed.get(&segment).copied().unwrap_or(0)
    }

    /// A closed segment stays although it leaves the log.
    pub(crate) fn quarantined(&mut self, shared: &Shared, segment: u64) {
        self.closed.remove(&segment);
        self.look_at_quarantine(shared);
    }

    /// Bytes of all that the bound counts.
    pub(crate) fn used(&self, shared: &Shared) -> u64 {
        self.closed.values().sum::<u64>()
            + self.active
            + shared.segments.ahead_allocated()
            + shared.segments.removal.bytes()
            + self.ballast
            + self.quarantine.bytes()
            + shared.beside_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that may still be written.
    pub(crate) fn headroom(&self, shared: &Shared) -> u64 {
        let used = self.used(shared);
        let free = shared.segments.directory.free().unwrap_or(u64::MAX);
        shared.disk_bytes.store(used, Ordering::Relaxed);
        shared.free_bytes.store(free, Ordering::Relaxed);
        shared
            .options
            .max_disk
            .saturating_sub(used)
            .min(free.saturating_sub(shared.options.keep_free))
    }

    /// Bytes that must be there for a batch to be taken: its own, and what the commits that trim need.
    pub(crate) fn needed(&self, shared: &Shared, batch: &OpenBatch) -> u64 {
        wanted(batch) + self.reserve(shared)
    }

    /// Bytes that must be there for a log that was full to take records again: as much as was asked for, if that is not too much.
    pub(crate) fn needed_again(&self, shared: &Shared) -> u64 {
        self.wanted.clamp(RESERVE, 8 * RESERVE) + self.reserve(shared)
    }

    /// What records must leave: enough for the commits that trim, and for a ballast that was used to be made again.
    fn reserve(&self, shared: &Shared) -> u64 {
        RESERVE + ballast_bytes(shared).saturating_sub(self.ballast)
    }

    /// There was no room for a batch: more is refused until there is.
    pub(crate) fn refuse(&mut self, shared: &Shared, batch: &OpenBatch) {
        self.wanted = wanted(batch);
        self.set_full(shared, true);
    }

    /// Refuses records, or takes them again; says so when that changes.
    pub(crate) fn set_full(&mut self, shared: &Shared, is_full: bool) {
        if self.is_full == is_full {
            return;
        }
        self.is_full = is_full;
        lock(&shared.intake).disk_full = is_full;
        if is_full {
            tracing::error!("records are refused: {}", shared.why_full());
        } else {
            tracing::info!("there is room for records again");
        }
    }

    /// Frees the ballast, to get trimming going on a full disk.
    pub(crate) fn drop_ballast(&mut self, shared: &Shared) {
        if self.ballast > 0 && shared.segments.directory.remove(BALLAST).is_ok() {
            self.ballast = 0;
        }
    }

    /// Makes the ballast when it fits easily.
    pub(crate) fn make_ballast(&mut self, shared: &Shared) {
        let bytes = ballast_bytes(shared);
        if self.ballast == 0 && self.headroom(shared) >= bytes * 4 {
            match shared.segments.directory.reserve(BALLAST, bytes) {
                Ok(()) => self.ballast = bytes,
                Err(error) => {
                    tracing::debug!(%error, "no ballast file");
                    shared.segments.directory.remove(BALLAST).ok();
                }
            }
        }
    }
}

/// Blocks are cut to their pages, so a quarter more covers them and the catalogue's row beside them.
fn wanted(batch: &OpenBatch) -> u64 {
    batch.data.len() as u64 * 5 / 4
}

fn ballast_bytes(shared: &Shared) -> u64 {
    (shared.options.max_disk / 16).clamp(BALLAST_MIN, BALLAST_MAX)
}
