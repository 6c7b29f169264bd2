//! Eviction: which waiting records go at a bound, and how they go. It changes what is known of records; the next commit writes it.

use crate::options::WhenFull;
use crate::read::stretch;
use crate::record::StreamId;
use crate::shared::{DEAD_BYTES, Shared};
use crate::sync::lock;

/// What must be evicted for one segment to become free: streams, and up to which offset.
pub(crate) type Victims = Vec<(u8, u64)>;

/// Evicts from every stream that is over its own bound and may lose its oldest.
pub(crate) fn evict_over_bounds(shared: &Shared) {
    let mut has_evicted = false;
    for (id, options) in &shared.streams {
        while options.when_full == WhenFull::DropOldest && shared.gauges.bytes(id.0) > options.max_bytes {
            if evict_oldest_block(shared, id.0, u64::MAX).is_none() {
                break;
            }
            has_evicted = true;
        }
    }
    // The gauge of an internal stream follows the commit.
    let mut over = shared.gauges.bytes(StreamId::DEAD.0).saturating_sub(DEAD_BYTES);
    while over > 0 {
        let Some(bytes) = evict_oldest_block(shared, StreamId::DEAD.0, u64::MAX) else {
            break;
        };
        over = over.saturating_sub(bytes);
        has_evicted = true;
    }
    if has_evicted {
        shared.mark_dirty();
    }
}

/// Evicts all that waits in some streams up to an offset each.
pub(crate) fn evict(shared: &Shared, victims: &Victims) {
    for (stream, end) in victims {
        while evict_oldest_block(shared, *stream, *end).is_some() {}
    }
}

/// Evicts what waits in the oldest block of a stream that begins before `before`, and gives its bytes; `None` if there is no
/// such block.
fn evict_oldest_block(shared: &Shared, stream: u8, before: u64) -> Option<u64> {
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
    Some(bytes)
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
