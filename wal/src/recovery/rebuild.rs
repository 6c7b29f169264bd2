//! What the newest segment's records still prove after a row of its state was lost, or all of redb's pages with it.
//!
//! 1. Progress stands where it stood before the lost row, because what was written after it may pass over records that
//!    the lost row suspended. So records may be sent twice, but none is passed by.
//! 2. The newest segment's ranges and the next offsets are raised to what is found in it. What lies there below the offsets
//!    with which it began, and in no other segment's range, was copied there by the lost row.
//! 3. What waits is counted anew in every segment.
//! 4. The ledger is made to balance, on the line `other`: records that no row accounts for are *accepted*, records that
//!    wait again are *requeued*, records that nobody can find are *damaged*.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::catalogue::Catalogue;
use crate::catalog::range_set::RangeSet;
use crate::encoding::block::Block;
use crate::encoding::change::{Change, Count, Range};
use crate::progress::gauges::Gauges;
use crate::progress::tracker::Tracker;
use crate::record::StreamId;
use crate::recovery::counted::{Counting, Counts, StateSum};
use crate::segment::blocks::each_entry;
use crate::segment::database::SegmentError;
use crate::segment::remains::Remains;
use crate::segment::segments::Segments;
use crate::stats::Stats;

/// How much is read at a time.
const CHUNK: usize = 1 << 20;

/// The segment of which a row was lost.
pub(crate) struct Newest<'a> {
    pub(crate) number: u64,
    /// Its records, where redb no longer gives them.
    pub(crate) remains: Option<&'a Remains>,
    /// Records of user streams that readable rows say were appended to it.
    pub(crate) appended: u64,
    /// Each stream's next offset when it began.
    pub(crate) began: BTreeMap<u8, u64>,
}

/// What a segment holds of a stream.
#[derive(Default)]
struct Counted {
    waiting: u64,
    bytes: u64,
    /// Records in the newest segment that were appended to it.
    appended: u64,
    own: Option<(u64, u64)>,
    orphans: RangeSet,
}

/// Rebuilds `state`; gives how many records were charged as damaged. What is known of older segments from a start that was killed is not
/// counted again.
pub(crate) fn rebuild(
    segments: &Segments,
    state: &mut Catalogue,
    newest: &Newest<'_>,
    counting: &mut Counting<'_>,
) -> Result<u64, SegmentError> {
    name_unknown_streams(segments, state, newest)?;
    let sum = StateSum::of(state, newest.number);
    let tracker = Tracker::new(state, Arc::new(Gauges::new()), Arc::new(Stats::default()));
    let mut found = 0;
    let numbers: Vec<u64> = state.segments.iter().map(|segment| segment.number).collect();
    let of = numbers.len() as u64;
    for (nth, number) in (1..).zip(numbers) {
        if let Some(counts) = counting.known(sum, number) {
            counts
                .iter()
                .for_each(|(stream, records, bytes)| state.reset_waiting(number, *stream, *records, *bytes));
            continue;
        }
        counting.begin(number, nth, of);
        let mut counts = Counts::new();
        for tracked in tracker.streams.values() {
            let stream = tracked.id;
            let is_waiting = |block: &Block, nth: usize| block.offset(nth) >= tracked.floor && tracked.waits_unseen(block, nth);
            if number == newest.number {
                let counted = count_newest(segments, state, newest, stream, &is_waiting)?;
                if !tracked.internal {
                    found += counted.appended;
                }
                put(state, number, stream, &counted);
            } else if let Some((records, bytes)) = count_older(segments, state, number, stream, &is_waiting)? {
                state.reset_waiting(number, stream, records, bytes);
                counts.push((stream, records, bytes));
            }
        }
        if number != newest.number {
            counting.keep(sum, number, &counts);
        }
    }
    charge(state, Count::Accepted, found.saturating_sub(newest.appended));
    let users = || state.streams.iter().filter(|stream| stream.id < StreamId::LOCAL.0);
    let waiting: u64 = users().map(|stream| state.waiting(stream.id).0).sum();
    let came = state.total(Count::Accepted) + state.total(Count::Requeued);
    let ends = [Count::Delivered, Count::Expired, Count::Evicted, Count::Dead, Count::Damaged];
    let went = ends.into_iter().map(|count| state.total(count)).sum::<u64>() + waiting;
    charge(state, Count::Requeued, went.saturating_sub(came));
    charge(state, Count::Damaged, came.saturating_sub(went));
    Ok(came.saturating_sub(went))
}

/// Counts what waits in the ranges of an older segment, records and bytes; `None` if the catalogue's word stands, because it cannot be read.
fn count_older(
    segments: &Segments,
    state: &Catalogue,
    number: u64,
    stream: u8,
    is_waiting: &dyn Fn(&Block, usize) -> bool,
) -> Result<Option<(u64, u64)>, SegmentError> {
    let Some(entry) = state.segment(number) else { return Ok(None) };
    let Some(part) = entry.part(stream) else { return Ok(None) };
    let (mut records, mut bytes) = (0, 0);
    for range in part.ranges(entry.epoch) {
        let visited = visit(segments, number, None, stream, range.first..range.end, &mut |block, nth| {
            if is_waiting(block, nth) {
                records += 1;
                bytes += block.entries[nth].cost();
            }
        });
        match visited {
            Err(error) if error.is_lasting() => return Ok(None),
            visited => visited?,
        }
    }
    Ok(Some((records, bytes)))
}

fn count_newest(
    segments: &Segments,
    state: &mut Catalogue,
    newest: &Newest<'_>,
    stream: u8,
    is_waiting: &dyn Fn(&Block, usize) -> bool,
) -> Result<Counted, SegmentError> {
    let began = newest.began.get(&stream).copied().unwrap_or(0);
    let ranges = |is_newest: bool| -> Vec<Range> {
        let parts = state
            .parts(stream)
            .filter(|(segment, _)| (segment.number == newest.number) == is_newest);
        parts.flat_map(|(segment, part)| part.ranges(segment.epoch)).collect()
    };
    let (known, elsewhere) = (ranges(true), ranges(false));
    let covers = |ranges: &[Range], offset: u64| ranges.iter().any(|range| (range.first..range.end).contains(&offset));
    let mut counted = Counted::default();
    let mut names = Vec::new();
    visit(segments, newest.number, newest.remains, stream, 0..u64::MAX, &mut |block, nth| {
        let offset = block.offset(nth);
        if offset >= began {
            counted.appended += 1;
            let own = counted.own.get_or_insert((offset, offset));
            own.1 = offset + 1;
        } else if !covers(&known, offset) {
            if covers(&elsewhere, offset) {
                return;
            }
            counted.orphans.insert(offset, offset + 1);
        }
        if is_waiting(block, nth) {
            counted.waiting += 1;
            counted.bytes += block.entries[nth].cost();
        }
        let slot = block.entries[nth].slot;
        if stream < StreamId::LOCAL.0
            && slot > 0
            && let Some(view) = block.record(nth)
        {
            names.push((slot, view.identity.to_owned()));
            names.dedup();
        }
    })?;
    names.into_iter().for_each(|(slot, identity)| name_slot(state, slot, identity));
    Ok(counted)
}

/// Calls `see` for each entry of a stream in a segment, in order.
fn visit(
    segments: &Segments,
    number: u64,
    remains: Option<&Remains>,
    stream: u8,
    range: std::ops::Range<u64>,
    see: &mut dyn FnMut(&Block, usize),
) -> Result<(), SegmentError> {
    let end = range.end;
    let read = |from| match remains {
        Some(remains) => Ok(remains.blocks(stream, from..end, CHUNK)),
        None => segments.blocks(number, stream, from, end, CHUNK),
    };
    each_entry(range, read, see)
}

/// A device whose slot was given in the lost row.
fn name_slot(state: &mut Catalogue, slot: u32, identity: String) {
    let known = state.slots.get(slot as usize).is_some_and(|known| !known.identity.is_empty());
    if !known && slot <= crate::format::MAX_SLOT {
        state.apply(&Change::Slot { slot, identity });
    }
}

/// A stream that got its id in the lost row. Under this name it is an orphan, which is said when the log is opened.
fn name_unknown_streams(segments: &Segments, state: &mut Catalogue, newest: &Newest<'_>) -> Result<(), SegmentError> {
    for stream in 0..StreamId::LOCAL.0 {
        if state.stream(stream).is_some() {
            continue;
        }
        let is_there = match newest.remains {
            Some(remains) => remains.has(stream),
            None => !segments.blocks(newest.number, stream, 0, u64::MAX, 1)?.list.is_empty(),
        };
        if is_there {
            state.apply(&Change::Stream {
                stream,
                name: format!("recovered-{stream}"),
            });
        }
    }
    Ok(())
}

/// Puts what was counted into the catalogue. Only the newest segment's ranges may be other than the catalogue says: behind
/// an older one's lies what a failed commit left.
fn put(state: &mut Catalogue, segment: u64, stream: u8, counted: &Counted) {
    if let Some((first, end)) = counted.own {
        let known = state.segment(segment).and_then(|segment| segment.part(stream));
        let first = known
            .filter(|part| part.first < part.end)
            .map_or(first, |part| part.first.min(first));
        state.reset_own(segment, stream, first, end);
    }
    let epoch = state.segment(segment).map_or(0, |segment| segment.epoch);
    for (first, end) in counted.orphans.iter() {
        state.apply(&Change::Compacted {
            stream,
            from: 0,
            to: segment,
            range: Range { first, end, epoch },
            records: 0,
            bytes: 0,
        });
    }
    state.reset_waiting(segment, stream, counted.waiting, counted.bytes);
}

fn charge(state: &mut Catalogue, count: Count, by: u64) {
    if by > 0 {
        state.apply(&Change::Ledger { slot: 0, count, by });
    }
}
