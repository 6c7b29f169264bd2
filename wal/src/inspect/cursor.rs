//! A stream's records in offset order, those that wait and those that are settled, over all segments of the catalogue.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::catalog::catalogue::Catalogue;
use crate::clock::Timestamp;
use crate::encoding::block::Block;
use crate::inspect::source::Source;
use crate::progress::stream::StreamTracker;
use crate::record::{Epoch, Offset, Record, StreamId};
use crate::segment::segments::name;

/// How a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// It waits for the cloud.
    Waiting,
    /// It waits because its pair of route and device is suspended.
    Suspended,
    /// Delivered, expired, evicted or moved to the dead letters; its segment is still there.
    Settled,
}

/// A record before it is copied: what a filter goes by.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its place in the stream.
    pub offset: Offset,
    /// How it stands.
    pub state: RecordState,
    /// The publisher's identity.
    pub identity: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The topic as published.
    pub topic: &'a str,
    /// When the gateway accepted it.
    pub received: Timestamp,
    /// Whether it was put back, under the id that it had first.
    pub is_put_back: bool,
}

/// A record that a filter wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The record, with the id under which it was first accepted.
    pub record: Record,
    /// Its place in the stream, which is another than its id's when it was put back.
    pub offset: Offset,
    /// How it stands.
    pub state: RecordState,
}

/// Records that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The stream.
    pub stream: StreamId,
    /// Which of its offsets.
    pub offsets: Range<u64>,
    /// The segment's name.
    pub segment: String,
    /// What is wrong.
    pub what: String,
}

/// What a cursor comes upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A record.
    Record(Kept),
    /// Something unreadable.
    Damaged(Damage),
}

/// One step of a cursor.
#[derive(Debug, Default)]
pub struct Chunk {
    /// What the filter wanted, and what was damaged, in offset order.
    pub found: Vec<Found>,
    /// Records that were passed and wait, wanted or not, damaged ones included.
    pub waiting: u64,
    /// Encoded bytes that were passed.
    pub bytes: u64,
    /// The stream has nothing more for now.
    pub is_end: bool,
}

/// Goes through a stream. Blocks on the disk.
pub struct Cursor {
    source: Arc<Source>,
    stream: StreamId,
    position: u64,
}

struct Place {
    segment: u64,
    epoch: Epoch,
    from: u64,
    end: u64,
}

impl Cursor {
    pub(crate) fn new(source: Arc<Source>, stream: StreamId, from: Offset) -> Self {
        Self {
            source,
            stream,
            position: from.0,
        }
    }

    /// Where it stands.
    #[must_use]
    pub const fn position(&self) -> Offset {
        Offset(self.position)
    }

    /// Goes on by about `max_bytes` of encoded records, at least one block, and copies out what `wanted` says. Damage is
    /// always told. At the end it may be called again later, for what has come since.
    pub fn read(&mut self, max_bytes: usize, wanted: &dyn Fn(&Candidate<'_>) -> bool) -> Chunk {
        let mut chunk = Chunk::default();
        let Some(place) = self.source.with_state(|state| place(state, self.stream.0, self.position)) else {
            chunk.is_end = true;
            return chunk;
        };
        match self
            .source
            .blocks(place.segment, self.stream.0, place.from, place.end, max_bytes.clamp(1, 1 << 20))
        {
            Ok(blocks) => {
                for block in &blocks.list {
                    chunk.bytes += block.bytes.len() as u64;
                    self.pass(block, &place, wanted, &mut chunk);
                }
                self.position = blocks.until.min(place.end).max(place.from);
            }
            // A running log may have copied it elsewhere in between: then the next step finds it there.
            Err(error) => {
                if self
                    .source
                    .with_state(|state| state.lies_in(place.segment, self.stream.0, place.from))
                {
                    chunk.found.push(Found::Damaged(Damage {
                        stream: self.stream,
                        offsets: place.from..place.end,
                        segment: name(place.segment),
                        what: format!("the segment cannot be read: {error}"),
                    }));
                    self.position = place.end;
                }
            }
        }
        chunk
    }

    fn pass(&self, block: &Block, place: &Place, wanted: &dyn Fn(&Candidate<'_>) -> bool, chunk: &mut Chunk) {
        let tracker = self.source.tracker();
        let Some(tracked) = tracker.streams.get(&self.stream.0) else {
            return;
        };
        if block.is_unsure {
            chunk.found.push(Found::Damaged(Damage {
                stream: self.stream,
                offsets: block.first.max(place.from)..block.until.min(place.end),
                segment: name(place.segment),
                what: "a block's index is damaged; what follows from it was found by its own checksums, the rest is lost".into(),
            }));
        }
        for nth in block.entries_within(place.from..place.end) {
            let offset = block.offset(nth);
            let state = state_of(tracked, block, nth);
            chunk.waiting += u64::from(state != RecordState::Settled);
            let Some(view) = block.record(nth) else {
                damaged(chunk, self.stream, offset, place.segment);
                continue;
            };
            let candidate = Candidate {
                offset: Offset(offset),
                state,
                identity: view.identity,
                route: view.route,
                topic: view.topic,
                received: view.received,
                is_put_back: view.origin.is_some(),
            };
            if wanted(&candidate) {
                chunk.found.push(Found::Record(Kept {
                    record: view.to_record(&block.bytes, place.epoch),
                    offset: Offset(offset),
                    state,
                }));
            }
        }
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("stream", &self.stream)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// The range of the catalogue that goes on nearest to `position`; ranges of one stream never overlap.
fn place(state: &Catalogue, stream: u8, position: u64) -> Option<Place> {
    let ranges = state
        .parts(stream)
        .flat_map(|(segment, part)| part.ranges(segment.epoch).map(|range| (segment.number, range)));
    let (segment, range) = ranges
        .filter(|(_, range)| range.end > position)
        .min_by_key(|(_, range)| range.first)?;
    Some(Place {
        segment,
        epoch: Epoch(range.epoch),
        from: range.first.max(position),
        end: range.end,
    })
}

/// Adjacent damage is told as one.
fn damaged(chunk: &mut Chunk, stream: StreamId, offset: u64, segment: u64) {
    let segment = name(segment);
    if let Some(Found::Damaged(last)) = chunk.found.last_mut()
        && last.offsets.end == offset
        && last.segment == segment
    {
        last.offsets.end += 1;
        return;
    }
    chunk.found.push(Found::Damaged(Damage {
        stream,
        offsets: offset..offset + 1,
        segment,
        what: "its checksum is wrong".into(),
    }));
}

/// How the record of an entry stands.
pub(crate) fn state_of(tracked: &StreamTracker, block: &Block, nth: usize) -> RecordState {
    let offset = block.offset(nth);
    if offset < tracked.floor {
        return RecordState::Settled;
    }
    if let Some(known) = tracked.outstanding.get(&offset) {
        return match (&known.settled, known.suspended) {
            (Some(_), _) => RecordState::Settled,
            (None, true) => RecordState::Suspended,
            (None, false) => RecordState::Waiting,
        };
    }
    if !tracked.waits_unseen(block, nth) {
        return RecordState::Settled;
    }
    let is_suspended = || {
        let view = block.record(nth)?;
        let covers = |suspension: &&crate::progress::stream::SuspendedPair| {
            suspension.until == u64::MAX
                && offset >= suspension.from
                && suspension.route == view.route
                && suspension.identity == view.identity
        };
        tracked.suspensions.iter().find(covers)
    };
    if !tracked.suspensions.is_empty() && is_suspended().is_some() {
        RecordState::Suspended
    } else {
        RecordState::Waiting
    }
}
