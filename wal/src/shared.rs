//! What the handle, the producers, the readers and the writer thread have in common.
//!
//! Locks are taken in this order: `tracker`, then `state`. `intake` is never held together with another.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use crate::batch::Intake;
use crate::files::{FileError, Files};
use crate::gauge::Gauges;
use crate::progress::Tracker;
use crate::state::State;
use crate::sync::lock;
use crate::{Clock, CommitError, Epoch, Observer, Options, Stats, StreamId, StreamOptions, Timestamp};

/// The bound of the dead letters.
pub(crate) const DEAD_BYTES: u64 = 64 << 20;
/// The bound of what is stored for local reasons and not yet in the checkpoint: more is refused.
pub(crate) const LOCAL_BYTES: u64 = 64 << 20;

pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) options: Options,
    /// The configured streams by id, in order of priority.
    pub(crate) streams: Vec<(StreamId, StreamOptions)>,
    pub(crate) epoch: Epoch,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) files: Files,
    pub(crate) intake: Mutex<Intake>,
    /// Rings when the intake has something for the writer.
    pub(crate) bell: Condvar,
    pub(crate) tracker: Mutex<Tracker>,
    /// As of the last successful commit.
    pub(crate) state: Mutex<State>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) wakes: Mutex<Vec<(StreamId, Wake)>>,
    pub(crate) disk_bytes: AtomicU64,
    pub(crate) free_bytes: AtomicU64,
    /// The active file has a damaged page: begin another.
    pub(crate) leave_active: AtomicBool,
    /// The oldest waiting record of a stream and when it came, as of the last look.
    pub(crate) oldest: Mutex<HashMap<u8, (u64, Timestamp)>>,
    /// The writer thread runs.
    pub(crate) alive: AtomicBool,
    pub(crate) ended: Mutex<Option<Result<(), CommitError>>>,
    pub(crate) ended_bell: Condvar,
}

impl Shared {
    /// The settings of a user stream.
    pub(crate) fn policy(&self, stream: u8) -> Option<&StreamOptions> {
        self.streams.iter().find(|(id, _)| id.0 == stream).map(|(_, options)| options)
    }

    /// Tells the writer that something other than records waits for a commit.
    pub(crate) fn mark_dirty(&self) {
        let mut intake = lock(&self.intake);
        if intake.dirty.is_none() {
            intake.dirty = Some(Instant::now());
            drop(intake);
            self.bell.notify_one();
        }
    }

    /// Gives up a closed file that cannot be read: what waits in it is counted as damaged, the file is kept for salvage.
    pub(crate) fn lose_file(&self, number: u64, error: &FileError) {
        if self.files.active_number() == Some(number) {
            self.leave_active.store(true, Ordering::Relaxed);
            self.mark_dirty();
            return;
        }
        let lost = {
            let mut tracker = lock(&self.tracker);
            let state = lock(&self.state);
            let Some(file) = state.file(number) else { return };
            if tracker.pending.drop_files.contains(&number) {
                return;
            }
            for part in &file.parts {
                tracker.lose(part.stream, number, part.first, part.end, (part.waiting, part.bytes));
            }
            tracker.pending.drop_files.push(number);
            file.parts.iter().map(|part| part.waiting).sum::<u64>()
        };
        tracing::error!(file = number, lost, %error, "a log file cannot be read; its waiting records are counted as damaged and it is kept beside the log for salvage");
        if let Err(error) = self.files.set_aside(number) {
            tracing::warn!(file = number, %error, "the damaged file could not be renamed");
        }
        self.mark_dirty();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("directory", &self.options.directory)
            .finish_non_exhaustive()
    }
}
