//! Compaction: live records of an old segment are copied to the active one, so that the old one may go.
//!
//! A segment is compacted when
//!
//! 1. it is damaged: what redb no longer gives is looked for in its bytes ([`crate::segment::remains`]),
//! 2. a write to it failed, in this process or before it: nothing about it is believed any more than must be,
//! 3. space is short and at least half of it is settled,
//! 4. less than a quarter of it waits and nothing of that was settled for a while: it will not go by itself soon.
//!
//! It happens in parts of about a mebibyte, each in one commit with the change of the catalogue, from the front of each of
//! the segment's ranges on: a crash in between leaves a shorter segment and goes on. Records keep offset, id and times. Readers go
//! by offsets over the catalogue, so neither their order nor the ledger changes. What is found nowhere is charged as damaged.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::catalog::range_set::RangeSet;
use crate::commit::write::Extra;
use crate::commit::writer::Writer;
use crate::encoding::block::{self, Block, NewBlock};
use crate::encoding::change::{Change, Range};
use crate::encoding::entry::Entry;
use crate::error::CommitError;
use crate::intake::batch::OpenBatch;
use crate::progress::stream::StreamTracker;
use crate::progress::tracker::{Moving, Tracker};
use crate::record::Batch;
use crate::segment::blocks::{Blocks, each_entry};
use crate::segment::database::SegmentError;
use crate::segment::remains::Remains;
use crate::sync::lock;

/// How much is read and written at a time.
const PART: usize = 1 << 20;
/// How many looks, a second apart, a segment must have stood still to be compacted although there is room.
const STILL: u32 = 30;
/// Bytes that the segments around a compacted one may take besides what is copied.
const OVERHEAD: u64 = 2 << 20;

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
}

/// What is being compacted, and what will be.
#[derive(Debug, Default)]
pub(crate) struct Compaction {
    /// Segments that failed a write or sync.
    distrusted: BTreeSet<u64>,
    now: Option<Job>,
    /// The segment that is being compacted: it does not go by itself, because it may have to be quarantined.
    segment: Option<u64>,
    /// What waited in a segment at the last look, and for how many looks.
    still: HashMap<u64, (u64, u32)>,
}

#[derive(Debug)]
struct Job {
    segment: u64,
    why: Why,
    /// What was found in its bytes, once redb no longer gave it.
    remains: Option<Remains>,
    damaged: bool,
}

/// A part of a segment on its way: everything of a stream's range that ends at `range.end`.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) segment: u64,
    pub(crate) stream: u8,
    pub(crate) range: Range,
    pub(crate) blocks: Vec<Block>,
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

    /// Whether this segment is being compacted.
    pub(crate) fn has(&self, segment: u64) -> bool {
        self.segment == Some(segment)
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

impl Writer {
    /// Decides, once a second, what to compact; repairs what readers have met.
    pub(crate) fn look_for_compaction(&mut self) {
        self.count_passed_by();
        if !self.compaction.is_under_way() {
            self.compaction.now = self.next_job();
        }
    }

    fn next_job(&mut self) -> Option<Job> {
        let damaged = lock(&self.shared.repairs).damaged.first_key_value().map(|(segment, _)| *segment);
        let job = |segment, why| Job {
            segment,
            why,
            remains: None,
            damaged: false,
        };
        if let Some(segment) = damaged {
            if segment == self.number && self.rotate().is_err() {
                return None;
            }
            return Some(job(segment, Why::Damaged));
        }
        let is_waited_in = |segment: &&u64| {
            lock(&self.shared.catalogue)
                .segment(**segment)
                .is_some_and(|segment| segment.waiting() > 0)
        };
        if let Some(segment) = self.compaction.distrusted.iter().find(is_waited_in) {
            let live = self.live(*segment);
            return self.has_room_for(live).then(|| job(*segment, Why::Distrusted));
        }
        let segment = self.stands_still()?;
        self.has_room_for(self.live(segment)).then(|| job(segment, Why::Sparse))
    }

    /// The oldest closed segment of which less than a quarter waits and has waited for a while.
    fn stands_still(&mut self) -> Option<u64> {
        let state = lock(&self.shared.catalogue);
        let mut found = None;
        for segment in state.segments.iter().filter(|segment| segment.number != self.number) {
            let waiting = segment.waiting();
            let seen = self.compaction.still.entry(segment.number).or_insert((waiting, 0));
            *seen = if seen.0 == waiting { (waiting, seen.1 + 1) } else { (waiting, 0) };
            let live: u64 = segment.parts.iter().map(|part| part.bytes).sum();
            let is_sparse = live * 4 < self.space.allocated(segment.number);
            if waiting > 0 && seen.1 >= STILL && is_sparse {
                found = found.or(Some(segment.number));
            }
        }
        found
    }

    /// Bytes that wait in a segment.
    fn live(&self, segment: u64) -> u64 {
        let state = lock(&self.shared.catalogue);
        state
            .segment(segment)
            .map_or(0, |segment| segment.parts.iter().map(|part| part.bytes).sum())
    }

    fn has_room_for(&self, live: u64) -> bool {
        self.space.headroom(&self.shared) >= live * 5 / 4 + OVERHEAD
    }

    /// Makes room by compacting the segment of which the least waits, if that is worth it and there is room for it.
    pub(crate) fn compact_for_room(&mut self) -> bool {
        if self.compaction.is_under_way() || self.broken.is_some() {
            return false;
        }
        let sparsest = {
            let state = lock(&self.shared.catalogue);
            let closed = state.segments.iter().filter(|segment| segment.number != self.number);
            closed
                .map(|segment| {
                    let live: u64 = segment.parts.iter().map(|part| part.bytes).sum();
                    (live, self.space.allocated(segment.number), segment.number)
                })
                .filter(|(live, allocated, _)| *live * 2 + OVERHEAD < *allocated)
                .min_by_key(|(live, ..)| *live)
        };
        let Some((live, _, segment)) = sparsest.filter(|(live, ..)| self.has_room_for(*live)) else {
            return false;
        };
        tracing::debug!(segment, live, "compacting a segment to make room");
        self.compaction.now = Some(Job {
            segment,
            why: Why::Room,
            remains: None,
            damaged: false,
        });
        while self.compaction.is_under_way() {
            if self.compact_step().is_err() {
                return false;
            }
        }
        true
    }

    /// Copies one part.
    pub(crate) fn compact_step(&mut self) -> Result<(), CommitError> {
        let Some(mut job) = self.compaction.now.take() else { return Ok(()) };
        self.compaction.segment = Some(job.segment);
        let result = self.compact_part(&mut job);
        if matches!(result, Ok(true)) {
            self.compaction.now = Some(job);
        } else {
            self.compaction.segment = None;
            self.shared.mark_dirty();
        }
        result.map(|_| ())
    }

    /// Copies one part; whether there is more. After a failure the log begins a new segment; the job is found again.
    fn compact_part(&mut self, job: &mut Job) -> Result<bool, CommitError> {
        let next = self.next_range(job.segment);
        let Some((stream, range)) = next else {
            return self.end_job(job).map(|()| false);
        };
        let part = match self.read_part(job, stream, range) {
            Ok(part) => part,
            Err(error) => {
                tracing::warn!(segment = job.segment, %error, "a segment cannot be compacted now; it is tried again");
                return Ok(false);
            }
        };
        job.damaged |= part.blocks.iter().any(|block| block.is_unsure);
        let empty = OpenBatch::new(Batch(0));
        let stored = self.store(&empty, &Extra::Part(&part));
        stored.map(|()| true).map_err(|failure| self.fail(empty, failure))
    }

    /// The first range of the segment that may hold something that waits.
    fn next_range(&self, segment: u64) -> Option<(u8, Range)> {
        let state = lock(&self.shared.catalogue);
        let entry = state.segment(segment)?;
        let parts = entry.parts.iter().filter(|part| part.waiting > 0);
        parts
            .filter_map(|part| Some((part.stream, part.ranges(entry.epoch).min_by_key(|range| range.first)?)))
            .next()
    }

    fn read_part(&self, job: &mut Job, stream: u8, range: Range) -> Result<Part, SegmentError> {
        let segment = job.segment;
        if job.why == Why::Damaged && job.remains.is_none() {
            self.look_for_remains(job)?;
        }
        let mut blocks = None;
        if job.remains.is_none() {
            match self.shared.segments.blocks(segment, stream, range.first, range.end, PART) {
                Ok(read) => blocks = Some(read),
                Err(error) if error.is_lasting() => {
                    tracing::error!(segment, %error, "a segment cannot be read; its records are searched for in its bytes");
                    self.look_for_remains(job)?;
                }
                Err(error) => return Err(error),
            }
        }
        let remains = job.remains.as_ref();
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

    fn look_for_remains(&self, job: &mut Job) -> Result<(), SegmentError> {
        let ranges = self.ranges_of(job.segment);
        job.remains = Some(Remains::look_for(&self.shared.segments, job.segment, &ranges).map_err(SegmentError::Io)?);
        job.damaged = true;
        Ok(())
    }

    fn ranges_of(&self, segment: u64) -> Vec<(u8, Range)> {
        let state = lock(&self.shared.catalogue);
        let parts = state.segment(segment).into_iter().flat_map(|entry| {
            let ranges = entry.parts.iter().map(|part| (part, part.ranges(entry.epoch)));
            ranges.flat_map(|(part, ranges)| ranges.map(|range| (part.stream, range)))
        });
        parts.collect()
    }

    /// Ends the compaction of a segment: what was not found is charged, and the segment goes, or is quarantined if anything in it may
    /// be of use to a person.
    fn end_job(&mut self, job: &Job) -> Result<(), CommitError> {
        let segment = job.segment;
        let lost = self.lose_rest(segment);
        self.commit_progress()?;
        let keep = job.damaged || job.why == Why::Damaged || lost > 0;
        if keep && lock(&self.shared.catalogue).segment(segment).is_some() {
            tracing::error!(
                segment,
                lost,
                "a damaged segment is quarantined for salvage; waiting records that were found in it were copied to the active segment, the others are counted as damaged"
            );
            self.quarantine(segment);
        }
        lock(&self.shared.repairs).damaged.remove(&segment);
        self.compaction.segment = None;
        self.wake(|_| true);
        // Nothing waits in it, so this takes it out of the catalogue.
        self.commit_progress()
    }

    fn quarantine(&mut self, segment: u64) {
        match self.shared.segments.quarantine(segment) {
            Ok(()) => {
                self.space.keep_quarantined(segment);
                self.shared.stats.quarantined.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(segment, %error, "the damaged segment could not be quarantined"),
        }
    }

    /// Charges everything that the catalogue still has waiting in a segment; gives how much of user streams that is.
    fn lose_rest(&self, segment: u64) -> u64 {
        let mut tracker = lock(&self.shared.tracker);
        let parts: BTreeMap<u8, (u64, u64)> = {
            let state = lock(&self.shared.catalogue);
            let parts = state.segment(segment).into_iter().flat_map(|entry| &entry.parts);
            parts.map(|part| (part.stream, (part.waiting, part.bytes))).collect()
        };
        parts
            .into_iter()
            .map(|(stream, waiting)| tracker.lose(stream, segment, waiting))
            .sum()
    }

    /// Counts again where a block's index was damaged.
    pub(crate) fn count_unsure(&mut self) {
        let unsure = std::mem::take(&mut lock(&self.shared.repairs).unsure);
        for (segment, stream) in unsure {
            self.count_again(segment, stream);
        }
    }

    /// Looks for segments from which readers took everything there was although the catalogue says that more waits.
    fn count_passed_by(&mut self) {
        let passed: Vec<(u64, u8)> = {
            let tracker = lock(&self.shared.tracker);
            let state = lock(&self.shared.catalogue);
            let segments = state.segments.iter().filter(|segment| segment.number != self.number);
            let parts = segments.flat_map(|segment| segment.parts.iter().map(|part| (segment.number, part)));
            let is_passed = |(segment, part): &(u64, &crate::catalog::catalogue::SegmentPart)| {
                let settled = tracker.settled_in(*segment, part.stream);
                let tracked = tracker.streams.get(&part.stream).filter(|tracked| !tracked.internal);
                part.waiting > settled && tracked.is_some_and(|tracked| tracked.is_done_below(part.last_end()))
            };
            parts.filter(is_passed).map(|(segment, part)| (segment, part.stream)).collect()
        };
        for (segment, stream) in passed {
            self.count_again(segment, stream);
        }
    }

    /// Compares what waits in a segment with what the catalogue says. Where records are missing, redb's pages are damaged.
    fn count_again(&self, segment: u64, stream: u8) {
        let tracker = lock(&self.shared.tracker);
        let found = self.count_in(&tracker, segment, stream);
        let waiting = {
            let state = lock(&self.shared.catalogue);
            let part = state.segment(segment).and_then(|entry| entry.part(stream));
            part.map_or(0, |part| part.waiting)
                .saturating_sub(tracker.settled_in(segment, stream))
        };
        drop(tracker);
        match found {
            Ok(found) if found < waiting => {
                let missing = SegmentError::Damaged(format!("{} records are not where they were", waiting - found));
                self.shared.mark_damaged(segment, &missing);
            }
            Err(error) if error.is_lasting() => self.shared.mark_damaged(segment, &error),
            _ => {}
        }
    }

    /// Counts the records of a stream in a segment that are among those the catalogue counts as waiting.
    pub(crate) fn count_in(&self, tracker: &Tracker, segment: u64, stream: u8) -> Result<u64, SegmentError> {
        let Some(tracked) = tracker.streams.get(&stream) else {
            return Ok(0);
        };
        let mut found = 0;
        for (_, range) in self.ranges_of(segment).into_iter().filter(|(id, _)| *id == stream) {
            let read = |from| self.shared.segments.blocks(segment, stream, from, range.end, PART);
            each_entry(range.first..range.end, read, |block, nth| {
                found += u64::from(tracked.is_counted(block, nth));
            })?;
        }
        Ok(found)
    }
}
