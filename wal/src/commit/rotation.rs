//! Rotation: when a new segment begins, with what it begins, and how long to wait for one after a failure.

use std::time::{Duration, Instant};

use crate::commit::bounds::Space;
use crate::encoding::change::Change;
use crate::shared::Shared;
use crate::sync::lock;

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// Whether the active segment is to be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    No,
    /// Not yet, but the next one may be made ahead.
    Ahead,
    Now,
}

/// The active segment failed and was left; another is not there yet.
#[derive(Debug)]
struct Broken {
    reason: String,
    retry_at: Instant,
    backoff: Duration,
}

/// Whether there is a segment that takes appends.
#[derive(Debug, Default)]
pub(crate) struct Rotation(Option<Broken>);

impl Rotation {
    /// Whether the active segment is full, or half full. While the next one is being made it may become twice as large.
    pub(crate) fn due(shared: &Shared, space: &Space) -> Due {
        let filled = shared.segments.active_filled();
        // Where making the next one takes long, this one goes on.
        let is_full = filled >= space.segment_bytes && !shared.segments.is_in_making() || filled >= 2 * space.segment_bytes;
        if is_full {
            Due::Now
        } else if filled >= space.segment_bytes / 2 && !shared.segments.is_prepared() {
            Due::Ahead
        } else {
            Due::No
        }
    }

    /// Why nothing can be written now; `None` if it can.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.0.as_ref().map(|broken| broken.reason.as_str())
    }

    /// When a new segment is tried after a failure.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.0.as_ref().map(|broken| broken.retry_at)
    }

    /// The active segment was left after a failure, or a new one could not be begun: each time it takes longer to the next try.
    pub(crate) fn failed(&mut self, reason: String) {
        let backoff = self.0.as_ref().map_or(RETRY_FIRST, |broken| (broken.backoff * 2).min(RETRY_LAST));
        self.0 = Some(Broken {
            reason,
            retry_at: Instant::now() + backoff,
            backoff,
        });
    }

    /// There is a segment again.
    pub(crate) fn works(&mut self) {
        self.0 = None;
    }

    /// Tries again at once.
    #[cfg(test)]
    pub(crate) fn retry_now(&mut self) {
        if let Some(broken) = &mut self.0 {
            broken.retry_at = Instant::now();
        }
    }
}

/// The changes that keep offsets from being used twice which were given to records of a commit that failed.
pub(crate) fn burnt_offsets(shared: &Shared) -> Vec<Change> {
    let streams: Vec<u8> = lock(&shared.catalogue).streams.iter().map(|stream| stream.id).collect();
    let intake = lock(&shared.intake);
    let next = |stream: u8| intake.next[usize::from(stream)];
    streams
        .into_iter()
        .map(|stream| Change::Next {
            stream,
            next: next(stream),
        })
        .collect()
}
