//! The ledger of contract C9 and the log at a glance.

use std::sync::atomic::Ordering;

use crate::catalog::catalogue::Catalogue;
use crate::encoding::block::Block;
use crate::encoding::change::Count;
use crate::error::ReadError;
use crate::progress::stream::StreamTracker;
use crate::progress::tracker::Tracker;
use crate::read::stretch;
use crate::record::{Partition, StreamId};
use crate::shared::Shared;
use crate::stats::{Status, StreamStatus};
use crate::sync::lock;

/// The ledger of contract C9, recounted by reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Records ever accepted into user streams.
    pub accepted: u64,
    /// Dead letters put back.
    pub requeued: u64,
    /// Acked by the cloud.
    pub delivered: u64,
    /// Waiting, counted by reading.
    pub waiting: u64,
    /// Too old.
    pub expired: u64,
    /// Dropped by `drop_oldest`.
    pub evicted: u64,
    /// Moved to the dead letters.
    pub dead_lettered: u64,
    /// Unreadable.
    pub damaged: u64,
}

impl Audit {
    /// Whether accepted + requeued = delivered + waiting + expired + evicted + dead-lettered + damaged.
    #[must_use]
    pub const fn balances(&self) -> bool {
        self.accepted + self.requeued == self.delivered + self.waiting + self.expired + self.evicted + self.dead_lettered + self.damaged
    }

    /// What came and has not ended.
    const fn left_over(&self) -> u64 {
        let ended = self.delivered + self.expired + self.evicted + self.dead_lettered + self.damaged;
        (self.accepted + self.requeued).saturating_sub(ended)
    }

    fn add(&mut self, count: Count, by: u64) {
        let field = match count {
            Count::Accepted => &mut self.accepted,
            Count::Requeued => &mut self.requeued,
            Count::Delivered => &mut self.delivered,
            Count::Expired => &mut self.expired,
            Count::Evicted => &mut self.evicted,
            Count::Dead => &mut self.dead_lettered,
            Count::Damaged => &mut self.damaged,
        };
        *field += by;
    }
}

/// One device's line in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerLine {
    /// The device's identity; `other` for all without a line of their own.
    pub identity: String,
    /// Its counters; `waiting` is what they leave over.
    pub counts: Audit,
}

/// A stream's progress at one moment.
struct Moment {
    id: u8,
    end: u64,
    tracker: StreamTracker,
}

/// How often an audit begins again because the log moved under it.
const ATTEMPTS: usize = 8;

/// Recounts by reading.
pub(crate) fn audit(shared: &Shared) -> Result<Audit, ReadError> {
    for _ in 0..ATTEMPTS {
        let (mut audit, moments) = moments(shared);
        for moment in &moments {
            audit.waiting += count_waiting(shared, moment)?;
        }
        let moved = |moment: &Moment| {
            let floor = lock(&shared.tracker).streams.get(&moment.id).map_or(0, |stream| stream.floor);
            floor != moment.tracker.floor
        };
        // Segments vanish only when nothing waits in them, so a moving log is harmless, except for evictions.
        if audit.balances() {
            return Ok(audit);
        }
        if !moments.iter().any(moved) {
            tracing::error!(?audit, "the ledger does not balance; the segments are counted again");
            doubt_all(shared);
            return Ok(audit);
        }
    }
    let (mut audit, moments) = moments(shared);
    for moment in &moments {
        audit.waiting += count_waiting(shared, moment)?;
    }
    Ok(audit)
}

/// Has every segment counted again, by the writer, because the ledger does not balance.
fn doubt_all(shared: &Shared) {
    let parts: Vec<(u64, u8)> = {
        let state = lock(&shared.catalogue);
        let parts = state
            .segments
            .iter()
            .flat_map(|segment| segment.parts.iter().map(|part| (segment.number, part.stream)));
        parts.collect()
    };
    parts.into_iter().for_each(|(segment, stream)| shared.mark_unsure(segment, stream));
}

/// The ledger, with what is settled in memory, and where each stream stands at that moment.
fn moments(shared: &Shared) -> (Audit, Vec<Moment>) {
    let tracker = lock(&shared.tracker);
    let state = lock(&shared.catalogue);
    let audit = counted(&tracker, &state);
    let mut moments = Vec::new();
    for (id, tracked) in tracker.streams.iter().filter(|(_, tracked)| !tracked.internal) {
        let end = state.stream(*id).map_or(0, |stream| stream.next);
        moments.push(Moment {
            id: *id,
            end,
            tracker: tracked.copy(),
        });
    }
    (audit, moments)
}

/// The ledger with what is settled in memory, without what waits.
fn counted(tracker: &Tracker, catalogue: &Catalogue) -> Audit {
    let mut audit = totals(catalogue);
    for pending in [Some(&tracker.pending), tracker.inflight.as_ref()].into_iter().flatten() {
        for (_, count, by) in pending.ledger.iter() {
            audit.add(count, by);
        }
    }
    for tracked in tracker.streams.values().filter(|tracked| !tracked.internal) {
        let settled = tracked.outstanding.values().filter_map(|entry| entry.settled.as_ref());
        settled.for_each(|outcome| audit.add(outcome.count(), 1));
    }
    audit
}

/// The ledger as a whole with what is settled in memory; what waits is what the rest leaves over. Summed up line by line it would be too
/// much after damage, because nobody knows whose records are damaged: they are counted on the line `other`.
pub(crate) fn at_this_moment(shared: &Shared) -> Audit {
    let tracker = lock(&shared.tracker);
    let mut audit = counted(&tracker, &lock(&shared.catalogue));
    audit.waiting = audit.left_over();
    audit
}

fn count_waiting(shared: &Shared, moment: &Moment) -> Result<u64, ReadError> {
    let tracker = &moment.tracker;
    let active = tracker.suspensions.iter().filter(|suspension| suspension.until == u64::MAX);
    let oldest_suspended = active.map(crate::progress::stream::SuspendedPair::next).min().unwrap_or(u64::MAX);
    let oldest = (0..Partition::COUNT).map(|p| tracker.delivered_up_to(p)).min().unwrap_or(0);
    let mut position = oldest.min(oldest_suspended).max(tracker.floor);
    let mut waiting = 0;
    while let Some(next) = stretch::next(shared, moment.id, position, moment.end, 1 << 20)? {
        let end = next.place.end.min(moment.end);
        for block in &next.blocks {
            let waiting_in = block.entries_within(next.from..end).filter(|nth| waits(tracker, block, *nth));
            waiting += waiting_in.count() as u64;
        }
        position = next.until;
    }
    Ok(waiting)
}

fn waits(tracker: &StreamTracker, block: &Block, nth: usize) -> bool {
    let offset = block.offset(nth);
    if offset < tracker.floor {
        return false;
    }
    if let Some(entry) = tracker.outstanding.get(&offset) {
        return entry.settled.is_none();
    }
    tracker.waits_unseen(block, nth)
}

/// The ledger as of the last commit; nothing is counted by reading.
pub(crate) fn totals(state: &Catalogue) -> Audit {
    let mut audit = Audit::default();
    for count in Count::ALL {
        audit.add(count, state.total(count));
    }
    audit
}

/// The ledger's lines as of the last commit.
pub(crate) fn lines(state: &Catalogue) -> Vec<LedgerLine> {
    let lines = state.slots.iter().enumerate().map(|(number, slot)| {
        let mut counts = Audit::default();
        for count in Count::ALL {
            counts.add(count, slot.counts[count as usize]);
        }
        counts.waiting = counts.left_over();
        let identity = if number == 0 { "other".to_owned() } else { slot.identity.clone() };
        LedgerLine { identity, counts }
    });
    lines.collect()
}

/// The log at a glance.
pub(crate) fn status(shared: &Shared) -> Status {
    let now = shared.clock.now();
    let (unavailable, disk_full) = {
        let intake = lock(&shared.intake);
        (intake.unavailable.clone(), intake.disk_full)
    };
    let oldest = lock(&shared.oldest);
    let line = |id: StreamId, options: &crate::options::StreamOptions| StreamStatus {
        id,
        name: options.name.clone(),
        waiting: shared.gauges.records(id.0),
        waiting_bytes: shared.gauges.bytes(id.0),
        max_bytes: options.max_bytes,
        oldest: oldest.get(&id.0).and_then(|(_, received)| received.age(&now)),
    };
    let streams = shared.streams.iter().map(|(id, options)| line(*id, options)).collect();
    drop(oldest);
    Status {
        streams,
        disk_bytes: shared.disk_bytes.load(Ordering::Relaxed),
        free_bytes: shared.free_bytes.load(Ordering::Relaxed),
        quarantined: *lock(&shared.quarantined),
        unavailable: unavailable.or_else(|| disk_full.then(|| shared.why_full())),
        last_trusted: lock(&shared.catalogue).trusted,
    }
}
