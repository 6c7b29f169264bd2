//! Reading a stream in order, over all segments of the catalogue.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::encoding::block::Block;
use crate::encoding::entry::Entry;
use crate::encoding::record::View;
use crate::error::ReadError;
use crate::progress::stream::{MAX_OUTSTANDING, Meet, Outcome, Outstanding, StreamTracker};
use crate::progress::tracker::Tracker;
use crate::read::stretch::{self, Place};
use crate::record::{Partition, PartitionSet, Record, StreamId};
use crate::segment::segments::{READ_AGAIN, Segments};
use crate::shared::Shared;
use crate::sync::lock;

/// Reads one stream in offset order. Blocks on the disk; keep it off the async threads.
///
/// What it yields must be settled: a record that stays unsettled is yielded again after [`Reader::rewind`]. Readers of
/// one stream must not share partitions.
pub struct Reader {
    shared: Arc<Shared>,
    stream: StreamId,
    partitions: PartitionSet,
    position: u64,
    doubt: Doubt,
}

/// What was read wrongly, and is read again before it is taken for damaged.
#[derive(Clone, Copy, Debug, Default)]
struct Doubt {
    /// The offset, and how often it was read again.
    at: Option<(u64, usize)>,
    /// A segment that was read again in vain: more of it is not.
    damaged: Option<u64>,
}

impl Doubt {
    /// Whether a record that is damaged is to be read again.
    fn asks(&mut self, segments: &Segments, segment: u64, offset: u64) -> bool {
        if self.damaged == Some(segment) || segments.active_number() == Some(segment) {
            return false;
        }
        let times = self.at.filter(|(at, _)| *at == offset).map_or(0, |(_, times)| times);
        if times == READ_AGAIN {
            *self = Self {
                at: None,
                damaged: Some(segment),
            };
            return false;
        }
        self.at = Some((offset, times + 1));
        true
    }

    /// A record was read and taken for what it is.
    fn ends(&mut self, segments: &Segments, segment: u64, offset: u64, is_whole: bool) {
        if self.at.take_if(|(at, _)| *at <= offset).is_some() && is_whole {
            segments.corrected(segment, "a record's checksum was wrong");
        }
    }
}

/// How a reader came through a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passed {
    On,
    Enough,
    /// Its records lie in another segment by now.
    Moved,
    /// A record is damaged, or was read wrongly.
    Doubtful,
}

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, stream: StreamId, partitions: PartitionSet) -> Self {
        let mut reader = Self {
            shared,
            stream,
            partitions,
            position: 0,
            doubt: Doubt::default(),
        };
        reader.rewind();
        reader
    }

    /// The next waiting records, about `max_bytes` of payload and topic at most but at least one; empty = nothing more for now:
    /// [`crate::Log::on_commit`] wakes when there may be.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&mut self, max_bytes: usize) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        let mut left = max_bytes;
        loop {
            let bytes = left.clamp(1, 1 << 20);
            let next = match stretch::next(&self.shared, self.stream.0, self.position, u64::MAX, bytes) {
                Ok(Some(next)) => next,
                // After a rescue the stream is woken.
                Ok(None) | Err(ReadError::Rescued { .. }) => break,
                Err(error) => return Err(error),
            };
            let mut passed = Passed::On;
            for block in &next.blocks {
                passed = self.pass(&next.place, block, &mut left, &mut records);
                if passed != Passed::On {
                    break;
                }
            }
            if next.blocks.is_empty() {
                self.passed(next.place.end);
            }
            if passed == Passed::Doubtful {
                self.shared.segments.forget_cached(next.place.segment);
                continue;
            }
            if passed == Passed::Enough || (!records.is_empty() && left == 0) {
                break;
            }
        }
        Ok(records)
    }

    /// Starts again at the oldest record that is not settled, as after a broken connection.
    pub fn rewind(&mut self) {
        let tracker = lock(&self.shared.tracker);
        let Some(stream) = tracker.streams.get(&self.stream.0) else {
            return;
        };
        let owned = (0..Partition::COUNT).filter(|p| self.partitions.0 & (1 << p) != 0);
        self.position = if stream.internal {
            stream.floor
        } else {
            owned.map(|p| stream.delivered_up_to(p)).min().unwrap_or(stream.floor)
        };
    }

    /// Takes what waits in a block.
    fn pass(&mut self, place: &Place, block: &Block, left: &mut usize, records: &mut Vec<Record>) -> Passed {
        let now = self.shared.clock.now();
        let max_age = self.shared.policy(self.stream.0).and_then(|options| options.max_age);
        let mut tracker = lock(&self.shared.tracker);
        let marks = lock(&self.shared.catalogue).marks.clone();
        let from = self.position.max(place.first).max(block.first);
        if from < place.end.min(block.until) && !lock(&self.shared.catalogue).lies_in(place.segment, self.stream.0, from) {
            return Passed::Moved;
        }
        if block.is_unsure {
            if self.doubt.asks(&self.shared.segments, place.segment, from) {
                return Passed::Doubtful;
            }
            self.shared.mark_unsure(place.segment, self.stream.0);
        }
        let mut passed = Passed::On;
        let mut ended = false;
        for (nth, entry) in block.entries.iter().enumerate() {
            let offset = block.offset(nth);
            if offset < from || offset >= place.end || self.partitions.0 & (1 << (entry.partition % 64)) == 0 {
                continue;
            }
            let tracked = tracker.streams.get(&self.stream.0);
            let Some(meet) = tracked.map(|stream| stream.meet(offset, entry.partition % 64)) else {
                return Passed::Enough;
            };
            if meet == Meet::Skip {
                continue;
            }
            let view = block.record(nth);
            if view.is_none() && self.doubt.asks(&self.shared.segments, place.segment, offset) {
                self.position = offset;
                passed = Passed::Doubtful;
                break;
            }
            self.doubt.ends(&self.shared.segments, place.segment, offset, view.is_some());
            let may_be_suspended = |tracked: &StreamTracker| tracked.may_be_suspended(offset, entry.partition % 64);
            if view.is_none() && meet == Meet::New && tracker.streams.get(&self.stream.0).is_some_and(may_be_suspended) {
                // Whether it waits or was settled in its suspension, only a recount tells.
                self.shared.mark_unsure(place.segment, self.stream.0);
                continue;
            }
            let size = view.map_or(0, |view| view.topic.len() + view.payload.len());
            if size > *left && !records.is_empty() {
                self.position = offset;
                passed = Passed::Enough;
                break;
            }
            let yielded = match (meet, view) {
                (Meet::New, view) => {
                    let outcome = judge(view, max_age, |view| marks.age(self.stream.0, offset, &view.received, &now));
                    if outcome.is_some() && stop_if_crowded(&mut tracker, self.stream.0) {
                        self.position = offset;
                        passed = Passed::Enough;
                        break;
                    }
                    ended |= outcome.is_some();
                    if !meet_new(&mut tracker, self.stream.0, offset, *entry, place.segment, view, outcome) {
                        None
                    } else {
                        view
                    }
                }
                // It was readable when it was met first. What an internal stream holds is given up by its owner.
                (_, None) => {
                    let is_settled = tracker.settle(self.stream.0, offset, Outcome::Damaged);
                    if is_settled {
                        tell_damaged(self.stream.0, place.segment, offset);
                    }
                    ended |= is_settled;
                    None
                }
                (_, view) => view,
            };
            if let Some(view) = yielded {
                *left = left.saturating_sub(size);
                records.push(view.to_record(&block.bytes, place.epoch));
            }
        }
        if passed == Passed::On {
            self.position = self.position.max(block.until.min(place.end));
        }
        raise(&mut tracker, self.stream.0, self.partitions, self.position);
        drop(tracker);
        if ended {
            self.shared.mark_dirty();
        }
        passed
    }

    fn passed(&mut self, position: u64) {
        self.position = self.position.max(position);
        raise(&mut lock(&self.shared.tracker), self.stream.0, self.partitions, self.position);
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("stream", &self.stream)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// What must become of a record without sending it.
pub(crate) fn judge(view: Option<View<'_>>, max_age: Option<Duration>, age: impl FnOnce(&View<'_>) -> Option<Duration>) -> Option<Outcome> {
    let Some(view) = view else { return Some(Outcome::Damaged) };
    let expiry = view.expiry.map(|seconds| Duration::from_secs(seconds.into()));
    let age = if max_age.is_some() || expiry.is_some() {
        age(&view)?
    } else {
        return None;
    };
    [max_age, expiry]
        .into_iter()
        .flatten()
        .any(|limit| age > limit)
        .then_some(Outcome::Expired)
}

/// Whether so much is kept in memory behind unsettled records that no more may be added; the reader's stream is woken
/// when there is room.
fn stop_if_crowded(tracker: &mut Tracker, stream: u8) -> bool {
    let Some(tracked) = tracker.streams.get_mut(&stream) else {
        return false;
    };
    let is_crowded = tracked.outstanding.len() >= MAX_OUTSTANDING;
    tracked.stopped |= is_crowded;
    is_crowded
}

/// Registers a record met for the first time; says whether it is to be yielded.
fn meet_new(
    tracker: &mut Tracker,
    stream: u8,
    offset: u64,
    entry: Entry,
    segment: u64,
    view: Option<View<'_>>,
    outcome: Option<Outcome>,
) -> bool {
    let pair = view.map_or(0, |view| tracker.pair(view.route, view.identity));
    if view.is_some()
        && tracker
            .streams
            .get(&stream)
            .is_some_and(|tracked| tracked.is_suspended(pair, offset))
    {
        return false;
    }
    if matches!(outcome, Some(Outcome::Damaged)) {
        tell_damaged(stream, segment, offset);
    }
    let yielded = outcome.is_none();
    tracker.register(stream, offset, outstanding(entry, segment, pair, view, outcome, false));
    yielded
}

pub(crate) fn tell_damaged(stream: u8, segment: u64, offset: u64) {
    tracing::error!(
        stream,
        offset,
        segment,
        "a record's checksum is wrong; it is skipped, counted as damaged and left in its segment for salvage"
    );
}

pub(crate) fn outstanding(
    entry: Entry,
    segment: u64,
    pair: u64,
    view: Option<View<'_>>,
    settled: Option<Outcome>,
    suspended: bool,
) -> Outstanding {
    Outstanding {
        partition: entry.partition % 64,
        slot: entry.slot,
        cost: entry.cost(),
        segment,
        pair,
        received: view.map(|view| view.received),
        settled,
        suspended,
    }
}

fn raise(tracker: &mut Tracker, stream: u8, partitions: PartitionSet, position: u64) {
    let Some(stream) = tracker.streams.get_mut(&stream).filter(|stream| !stream.internal) else {
        return;
    };
    for (p, read_to) in stream.read_to.iter_mut().enumerate() {
        if partitions.0 & (1 << p) != 0 {
            *read_to = (*read_to).max(position);
        }
    }
    if !tracker.pending.is_empty() {
        tracker.pending.moved.insert(stream.id);
    }
}
