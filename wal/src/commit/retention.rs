//! What ends a segment's life while the log runs. There is one way: nothing waits in it any more.
//!
//! 1. Records are settled ([`crate::progress::tracker`]), evicted at a bound ([`crate::commit::eviction`]), copied to the active segment
//!    ([`crate::commit::compaction`]) or counted as damaged.
//! 2. After each commit the segments are noted in which nothing waits now.
//! 3. The next commit drops them from the catalogue.
//! 4. After that commit the file goes: it is kept as the spare segment or unlinked. One that is damaged was quarantined before that.

use std::io;
use std::sync::atomic::Ordering;

use crate::commit::bounds::Space;
use crate::commit::compaction::{Compaction, Ended};
use crate::shared::Shared;
use crate::sync::lock;

/// Notes the segments in which nothing waits, so that the next commit drops them; whether there are new ones.
pub(crate) fn note_empty(shared: &Shared, compaction: &Compaction, active: u64) -> bool {
    let mut tracker = lock(&shared.tracker);
    let catalogue = lock(&shared.catalogue);
    let repairs = lock(&shared.repairs);
    let mut has_more = false;
    for segment in &catalogue.segments {
        let is_kept = compaction.has(segment.number) || repairs.damaged.contains_key(&segment.number);
        let is_empty = segment.number != active && segment.waiting() == 0 && !is_kept;
        if is_empty && !tracker.pending.drop_segments.contains(&segment.number) {
            tracker.pending.drop_segments.push(segment.number);
            has_more = true;
        }
    }
    has_more
}

/// Lets the files of segments go that a commit has dropped from the catalogue.
pub(crate) fn remove(shared: &Shared, space: &mut Space, compaction: &mut Compaction, dropped: &[u64]) {
    for segment in dropped {
        // A disk that failed to write to a segment does so again: its bad place must not be given to another file.
        if compaction.forget(*segment) {
            tracing::warn!(segment, "a segment to which a write failed is quarantined: it has a bad place");
            quarantine(shared, space, *segment);
            continue;
        }
        space.forget(*segment);
        match shared.segments.retire(*segment) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(segment, %error, "a segment that is no longer needed could not be removed"),
        }
    }
}

/// Ends the repair of a segment of which all that waits is copied or charged; it is quarantined if anything in it may be of use to a
/// person.
pub(crate) fn end_compaction(shared: &Shared, space: &mut Space, ended: &Ended) {
    let (segment, lost) = (ended.segment, ended.lost);
    if ended.is_damaged && lock(&shared.catalogue).segment(segment).is_some() {
        tracing::error!(
            segment,
            lost,
            "a damaged segment is quarantined for salvage; waiting records that were found in it were copied to the active segment, the others are counted as damaged"
        );
        quarantine(shared, space, segment);
    }
    lock(&shared.repairs).damaged.remove(&segment);
}

fn quarantine(shared: &Shared, space: &mut Space, segment: u64) {
    match shared.segments.quarantine(segment) {
        Ok(()) => {
            space.quarantined(shared, segment);
            shared.stats.quarantined.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(segment, %error, "the damaged segment could not be quarantined"),
    }
}
