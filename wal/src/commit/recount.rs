//! Counting again what waits in a segment, where the catalogue may be wrong.

use crate::catalog::catalogue::SegmentPart;
use crate::encoding::change::Range;
use crate::progress::tracker::Tracker;
use crate::record::StreamId;
use crate::segment::blocks::each_entry;
use crate::segment::database::SegmentError;
use crate::shared::Shared;
use crate::sync::lock;

/// How much is read at a time.
const PART: usize = 1 << 20;

/// Counts again where a block's index was damaged.
pub(crate) fn count_unsure(shared: &Shared) {
    let unsure = std::mem::take(&mut lock(&shared.repairs).unsure);
    for (segment, stream) in unsure {
        count_again(shared, segment, stream);
    }
}

/// Looks for segments from which readers took everything there was although the catalogue says that more waits.
pub(crate) fn count_passed_by(shared: &Shared, active: u64) {
    let passed: Vec<(u64, u8)> = {
        let tracker = lock(&shared.tracker);
        let catalogue = lock(&shared.catalogue);
        let segments = catalogue.segments.iter().filter(|segment| segment.number != active);
        let parts = segments.flat_map(|segment| segment.parts.iter().map(|part| (segment.number, part)));
        let is_passed = |(segment, part): &(u64, &SegmentPart)| {
            let (settled, _) = tracker.settled_in(*segment, part.stream);
            let tracked = tracker.streams.get(&part.stream).filter(|tracked| !tracked.internal);
            part.waiting > settled && tracked.is_some_and(|tracked| tracked.is_done_below(part.last_end()))
        };
        parts.filter(is_passed).map(|(segment, part)| (segment, part.stream)).collect()
    };
    for (segment, stream) in passed {
        count_again(shared, segment, stream);
    }
}

/// Compares what waits in a segment with what the catalogue says. Where records are missing, redb's pages are damaged. Where there are more,
/// some were counted as damaged that could not be read when they were counted: they wait again.
fn count_again(shared: &Shared, segment: u64, stream: u8) {
    let compare = || {
        let mut tracker = lock(&shared.tracker);
        let (records, bytes) = count_in(shared, &tracker, segment, stream)?;
        let (counted, counted_bytes) = {
            let catalogue = lock(&shared.catalogue);
            let part = catalogue.segment(segment).and_then(|entry| entry.part(stream));
            part.map_or((0, 0), |part| (part.waiting, part.bytes))
        };
        let (settled, settled_bytes) = tracker.settled_in(segment, stream);
        let (found, found_bytes) = tracker.found_in(segment, stream);
        let waiting = (counted + found).saturating_sub(settled);
        if records < waiting {
            let missing = match waiting - records {
                1 => "1 record is not where it was".to_owned(),
                missing => format!("{missing} records are not where they were"),
            };
            return Err(SegmentError::Damaged(missing));
        }
        if records > waiting && stream < StreamId::LOCAL.0 {
            let again = records - waiting;
            tracing::warn!(
                segment,
                stream,
                again,
                "records that could not be read when they were counted can be read now; they wait again"
            );
            let more_bytes = bytes.saturating_sub((counted_bytes + found_bytes).saturating_sub(settled_bytes));
            tracker.find_again(segment, stream, (again, more_bytes));
        }
        Ok(())
    };
    match shared.segments.patiently(segment, compare) {
        Err(error) if error.is_lasting() => shared.mark_damaged(segment, &error),
        _ => {}
    }
}

/// Counts the records of a stream in a segment, and their bytes, that are among those the catalogue counts as waiting.
///
/// # Errors
/// The segment cannot be read.
pub(crate) fn count_in(shared: &Shared, tracker: &Tracker, segment: u64, stream: u8) -> Result<(u64, u64), SegmentError> {
    let Some(tracked) = tracker.streams.get(&stream) else {
        return Ok((0, 0));
    };
    let (mut records, mut bytes) = (0, 0);
    for (_, range) in ranges_of(shared, segment).into_iter().filter(|(id, _)| *id == stream) {
        let read = |from| shared.segments.blocks(segment, stream, from, range.end, PART);
        each_entry(range.first..range.end, read, |block, nth| {
            if tracked.is_counted(block, nth) {
                records += 1;
                bytes += block.entries[nth].cost();
            }
        })?;
    }
    Ok((records, bytes))
}

/// The ranges of a segment, with their streams.
pub(crate) fn ranges_of(shared: &Shared, segment: u64) -> Vec<(u8, Range)> {
    let catalogue = lock(&shared.catalogue);
    let parts = catalogue.segment(segment).into_iter().flat_map(|entry| {
        let ranges = entry.parts.iter().map(|part| (part, part.ranges(entry.epoch)));
        ranges.flat_map(|(part, ranges)| ranges.map(|range| (part.stream, range)))
    });
    parts.collect()
}
