//! What the handle, the producers, the readers and the writer thread have in common.
//!
//! Locks are taken in this order: `tracker`, then `catalogue`, then `repairs`. `intake` is never held together with another
//! but, under `repairs`, by [`Shared::mark_dirty`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use crate::catalog::catalogue::Catalogue;
use crate::clock::{Clock, Timestamp};
use crate::error::CommitError;
use crate::intake::batch::Intake;
use crate::intake::busy::{BusyThreads, Rests};
use crate::options::{Options, StreamOptions};
use crate::progress::gauges::Gauges;
use crate::progress::tracker::Tracker;
use crate::record::{Epoch, StreamId};
use crate::segment::database::SegmentError;
use crate::segment::segments::Segments;
use crate::stats::{Observer, Quarantined, Stats};
use crate::sync::lock;

/// The bound of the dead letters.
pub(crate) const DEAD_BYTES: u64 = 64 << 20;
/// The bound of what is stored for local reasons and not yet in the checkpoint: more is refused.
pub(crate) const LOCAL_BYTES: u64 = 64 << 20;

/// Damage that was met and is not dealt with yet.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    /// Segments that cannot be read, with the reason.
    pub(crate) damaged: BTreeMap<u64, String>,
    /// Segments and streams of which it is not known how many records are gone.
    pub(crate) unsure: BTreeSet<(u64, u8)>,
}

pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) options: Options,
    /// The configured streams by id, in order of priority.
    pub(crate) streams: Vec<(StreamId, StreamOptions)>,
    pub(crate) epoch: Epoch,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) segments: Segments,
    pub(crate) intake: Mutex<Intake>,
    /// Rings when the intake has something for the writer.
    pub(crate) bell: Condvar,
    pub(crate) busy: BusyThreads,
    /// The intake was told that something other than records waits, or is just being told.
    pub(crate) is_marked: AtomicBool,
    pub(crate) tracker: Mutex<Tracker>,
    /// As of the last successful commit.
    pub(crate) catalogue: Mutex<Catalogue>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) wakes: Mutex<Vec<(StreamId, Wake)>>,
    pub(crate) disk_bytes: AtomicU64,
    /// What files beside the directory take that count in its bound.
    pub(crate) beside_bytes: AtomicU64,
    pub(crate) free_bytes: AtomicU64,
    /// As of the last look.
    pub(crate) quarantined: Mutex<Quarantined>,
    /// What readers met and the writer repairs.
    pub(crate) repairs: Mutex<Repairs>,
    /// The oldest waiting record of a stream and when it came, as of the last look.
    pub(crate) oldest: Mutex<HashMap<u8, (u64, Timestamp)>>,
    /// The writer thread runs.
    pub(crate) alive: AtomicBool,
    pub(crate) ended: Mutex<Option<Result<(), CommitError>>>,
    pub(crate) ended_bell: Condvar,
}

impl Shared {
    /// Whether the file system leaves less than the log's own bound does, as of the last look.
    pub(crate) fn is_short_of_space(&self) -> bool {
        let (used, free) = (self.disk_bytes.load(Ordering::Relaxed), self.free_bytes.load(Ordering::Relaxed));
        free.saturating_sub(self.options.keep_free) < self.options.max_disk.saturating_sub(used)
    }

    /// Why there is no room: the file system, or the log's own bound.
    pub(crate) fn why_full(&self) -> String {
        let (max, keep) = (self.options.max_disk, self.options.keep_free);
        let (used, free) = (self.disk_bytes.load(Ordering::Relaxed), self.free_bytes.load(Ordering::Relaxed));
        let mib = |bytes: u64| bytes >> 20;
        if self.is_short_of_space() {
            format!(
                "the file system is full: {} MiB are free and gateway.keep_free keeps {} MiB; free some space on it, or lower gateway.keep_free (the log has {} MiB of the {} MiB that it may have)",
                mib(free),
                mib(keep),
                mib(used),
                mib(max)
            )
        } else {
            format!(
                "the log has {} MiB, and gateway.max_disk is {} MiB: raise it, or let the cloud take some",
                mib(used),
                mib(max)
            )
        }
    }

    /// The settings of a user stream.
    pub(crate) fn policy(&self, stream: u8) -> Option<&StreamOptions> {
        self.streams.iter().find(|(id, _)| id.0 == stream).map(|(_, options)| options)
    }

    /// Tells the writer that something other than records waits for a commit. It is called after what waits was noted under a
    /// lock that the writer takes to collect it: so whoever finds the mark set was before that, and need not wait for the
    /// intake, which every append takes.
    pub(crate) fn mark_dirty(&self) {
        if self.is_marked.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut intake = lock(&self.intake);
        if intake.dirty.is_none() {
            intake.dirty = Some(Instant::now());
            drop(intake);
            self.bell.notify_one();
        }
    }

    /// Takes the mark down, before what waits is collected.
    pub(crate) fn unmark(&self, intake: &mut Intake) {
        intake.dirty = None;
        self.is_marked.store(false, Ordering::Release);
    }

    /// Tells the writer of a segment that cannot be read as it should.
    pub(crate) fn mark_damaged(&self, segment: u64, error: &SegmentError) {
        let is_new = lock(&self.repairs).damaged.insert(segment, error.to_string()).is_none();
        if is_new {
            self.mark_dirty();
        }
    }

    /// Tells the writer of a block that may have held more than could be found in it.
    pub(crate) fn mark_unsure(&self, segment: u64, stream: u8) {
        if lock(&self.repairs).unsure.insert((segment, stream)) {
            self.mark_dirty();
        }
    }
}

impl Rests for Shared {
    fn busy_threads(&self) -> &BusyThreads {
        &self.busy
    }

    fn all_rest(&self) {
        // Under the lock, so that the writer has either seen that they rest, or waits for the bell already.
        let has_records = !lock(&self.intake).open.is_empty();
        if has_records {
            self.bell.notify_one();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("directory", &self.options.directory)
            .finish_non_exhaustive()
    }
}
