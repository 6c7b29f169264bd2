//! Quarantined segments: damaged files that a person may still salvage records from, kept within a bound and for a while.
//!
//! What waited in such a file was copied to another segment or counted as damaged before it was quarantined, so nothing that the log
//! still owes depends on it. It counts in `max_disk`, and it goes, the oldest first,
//!
//! 1. after [`LONGEST`], if a trusted clock proves that,
//! 2. when all together are over a quarter of `max_disk`; the newest one stays,
//! 3. when its room is needed: no publish is refused and no record evicted for its sake.
//!
//! A file of which it is not known what waited in it goes last. Since when a file is quarantined is its time of modification;
//! 1970 stands for a clock that was not trusted at that moment, and the age then counts from the first trusted one.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::io::directory::Directory;
use crate::segment::segments::{Segments, is_quarantined};
use crate::stats::{Quarantined, RemovedQuarantined, Stats};

/// How long a file is kept.
pub(crate) const LONGEST: Duration = Duration::from_hours(30 * 24);
/// Together they take at most this part of `max_disk`.
const PART_OF_DISK: u64 = 4;
/// In the name of a file of which nobody knows what waited in it.
pub(crate) const UNCOUNTED: &str = ".damaged-uncounted";

/// Why a file is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Because {
    Age,
    Bound,
    Room,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    /// What waited in it was copied or counted.
    is_counted: bool,
    /// Seconds since 1970; `u64::MAX` if no trusted clock has seen it yet.
    since: u64,
    name: String,
    bytes: u64,
}

/// All of the directory, in the order in which they go.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(Vec<Kept>);

impl Quarantine {
    /// Takes in what is in the directory: files are quarantined, and a person removes them.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub(crate) fn look(&mut self, directory: &dyn Directory, now: &Timestamp) -> io::Result<()> {
        let names = directory.list()?;
        let mut kept = Vec::new();
        for name in names.into_iter().filter(|name| is_quarantined(name)) {
            let Ok(bytes) = directory.allocated(&name) else { continue };
            kept.push(Kept {
                is_counted: !name.contains(UNCOUNTED),
                since: since(directory, &name, now),
                name,
                bytes,
            });
        }
        kept.sort_by(|one, other| {
            let key = |kept: &Kept| (!kept.is_counted, kept.since);
            key(one).cmp(&key(other)).then_with(|| one.name.cmp(&other.name))
        });
        self.0 = kept;
        Ok(())
    }

    /// Whether there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|kept| kept.bytes).sum()
    }

    /// Why the first one must go now; `None` if it may stay.
    pub(crate) fn due(&self, now: &Timestamp, max_disk: u64) -> Option<Because> {
        let first = self.0.first()?;
        let is_old = now.trusted && first.since.saturating_add(LONGEST.as_secs()) < now.wall_ms / 1000;
        let is_over = self.0.len() > 1 && self.bytes() > max_disk / PART_OF_DISK;
        if is_old {
            Some(Because::Age)
        } else if is_over {
            Some(Because::Bound)
        } else {
            None
        }
    }

    /// Lets the first one go; `false` if there is none. A person may just be salvaging it, so it is not cut.
    pub(crate) fn remove_first(&mut self, segments: &Segments, because: Because, stats: &Stats) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let kept = self.0.remove(0);
        let (why, count) = stats.removed_quarantined.of(because);
        match segments.removal.take(&*segments.directory, &kept.name, false) {
            Ok(()) => {
                count.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    file = kept.name,
                    bytes = kept.bytes,
                    why,
                    "a quarantined segment is removed; what waited in it was copied or counted as damaged before"
                );
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(file = kept.name, %error, "a quarantined segment could not be removed"),
        }
        true
    }

    /// What an operator is told.
    pub(crate) fn report(&self) -> Quarantined {
        let known = self.0.iter().map(|kept| kept.since).filter(|since| *since < u64::MAX);
        Quarantined {
            segments: self.0.len() as u64,
            bytes: self.bytes(),
            until: known.min().map(|since| since + LONGEST.as_secs()),
        }
    }
}

impl RemovedQuarantined {
    fn of(&self, because: Because) -> (&'static str, &std::sync::atomic::AtomicU64) {
        match because {
            Because::Age => ("it was kept for 30 days", &self.age),
            Because::Bound => ("all together take more than a quarter of gateway.max_disk", &self.bound),
            Because::Room => ("its room is needed", &self.room),
        }
    }
}

/// Since when a file is quarantined. Only a trusted clock says so, or corrects what cannot be.
fn since(directory: &dyn Directory, name: &str, now: &Timestamp) -> u64 {
    let known = directory.stamped(name).unwrap_or(0);
    let now_seconds = now.wall_ms / 1000;
    let is_sound = known > 0 && (!now.trusted || known <= now_seconds);
    if is_sound {
        return known;
    }
    if !now.trusted {
        return u64::MAX;
    }
    if let Err(error) = directory.stamp(name, now_seconds) {
        tracing::debug!(name, %error, "the time of a quarantined segment could not be set");
    }
    now_seconds
}
