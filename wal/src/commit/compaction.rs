//! Compaction: live records of an old segment are copied to the active one, so that the old one may go.
//!
//! A segment is compacted when
//!
//! 1. it is damaged: what redb no longer gives is looked for in its bytes ([`crate::segment::remains`]),
//! 2. a write to it failed, in this process or before it: nothing about it is believed any more than must be,
//! 3. space is short and at least half of it is settled,
//! 4. less than a quarter of it waits and nothing of that was settled for a while: it will not go by itself soon,
//! 5. it is small, and there are many: each kill leaves a segment, however little is in it.
//!
//! It happens in parts of about a mebibyte, each in one commit with the change of the catalogue, from the front of each of
//! the segment's ranges on: a crash in between leaves a shorter segment and goes on. Records keep offset, id and times. Readers go
//! by offsets over the catalogue, so neither their order nor the ledger changes. What is found nowhere is charged as damaged.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::catalog::catalogue::SegmentEntry;
use crate::catalog::range_set::RangeSet;
use crate::commit::bounds::Space;
use crate::commit::recount::ranges_of;
use crate::encoding::block::{self, Block, NewBlock};
use crate::encoding::change::{Change, Range};
use crate::encoding::entry::Entry;
use crate::progress::stream::StreamTracker;
use crate::progress::tracker::{Moving, Tracker};
use crate::segment::blocks::Blocks;
use crate::segment::database::SegmentError;
use crate::segment::remains::Remains;
use crate::shared::Shared;
use crate::sync::lock;

/// How much is read and written at a time.
const PART: usize = 1 << 20;
/// How many looks, a second apart, a segment must have stood still to be compacted although there is room.
const STILL: u32 = 30;
/// Bytes that the segments around a compacted one may take besides what is copied.
const OVERHEAD: u64 = 2 << 20;
/// The same, where little is copied.
const SMALL_OVERHEAD: u64 = 64 << 10;
/// What the compaction of a small segment must give back besides twice what waits in it.
const SMALL_GAIN: u64 = 16 << 10;
/// How many segments there may be besides those that a full directory has, before small ones are merged.
const SPARE_SEGMENTS: u64 = 16;

/// Why a segment is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// It cannot be read as it should.
    Damaged,
    /// A write or sync of it failed.
    Distrusted,
    /// To make room.
    Room,
    /// Little of it is left.
    Sparse,
    /// It is small, and there are many segments.
    Small,
}

/// What is being compacted, and what will be. It decides and reads; the writer commits.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    /// Segments that failed a write or sync.
    distrusted: BTreeSet<u64>,
    now: Option<Job>,
    /// What waited in a segment at the last look, and for how many looks.
    still: HashMap<u64, (u64, u32)>,
}

/// A segment on its way out. It does not go by itself, because it may have to be quarantined.
#[derive(Debug)]
struct Job {
    segment: u64,
    why: Why,
    /// What was found in its bytes, once redb no longer gave it.
    remains: Option<Remains>,
    is_damaged: bool,
    /// Nothing was left to copy, and what still waits is charged as damaged.
    is_charged: bool,
    /// Records of user streams that were found nowhere.
    lost: u64,
}

impl Job {
    const fn new(segment: u64, why: Why) -> Self {
        Self {
            segment,
            why,
            remains: None,
            is_damaged: matches!(why, Why::Damaged),
            is_charged: false,
            lost: 0,
        }
    }
}

/// What is to be done next of a compaction, in at most one commit.
#[derive(Debug)]
pub(crate) enum Move {
    /// Nothing goes on.
    Nothing,
    /// Commit this part in the active segment.
    Copy(Part),
    /// Commit what is charged.
    Charge,
    /// Nothing waits in the segment any more: end its repair, and commit that it is empty.
    End(Ended),
}

/// A part of a segment on its way: everything of a stream's range that ends at `range.end`.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) segment: u64,
    pub(crate) stream: u8,
    pub(crate) range: Range,
    pub(crate) blocks: Vec<Block>,
}

/// A segment of which everything that waits was copied or charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) segment: u64,
    /// Records of user streams that were found nowhere.
    pub(crate) lost: u64,
    /// Something in it may be of use to a person.
    pub(crate) is_damaged: bool,
}

/// What a look for work found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    Done,
    /// The active segment is damaged: it must be left before it can be compacted.
    LeaveActive,
}

impl Compaction {
    /// A write to the segment failed.
    pub(crate) fn distrust(&mut self, segment: u64) {
        self.distrusted.insert(segment);
    }

    /// The segment left the catalogue; whether a write to it had failed.
    pub(crate) fn forget(&mut self, segment: u64) -> bool {
        self.still.remove(&segment);
        self.distrusted.remove(&segment)
    }

    /// Whether a step is due.
    pub(crate) fn is_under_way(&self) -> bool {
        self.now.is_some()
    }

    /// Whether what goes on gives room back.
    pub(crate) fn is_making_room(&self) -> bool {
        self.now.as_ref().is_some_and(|job| matches!(job.why, Why::Room | Why::Small))
    }

    /// Whether this segment is being compacted.
    pub(crate) fn has(&self, segment: u64) -> bool {
        self.now.as_ref().is_some_and(|job| job.segment == segment)
    }

    /// Decides, once a second, what to compact.
    pub(crate) fn look(&mut self, shared: &Shared, space: &Space, active: u64) -> Look {
        if self.now.is_some() {
            return Look::Done;
        }
        let damaged = lock(&shared.repairs).damaged.first_key_value().map(|(segment, _)| *segment);
        if damaged == Some(active) {
            return Look::LeaveActive;
        }
        let has_room = |segment: &u64| has_room_for(shared, space, live(shared, *segment));
        let distrusted = |this: &Self| this.distrusted.iter().find(|segment| waits_in(shared, **segment)).copied();
        self.now = if let Some(segment) = damaged {
            Some(Job::new(segment, Why::Damaged))
        } else if let Some(segment) = distrusted(self) {
            Some(segment).filter(has_room).map(|segment| Job::new(segment, Why::Distrusted))
        } else if let Some(segment) = self.stands_still(shared, space, active) {
            Some(segment).filter(has_room).map(|segment| Job::new(segment, Why::Sparse))
        } else {
            small_one_of_many(shared, space, active)
                .filter(has_room)
                .map(|segment| Job::new(segment, Why::Small))
        };
        Look::Done
    }

    /// Goes on with the next small segment at once while there are many.
    pub(crate) fn merge_on(&mut self, shared: &Shared, space: &Space, active: u64) {
        if self.now.is_none() && lock(&shared.repairs).damaged.is_empty() {
            let small = small_one_of_many(shared, space, active);
            let small = small.filter(|segment| has_room_for(shared, space, live(shared, *segment)));
            self.now = small.map(|segment| Job::new(segment, Why::Small));
        }
    }

    /// The oldest closed segment of which less than a quarter waits and has waited for a while.
    fn stands_still(&mut self, shared: &Shared, space: &Space, active: u64) -> Option<u64> {
        let catalogue = lock(&shared.catalogue);
        let mut found = None;
        for segment in catalogue.segments.iter().filter(|segment| segment.number != active) {
            let waiting = segment.waiting();
            let seen = self.still.entry(segment.number).or_insert((waiting, 0));
            *seen = if seen.0 == waiting { (waiting, seen.1 + 1) } else { (waiting, 0) };
            let is_sparse = segment.live() * 4 < space.allocated(segment.number);
            if waiting > 0 && seen.1 >= STILL && is_sparse {
                found = found.or(Some(segment.number));
            }
        }
        found
    }

    /// Begins with the segment of which the least waits, if that makes room and there is room for it; whether it did.
    pub(crate) fn begin_for_room(&mut self, shared: &Shared, space: &Space, active: u64) -> bool {
        if self.now.is_some() {
            return false;
        }
        let sparsest = {
            let catalogue = lock(&shared.catalogue);
            let closed = catalogue.segments.iter().filter(|segment| segment.number != active);
            closed
                .map(|segment| (segment.live(), space.allocated(segment.number), segment.number))
                .filter(|(live, allocated, _)| *live * 2 + OVERHEAD.min(*live + SMALL_GAIN) < *allocated)
                .min_by_key(|(live, ..)| *live)
        };
        let Some((live, _, segment)) = sparsest.filter(|(live, ..)| has_room_for(shared, space, *live)) else {
            return false;
        };
        tracing::debug!(segment, live, "compacting a segment to make room");
        self.now = Some(Job::new(segment, Why::Room));
        true
    }

    /// What is next of the compaction that goes on: reads a part, or charges what is found nowhere.
    pub(crate) fn next(&mut self, shared: &Shared) -> Move {
        let Some(job) = &mut self.now else { return Move::Nothing };
        if let Some((stream, range)) = next_range(shared, job.segment) {
            job.is_charged = false;
            return match job.read(shared, stream, range) {
                Ok(part) => {
                    job.is_damaged |= part.blocks.iter().any(|block| block.is_unsure);
                    Move::Copy(part)
                }
                Err(error) => {
                    tracing::warn!(segment = job.segment, %error, "a segment cannot be compacted now; it is tried again");
                    self.abandon(shared);
                    Move::Nothing
                }
            };
        }
        if !job.is_charged && waits_in(shared, job.segment) {
            job.lost += lose_rest(shared, job.segment);
            job.is_charged = true;
            return Move::Charge;
        }
        let ended = Ended {
            segment: job.segment,
            lost: job.lost,
            is_damaged: job.is_damaged || job.lost > 0,
        };
        self.abandon(shared);
        Move::End(ended)
    }

    /// Lets go of what goes on, as after a failed commit: it is found again if there is still something to do.
    pub(crate) fn abandon(&mut self, shared: &Shared) {
        if self.now.take().is_some() {
            shared.mark_dirty();
        }
    }
}

impl Job {
    fn read(&mut self, shared: &Shared, stream: u8, range: Range) -> Result<Part, SegmentError> {
        let segment = self.segment;
        if self.why == Why::Damaged && self.remains.is_none() {
            self.look_for_remains(shared)?;
        }
        let mut blocks = None;
        if self.remains.is_none() {
            match shared.segments.blocks(segment, stream, range.first, range.end, PART) {
                Ok(read) => blocks = Some(read),
                Err(error) if error.is_lasting() => {
                    tracing::error!(segment, %error, "a segment cannot be read; its records are searched for in its bytes");
                    self.look_for_remains(shared)?;
                }
                Err(error) => return Err(error),
            }
        }
        let remains = self.remains.as_ref();
        let blocks = blocks.or_else(|| remains.map(|remains| remains.blocks(stream, range.first..range.end, PART)));
        let Some(Blocks { list, until }) = blocks else {
            return Err(SegmentError::Damaged("nothing of it can be read".into()));
        };
        Ok(Part {
            segment,
            stream,
            // What the last block leaves over is for the next part.
            range: Range { end: until, ..range },
            blocks: list,
        })
    }

    fn look_for_remains(&mut self, shared: &Shared) -> Result<(), SegmentError> {
        let ranges = ranges_of(shared, self.segment);
        self.remains = Some(Remains::look_for(&shared.segments, self.segment, &ranges).map_err(SegmentError::Io)?);
        self.is_damaged = true;
        Ok(())
    }
}

impl Part {
    /// Picks what waits out of the part, appends it to `blocks`, and gives the change that says so.
    pub(crate) fn select(&self, tracker: &Tracker, to: u64, blocks: &mut Vec<NewBlock<'_>>) -> (Change, Moving) {
        let mut picked = Picked {
            stream: self.stream,
            blocks,
            loose: Vec::new(),
            offsets: RangeSet::default(),
            records: 0,
            bytes: 0,
        };
        if let Some(tracked) = tracker.streams.get(&self.stream) {
            for block in &self.blocks {
                picked.take(block, self.range, tracked);
            }
        }
        picked.flush();
        let change = Change::Compacted {
            stream: self.stream,
            from: self.segment,
            to,
            range: self.range,
            records: picked.records,
            bytes: picked.bytes,
        };
        let moving = Moving {
            stream: self.stream,
            from: self.segment,
            to,
            offsets: picked.offsets,
        };
        (change, moving)
    }
}

/// Records on their way into blocks.
struct Picked<'a, 'b> {
    stream: u8,
    blocks: &'a mut Vec<NewBlock<'b>>,
    /// Records of blocks of which only some wait.
    loose: Vec<(u64, Entry, &'a [u8])>,
    offsets: RangeSet,
    records: u64,
    bytes: u64,
}

impl<'a> Picked<'a, '_> {
    fn take(&mut self, block: &'a Block, range: Range, tracked: &StreamTracker) {
        let waits = |nth: &usize| (range.first..range.end).contains(&block.offset(*nth)) && tracked.is_counted(block, *nth);
        let waiting: Vec<usize> = (0..block.entries.len()).filter(waits).collect();
        let is_unchanged = waiting.len() == block.entries.len() && block.is_whole();
        if is_unchanged {
            self.flush();
            self.blocks.push(NewBlock::Made {
                key: (self.stream, block.first),
                bytes: block.bytes.clone(),
            });
        }
        for nth in waiting {
            let (offset, entry) = (block.offset(nth), block.entries[nth]);
            match block.stored(nth) {
                _ if is_unchanged => {}
                Some(bytes) => self.loose.push((offset, entry, bytes)),
                // What a cut block no longer has is charged at the end, with all else that is not found.
                None => continue,
            }
            self.offsets.insert(offset, offset + 1);
            self.records += 1;
            self.bytes += entry.cost();
        }
    }

    /// Puts the loose records into blocks that fill their pages.
    fn flush(&mut self) {
        let loose = std::mem::take(&mut self.loose);
        let near = |one: &(u64, Entry, &[u8]), next: &(u64, Entry, &[u8])| next.0 - one.0 <= u64::from(u32::MAX >> 16);
        for run in loose.chunk_by(near) {
            let costs: Vec<usize> = run.iter().map(|(_, entry, _)| block::sparse_cost(*entry)).collect();
            let mut rest = run;
            for count in block::cut(&costs, 0) {
                let (records, after) = rest.split_at(count);
                self.blocks.push(block::build_sparse(self.stream, records));
                rest = after;
            }
        }
    }
}

/// Bytes that wait in a segment.
fn live(shared: &Shared, segment: u64) -> u64 {
    lock(&shared.catalogue).segment(segment).map_or(0, SegmentEntry::live)
}

fn waits_in(shared: &Shared, segment: u64) -> bool {
    lock(&shared.catalogue)
        .segment(segment)
        .is_some_and(|segment| segment.waiting() > 0)
}

fn has_room_for(shared: &Shared, space: &Space, live: u64) -> bool {
    space.headroom(shared) >= live * 5 / 4 + OVERHEAD.min(live + SMALL_OVERHEAD)
}

/// The closed segment of which the least waits among those that take less than a quarter of what a segment may, if there are more segments
/// than a full directory of whole ones has.
fn small_one_of_many(shared: &Shared, space: &Space, active: u64) -> Option<u64> {
    let catalogue = lock(&shared.catalogue);
    let many = shared.options.max_disk / space.segment_bytes + SPARE_SEGMENTS;
    if catalogue.segments.len() as u64 <= many {
        return None;
    }
    let closed = catalogue.segments.iter().filter(|segment| segment.number != active);
    let small = closed.filter(|segment| space.allocated(segment.number) < space.segment_bytes / 4);
    small.min_by_key(|segment| segment.live()).map(|segment| segment.number)
}

/// The first range of the segment that may hold something that waits.
fn next_range(shared: &Shared, segment: u64) -> Option<(u8, Range)> {
    let catalogue = lock(&shared.catalogue);
    let entry = catalogue.segment(segment)?;
    let parts = entry.parts.iter().filter(|part| part.waiting > 0);
    parts
        .filter_map(|part| Some((part.stream, part.ranges(entry.epoch).min_by_key(|range| range.first)?)))
        .next()
}

/// Charges everything that the catalogue still has waiting in a segment; gives how much of user streams that is.
fn lose_rest(shared: &Shared, segment: u64) -> u64 {
    let mut tracker = lock(&shared.tracker);
    let parts: BTreeMap<u8, (u64, u64)> = {
        let catalogue = lock(&shared.catalogue);
        let parts = catalogue.segment(segment).into_iter().flat_map(|entry| &entry.parts);
        parts.map(|part| (part.stream, (part.waiting, part.bytes))).collect()
    };
    parts
        .into_iter()
        .map(|(stream, waiting)| tracker.lose(stream, segment, waiting))
        .sum()
}
