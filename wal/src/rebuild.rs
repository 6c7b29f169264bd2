//! What the newest file's blocks still prove after a row of its state was lost.
//!
//! 1. Progress stands where it stood before the lost row, because what was written after it may pass over records that
//!    the lost row suspended. So records may be sent twice, but none is passed by.
//! 2. The newest file's ranges and the next offsets are raised to what its keys show.
//! 3. What waits is counted anew in every file.
//! 4. The ledger is made to balance, on the line `other`: records that no row accounts for are *accepted*, records that
//!    wait again are *requeued*, records that nobody can find are *damaged*.

use std::sync::Arc;

use crate::block::Block;
use crate::files::{FileError, Files};
use crate::gauge::Gauges;
use crate::progress::Tracker;
use crate::state::{Change, Count, FilePart, State};
use crate::tracked::StreamTracker;
use crate::{Stats, StreamId};

/// How much is read at a time.
const CHUNK: usize = 1 << 20;

/// Rebuilds `state`, of which `appended` records of user streams are known to be in the file `newest`; gives how many
/// records were charged as damaged.
pub(crate) fn rebuild(files: &Files, state: &mut State, newest: u64, appended: u64) -> Result<u64, FileError> {
    name_unknown_streams(files, state, newest)?;
    let tracker = Tracker::new(state, Arc::new(Gauges::new()), Arc::new(Stats::default()));
    let mut found_in_newest = 0;
    let numbers: Vec<u64> = state.files.iter().map(|file| file.number).collect();
    for number in numbers {
        for tracked in tracker.streams.values() {
            let part = state
                .file(number)
                .and_then(|file| file.parts.iter().find(|part| part.stream == tracked.id));
            let range = match part {
                _ if number == newest => 0..u64::MAX,
                Some(part) => part.first..part.end,
                None => continue,
            };
            let Some(counted) = count(files, number, tracked, range, state)? else {
                continue;
            };
            if number == newest && !tracked.internal {
                found_in_newest += counted.records;
            }
            put(state, number, number == newest, counted.part);
        }
    }
    let accepted = found_in_newest.saturating_sub(appended);
    charge(state, Count::Accepted, accepted);
    let users = || state.streams.iter().filter(|stream| stream.id < StreamId::LOCAL.0);
    let waiting: u64 = users().map(|stream| state.waiting(stream.id).0).sum();
    let came = state.total(Count::Accepted) + state.total(Count::Requeued);
    let ends = [Count::Delivered, Count::Expired, Count::Evicted, Count::Dead, Count::Damaged];
    let went = ends.into_iter().map(|count| state.total(count)).sum::<u64>() + waiting;
    charge(state, Count::Requeued, went.saturating_sub(came));
    charge(state, Count::Damaged, came.saturating_sub(went));
    Ok(came.saturating_sub(went))
}

/// What a file holds of a stream.
struct Counted {
    part: FilePart,
    records: u64,
}

fn count(
    files: &Files,
    number: u64,
    tracked: &StreamTracker,
    range: std::ops::Range<u64>,
    state: &mut State,
) -> Result<Option<Counted>, FileError> {
    let mut found: Option<Counted> = None;
    let mut from = range.start;
    loop {
        let blocks = files.blocks(number, tracked.id, from, range.end, CHUNK)?;
        let Some(last) = blocks.last().map(|last| last.first) else {
            return Ok(found);
        };
        let done = blocks.last().is_some_and(|last| last.until == range.end);
        for raw in blocks {
            let first = raw.first;
            let block = Block::parse(raw);
            let end = first + block.entries.len() as u64;
            if first < from && found.as_ref().is_some_and(|found| first < found.part.end) {
                continue;
            }
            let counted = found.get_or_insert(Counted {
                part: FilePart {
                    stream: tracked.id,
                    first,
                    end,
                    waiting: 0,
                    bytes: 0,
                },
                records: 0,
            });
            counted.part.end = end;
            counted.records += block.entries.len() as u64;
            for (nth, entry) in block.entries.iter().enumerate() {
                if first + nth as u64 >= tracked.floor && tracked.waits_unseen(&block, nth) {
                    counted.part.waiting += 1;
                    counted.part.bytes += entry.cost();
                }
                if let Some(view) = block.record(nth).filter(|_| !tracked.internal && entry.slot > 0) {
                    name_slot(state, entry.slot, view.identity);
                }
            }
        }
        if done {
            return Ok(found);
        }
        from = last + 1;
    }
}

/// A device whose slot was given in the lost row.
fn name_slot(state: &mut State, slot: u32, identity: &str) {
    let known = state.slots.get(slot as usize).is_some_and(|known| !known.identity.is_empty());
    if !known && slot <= crate::row::MAX_SLOT {
        state.apply(&Change::Slot {
            slot,
            identity: identity.to_owned(),
        });
    }
}

/// A stream that got its id in the lost row. Under this name it is an orphan, which is said when the log is opened.
fn name_unknown_streams(files: &Files, state: &mut State, newest: u64) -> Result<(), FileError> {
    for stream in 0..StreamId::LOCAL.0 {
        if state.stream(stream).is_none() && !files.blocks(newest, stream, 0, u64::MAX, 1)?.is_empty() {
            state.apply(&Change::Stream {
                stream,
                name: format!("recovered-{stream}"),
            });
        }
    }
    Ok(())
}

/// Puts what was counted into the catalogue. Only the newest file's range may be other than the catalogue says: behind
/// an older one's lies what a failed commit left.
fn put(state: &mut State, number: u64, is_newest: bool, counted: FilePart) {
    let stream = counted.stream;
    if is_newest {
        state.apply(&Change::Next { stream, next: counted.end });
    }
    let Some(file) = state.files.iter_mut().find(|file| file.number == number) else {
        return;
    };
    match file.parts.iter_mut().find(|part| part.stream == stream) {
        Some(part) => {
            if is_newest {
                (part.first, part.end) = (part.first.min(counted.first), part.end.max(counted.end));
            }
            (part.waiting, part.bytes) = (counted.waiting, counted.bytes);
        }
        None => file.parts.push(counted),
    }
}

fn charge(state: &mut State, count: Count, by: u64) {
    if by > 0 {
        state.apply(&Change::Ledger { slot: 0, count, by });
    }
}
