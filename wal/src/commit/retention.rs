//! The bounds: what a stream, the directory and the file system allow, and what goes when one is reached.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;

use crate::commit::writer::Writer;
use crate::intake::batch::OpenBatch;
use crate::options::WhenFull;
use crate::read::stretch;
use crate::record::StreamId;
use crate::shared::{DEAD_BYTES, Shared};
use crate::sync::lock;

/// Space that a commit without records may still use, so that trimming never stops.
const RESERVE: u64 = 1 << 20;
pub(crate) const BALLAST: &str = "ballast";
const BALLAST_MAX: u64 = 16 << 20;
/// A new segment and what it must say of the others.
const BALLAST_MIN: u64 = 4 << 20;
/// How often making room looks again before it gives up.
const ROUNDS: usize = 64;

/// Whether a batch may be written.
pub(crate) enum Room {
    Enough,
    None(String),
}

/// What the directory occupies.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) segment_bytes: u64,
    pub(crate) active: u64,
    closed: HashMap<u64, u64>,
    ballast: u64,
    /// What damaged segments take that are kept for salvage.
    quarantined: u64,
    pub(crate) full: bool,
    /// What was asked for when there was no room.
    wanted: u64,
}

impl Space {
    pub(crate) fn new(max_disk: u64) -> Self {
        Self {
            segment_bytes: (max_disk / 16).clamp(8 << 20, 128 << 20),
            active: 0,
            closed: HashMap::new(),
            ballast: 0,
            quarantined: 0,
            full: false,
            wanted: 0,
        }
    }

    pub(crate) fn closed(&mut self, segment: u64, allocated: u64) {
        self.closed.insert(segment, allocated);
    }

    pub(crate) fn forget(&mut self, segment: u64) {
        self.closed.remove(&segment);
    }

    /// What a closed segment occupies.
    pub(crate) fn allocated(&self, segment: u64) -> u64 {
        self.closed.get(&segment).copied().unwrap_or(0)
    }

    /// A closed segment stays although it leaves the log.
    pub(crate) fn keep_quarantined(&mut self, segment: u64) {
        self.quarantined += self.closed.remove(&segment).unwrap_or(0);
    }

    fn used(&self, shared: &Shared) -> u64 {
        self.closed.values().sum::<u64>() + self.active + shared.segments.ahead_allocated() + self.ballast + self.quarantined
    }

    /// Frees the ballast, to get trimming going on a full disk.
    pub(crate) fn drop_ballast(&mut self, shared: &Shared) {
        if self.ballast > 0 && shared.segments.directory.remove(BALLAST).is_ok() {
            self.ballast = 0;
        }
    }

    /// What records must leave: enough for the commits that trim, and for a ballast that was used to be made again.
    fn reserve(&self, shared: &Shared) -> u64 {
        RESERVE + ballast_bytes(shared).saturating_sub(self.ballast)
    }

    /// Whether a log that was full has room again, for as much as was asked for if that is not too much.
    fn has_room_again(&self, shared: &Shared, headroom: u64) -> bool {
        headroom >= self.wanted.clamp(RESERVE, 8 * RESERVE) + self.reserve(shared)
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
}

fn ballast_bytes(shared: &Shared) -> u64 {
    (shared.options.max_disk / 16).clamp(BALLAST_MIN, BALLAST_MAX)
}

impl Writer {
    /// Makes room for a batch as the streams' policies allow.
    pub(crate) fn make_room(&mut self, batch: &OpenBatch) -> Room {
        self.evict_over_bound();
        if batch.records.is_empty() {
            return Room::Enough;
        }
        // Blocks are cut to their pages, so a quarter more covers them and the state beside them.
        let wanted = batch.data.len() as u64 * 5 / 4;
        for _ in 0..ROUNDS {
            if self.space.headroom(&self.shared) >= wanted + self.space.reserve(&self.shared) {
                self.set_full(false);
                return Room::Enough;
            }
            if !self.free_a_segment() {
                break;
            }
        }
        self.space.wanted = wanted;
        self.set_full(true);
        Room::None("the disk is at its bound; free some space or raise gateway.max_disk".into())
    }

    /// Evicts from every stream that is over its bound and may lose its oldest.
    pub(crate) fn evict_over_bound(&mut self) {
        let shared = self.shared.clone();
        let mut moved = false;
        for (id, options) in &shared.streams {
            while options.when_full == WhenFull::DropOldest && shared.gauges.bytes(id.0) > options.max_bytes {
                if self.evict_oldest_block(id.0, u64::MAX).is_none() {
                    break;
                }
                moved = true;
            }
        }
        // The gauge of an internal stream follows the commit.
        let mut over = shared.gauges.bytes(StreamId::DEAD.0).saturating_sub(DEAD_BYTES);
        while over > 0 {
            let Some(bytes) = self.evict_oldest_block(StreamId::DEAD.0, u64::MAX) else {
                break;
            };
            over = over.saturating_sub(bytes);
            moved = true;
        }
        if moved {
            shared.mark_dirty();
        }
    }

    /// Brings the figures up to date, makes the ballast again, judges the oldest records.
    pub(crate) fn look_around(&mut self) {
        self.shared.segments.keep_lock();
        self.space.active = self.shared.segments.active_allocated();
        let headroom = self.space.headroom(&self.shared);
        if self.space.full && (self.space.has_room_again(&self.shared, headroom) || self.free_a_segment()) {
            let headroom = self.space.headroom(&self.shared);
            self.set_full(!self.space.has_room_again(&self.shared, headroom));
        }
        self.space.make_ballast(&self.shared);
        self.shared.note_oldest();
    }

    fn set_full(&mut self, full: bool) {
        if self.space.full != full {
            self.space.full = full;
            lock(&self.shared.intake).disk_full = full;
            if full {
                tracing::error!(
                    used = self.space.used(&self.shared),
                    max_disk = self.shared.options.max_disk,
                    "the disk is at its bound: records are refused; free some space or raise gateway.max_disk"
                );
            } else {
                tracing::info!("the disk is below its bound again");
            }
        }
    }

    /// Evicts what waits in the oldest block of a stream that begins before `before`, and gives its bytes; `None` if there
    /// is no such block.
    fn evict_oldest_block(&mut self, stream: u8, before: u64) -> Option<u64> {
        let shared = self.shared.clone();
        let floor = lock(&shared.tracker).streams.get(&stream).map_or(0, |stream| stream.floor);
        if floor >= before {
            return None;
        }
        let oldest = stretch::next(&shared, stream, floor, before, 1).ok()??;
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

    /// Frees the oldest segment whose waiting records may all be dropped; false = there is none.
    fn free_a_segment(&mut self) -> bool {
        if self.shared.segments.drop_spare() {
            return true;
        }
        let used = self.space.used(&self.shared);
        if self.commit_progress().is_err() || self.commit_progress().is_err() {
            return false;
        }
        if self.is_below(used) || self.compact_for_room() && self.is_below(used) {
            return true;
        }
        let Some(victims) = self.victims() else { return false };
        for (stream, end) in victims {
            while self.evict_oldest_block(stream, end).is_some() {}
        }
        // The first commit settles, the second drops the segment from the catalogue.
        if self.commit_progress().is_err() || self.commit_progress().is_err() {
            return false;
        }
        self.is_below(used)
    }

    /// Whether a segment became free; its blocks are not kept when there is no room.
    fn is_below(&self, used: u64) -> bool {
        self.shared.segments.drop_spare();
        self.space.used(&self.shared) < used
    }

    /// The streams to evict from, and up to where, so that a segment becomes free.
    fn victims(&mut self) -> Option<Vec<(u8, u64)>> {
        let found = self.oldest_droppable();
        if found.is_some() {
            return found;
        }
        // Nothing but the active segment can go: leave it first, if it is worth anything.
        if self.space.active < self.space.segment_bytes / 4 || self.rotate().is_err() {
            return None;
        }
        self.oldest_droppable()
    }

    fn oldest_droppable(&self) -> Option<Vec<(u8, u64)>> {
        let state = lock(&self.shared.catalogue);
        let droppable = |stream: u8| {
            stream == StreamId::DEAD.0
                || self
                    .shared
                    .policy(stream)
                    .is_some_and(|options| options.when_full == WhenFull::DropOldest)
        };
        let find = |may_go: &dyn Fn(u8) -> bool| {
            state
                .segments
                .iter()
                .filter(|segment| segment.number != self.number)
                .find_map(|segment| {
                    let mut waiting = segment.parts.iter().filter(|part| part.waiting > 0);
                    waiting
                        .clone()
                        .all(|part| may_go(part.stream))
                        .then(|| waiting.by_ref().map(|part| (part.stream, part.last_end())).collect())
                })
        };
        // A segment that only dead letters keep goes before any that records wait in.
        find(&|stream| stream == StreamId::DEAD.0).or_else(|| find(&droppable))
    }

    /// What lies in the directory when the log is opened.
    pub(crate) fn measure(space: &mut Space, shared: &Shared) -> io::Result<()> {
        let segments: Vec<u64> = lock(&shared.catalogue).segments.iter().map(|segment| segment.number).collect();
        let active = shared.segments.active_number();
        for segment in segments.into_iter().filter(|segment| Some(*segment) != active) {
            if let Ok(allocated) = shared.segments.directory.allocated(&crate::segment::segments::name(segment)) {
                space.closed(segment, allocated);
            }
        }
        for name in shared.segments.directory.list()? {
            if name == BALLAST {
                space.ballast = shared.segments.directory.allocated(&name)?;
            } else if crate::segment::segments::is_quarantined(&name) {
                space.quarantined += shared.segments.directory.allocated(&name).unwrap_or(0);
            }
        }
        space.active = shared.segments.active_allocated();
        Ok(())
    }
}

impl Shared {
    /// Notes when the oldest waiting record of each stream came, for the status.
    fn note_oldest(&self) {
        for (id, _) in &self.streams {
            let found = if self.gauges.records(id.0) == 0 {
                None
            } else {
                self.oldest_waiting(id.0)
            };
            let mut oldest = lock(&self.oldest);
            match found {
                Some(found) => oldest.insert(id.0, found),
                None => oldest.remove(&id.0),
            };
        }
    }

    fn oldest_waiting(&self, stream: u8) -> Option<(u64, crate::clock::Timestamp)> {
        let position = {
            let tracker = lock(&self.tracker);
            let tracked = tracker.streams.get(&stream)?;
            let first = tracked
                .outstanding
                .iter()
                .filter(|(_, entry)| entry.settled.is_none())
                .min_by_key(|(offset, _)| **offset);
            if let Some((offset, received)) = first.and_then(|(offset, entry)| Some((*offset, entry.received?))) {
                return Some((offset, received));
            }
            tracked.read_to.iter().copied().min()?
        };
        if let Some(known) = lock(&self.oldest).get(&stream).filter(|known| known.0 >= position) {
            return Some(*known);
        }
        let next = stretch::next(self, stream, position, u64::MAX, 1).ok()??;
        let block = next.blocks.first()?;
        block.entries_within(next.from..u64::MAX).find_map(|nth| {
            let view = block.record(nth)?;
            Some((view.offset, view.received))
        })
    }
}
