//! Eviction: which waiting records go at a bound, and how they go. It changes what is known of records; the next commit writes it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::options::WhenFull;
use crate::read::stretch;
use crate::record::StreamId;
use crate::shared::{DEAD_BYTES, Shared};
use crate::sync::lock;

/// What must be evicted for one segment to become free: streams, and up to which offset.
pub(crate) type Victims = Vec<(u8, u64)>;

/// How long it is until the next line of a bound that stays reached.
const APART: Duration = Duration::from_secs(60);

/// Where records are evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    /// `max_bytes` of a stream.
    MaxBytes(u8),
    MaxDisk,
    KeepFree,
}

/// What was evicted at a bound.
#[derive(Debug, Default)]
struct Tally {
    /// Not told yet.
    records: u64,
    bytes: u64,
    /// Why there was no room, when the last of them went; empty for a stream's own bound.
    why: String,
    told: Option<Timestamp>,
}

/// What was evicted: counted by bound and told, in one line when it begins and one a minute while it lasts.
#[derive(Debug, Default)]
pub(crate) struct Evictions(BTreeMap<Bound, Tally>);

impl Evictions {
    fn note(&mut self, shared: &Shared, bound: Bound, records: u64, bytes: u64) {
        if records == 0 {
            return;
        }
        let at = &shared.stats.evicted_at;
        let count = match bound {
            Bound::MaxBytes(_) => &at.max_bytes,
            Bound::MaxDisk => &at.max_disk,
            Bound::KeepFree => &at.keep_free,
        };
        count.fetch_add(records, Ordering::Relaxed);
        let tally = self.0.entry(bound).or_default();
        tally.records += records;
        tally.bytes += bytes;
        if !matches!(bound, Bound::MaxBytes(_)) {
            tally.why = shared.why_full();
        }
    }

    /// Tells what is to be told now.
    pub(crate) fn tell_due(&mut self, shared: &Shared) {
        self.tell(shared, APART);
    }

    /// Tells all that was not told.
    pub(crate) fn tell_all(&mut self, shared: &Shared) {
        self.tell(shared, Duration::ZERO);
    }

    fn tell(&mut self, shared: &Shared, apart: Duration) {
        for (bound, tally) in self.0.iter_mut().filter(|(_, tally)| tally.records > 0) {
            let now = shared.clock.now();
            if tally.told.is_some_and(|told| told.age(&now).is_some_and(|age| age < apart)) {
                continue;
            }
            let (records, bytes) = (std::mem::take(&mut tally.records), std::mem::take(&mut tally.bytes));
            let why = match bound {
                Bound::MaxBytes(stream) => {
                    let name = shared.policy(*stream).map_or("", |options| &options.name);
                    format!("stream `{name}` is at its max_bytes: raise it, or let the cloud take some")
                }
                Bound::MaxDisk | Bound::KeepFree => std::mem::take(&mut tally.why),
            };
            tally.told = Some(now);
            tracing::warn!(
                records,
                bytes,
                "acked records were dropped, the oldest first, by `when_full: drop_oldest`: {why}"
            );
        }
    }
}

/// Evicts from every stream that is over its own bound and may lose its oldest.
pub(crate) fn evict_over_bounds(shared: &Shared, evictions: &mut Evictions) {
    let mut has_evicted = false;
    for (id, options) in &shared.streams {
        while options.when_full == WhenFull::DropOldest && shared.gauges.bytes(id.0) > options.max_bytes {
            let Some((records, bytes)) = evict_oldest_block(shared, id.0, u64::MAX) else {
                break;
            };
            evictions.note(shared, Bound::MaxBytes(id.0), records, bytes);
            has_evicted = true;
        }
    }
    // The gauge of an internal stream follows the commit.
    let mut over = shared.gauges.bytes(StreamId::DEAD.0).saturating_sub(DEAD_BYTES);
    while over > 0 {
        let Some((_, bytes)) = evict_oldest_block(shared, StreamId::DEAD.0, u64::MAX) else {
            break;
        };
        over = over.saturating_sub(bytes);
        has_evicted = true;
    }
    if has_evicted {
        shared.mark_dirty();
    }
}

/// Evicts all that waits in some streams up to an offset each, because the disk has no room.
pub(crate) fn evict(shared: &Shared, victims: &Victims, evictions: &mut Evictions) {
    let bound = if shared.is_short_of_space() {
        Bound::KeepFree
    } else {
        Bound::MaxDisk
    };
    for (stream, end) in victims {
        while let Some((records, bytes)) = evict_oldest_block(shared, *stream, *end) {
            // A dead letter was counted as one.
            if *stream != StreamId::DEAD.0 {
                evictions.note(shared, bound, records, bytes);
            }
        }
    }
}

/// Evicts what waits in the oldest block of a stream that begins before `before`, and gives its records and bytes; `None` if there is
/// no such block.
fn evict_oldest_block(shared: &Shared, stream: u8, before: u64) -> Option<(u64, u64)> {
    let floor = lock(&shared.tracker).streams.get(&stream).map_or(0, |stream| stream.floor);
    if floor >= before {
        return None;
    }
    let oldest = stretch::next(shared, stream, floor, before, 1).ok()??;
    let (segment, block) = (oldest.place.segment, oldest.blocks.first()?);
    if block.is_unsure {
        shared.mark_unsure(segment, stream);
    }
    let (records, bytes) = lock(&shared.tracker).evict(stream, segment, block);
    if records > 0 {
        tracing::debug!(stream, records, "evicted the oldest block");
    }
    Some((records, bytes))
}

/// What to evict for the oldest closed segment to become free whose waiting records may all go; `None` if there is no such
/// segment. One that only dead letters keep goes before any that records wait in.
pub(crate) fn victims(shared: &Shared, active: u64) -> Option<Victims> {
    let catalogue = lock(&shared.catalogue);
    let may_drop = |stream: u8| {
        let policy = shared.policy(stream);
        stream == StreamId::DEAD.0 || policy.is_some_and(|options| options.when_full == WhenFull::DropOldest)
    };
    let find = |may_go: &dyn Fn(u8) -> bool| {
        let mut closed = catalogue.segments.iter().filter(|segment| segment.number != active);
        closed.find_map(|segment| {
            let mut waiting = segment.parts.iter().filter(|part| part.waiting > 0);
            waiting
                .clone()
                .all(|part| may_go(part.stream))
                .then(|| waiting.by_ref().map(|part| (part.stream, part.last_end())).collect())
        })
    };
    find(&|stream| stream == StreamId::DEAD.0).or_else(|| find(&may_drop))
}
