//! Segments at which starts died: redb can be made to abort by what is in a file, which no process survives.
//!
//! Before a segment is opened at a start, that is noted. What two starts in a row did not get beyond is not opened again: its records
//! are searched for in its bytes, as those of any that does not open.

use std::sync::Mutex;

use crate::io::directory::Directory;
use crate::segment::database::SegmentError;
use crate::segment::lock_file::Opening;
use crate::segment::segments::LOCK;
use crate::sync::lock;

/// How many starts may die at a segment.
const MOST_FAILED: u32 = 2;

/// What earlier starts died of, and what of it this process does not open.
#[derive(Debug)]
pub(crate) struct FailedStarts(Mutex<Known>);

#[derive(Debug)]
struct Known {
    /// What the start before this one was opening when it died.
    died: Opening,
    /// Not opened any more; 0 = none.
    deadly: u64,
}

impl Default for FailedStarts {
    fn default() -> Self {
        Self(Mutex::new(Known {
            died: Opening::NONE,
            deadly: 0,
        }))
    }
}

impl FailedStarts {
    /// Reads what earlier starts died of.
    pub(crate) fn recall(&self, directory: &dyn Directory) {
        let died = directory.noted(LOCK).map_or(Opening::NONE, |bytes| Opening::parse(&bytes));
        let mut known = lock(&self.0);
        known.died = died;
        if died.times >= MOST_FAILED {
            known.deadly = died.segment;
        }
    }

    /// Notes that a segment is opened.
    pub(crate) fn opening(&self, directory: &dyn Directory, number: u64) {
        let known = lock(&self.0);
        if known.deadly > 0 {
            // The note of that one must stay until it is quarantined.
            return;
        }
        let before = if known.died.segment == number { known.died.times } else { 0 };
        jot(
            directory,
            Opening {
                segment: number,
                times: before + 1,
            },
        );
    }

    /// All that was to be opened was.
    pub(crate) fn opened(&self, directory: &dyn Directory) {
        if lock(&self.0).deadly == 0 {
            jot(directory, Opening::NONE);
        }
    }

    /// A segment has left the log.
    pub(crate) fn forget(&self, directory: &dyn Directory, number: u64) {
        let mut known = lock(&self.0);
        if known.deadly == number {
            known.deadly = 0;
            jot(directory, Opening::NONE);
        }
    }

    /// Fails for a segment that must not be opened.
    pub(crate) fn refuse(&self, number: u64) -> Result<(), SegmentError> {
        if lock(&self.0).deadly == number {
            let what = format!("{MOST_FAILED} starts died while they opened it, so that it is not opened any more");
            return Err(SegmentError::Damaged(what));
        }
        Ok(())
    }
}

fn jot(directory: &dyn Directory, opening: Opening) {
    if let Err(error) = directory.jot(LOCK, Opening::AT, &opening.line()) {
        tracing::debug!(%error, "what is being opened could not be noted");
    }
}
