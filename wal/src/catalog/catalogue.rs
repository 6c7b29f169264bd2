//! The catalogue: what the newest segment says of the whole directory. It changes only by [`Change`]s, each commit writes
//! the ones it makes, and a snapshot is the changes that lead from nothing to here.

use crate::catalog::range_set::RangeSet;
use crate::clock::Timestamp;
use crate::clock::marks::Marks;
use crate::encoding::change::{Change, Count, Range};
use crate::record::Partition;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamState {
    pub(crate) id: u8,
    pub(crate) name: String,
    /// The next offset; state, never derived from keys.
    pub(crate) next: u64,
    /// Everything below was evicted or trimmed.
    pub(crate) floor: u64,
    /// Per partition: everything below is settled or suspended.
    pub(crate) up_to: Box<[u64; Partition::COUNT]>,
    /// Of an internal stream: what was taken out above the floor.
    pub(crate) removed: RangeSet,
}

/// A segment of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    pub(crate) number: u64,
    pub(crate) epoch: u64,
    pub(crate) parts: Vec<SegmentPart>,
}

/// What a segment holds of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentPart {
    pub(crate) stream: u8,
    /// What was appended to it; empty if nothing was, or all of it was copied to another.
    pub(crate) first: u64,
    pub(crate) end: u64,
    pub(crate) waiting: u64,
    pub(crate) bytes: u64,
    /// What was copied here from other segments, in order.
    pub(crate) compacted: Vec<Range>,
}

/// A suspended pair. Its records from `from` to `next` are settled, those from there to `until` wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SuspensionState {
    pub(crate) stream: u8,
    pub(crate) from: u64,
    pub(crate) next: u64,
    /// `u64::MAX` = still suspended.
    pub(crate) until: u64,
    pub(crate) route: String,
    pub(crate) identity: String,
}

/// A device's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) identity: String,
    pub(crate) counts: [u64; 7],
}

/// The catalogue after the last successful commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalogue {
    pub(crate) epoch: u64,
    pub(crate) streams: Vec<StreamState>,
    pub(crate) segments: Vec<SegmentEntry>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) suspensions: Vec<SuspensionState>,
    pub(crate) trusted: Option<Timestamp>,
    pub(crate) marks: Marks,
}

impl Catalogue {
    /// What the changes of a snapshot make.
    pub(crate) fn of(snapshot: &[Change]) -> Self {
        let mut state = Self::default();
        snapshot.iter().for_each(|change| state.apply(change));
        state
    }

    pub(crate) fn stream(&self, id: u8) -> Option<&StreamState> {
        self.streams.iter().find(|stream| stream.id == id)
    }

    pub(crate) fn segment(&self, number: u64) -> Option<&SegmentEntry> {
        self.segments.iter().find(|segment| segment.number == number)
    }

    /// The segments' parts of one stream.
    pub(crate) fn parts(&self, stream: u8) -> impl Iterator<Item = (&SegmentEntry, &SegmentPart)> {
        self.segments.iter().flat_map(move |segment| {
            segment
                .parts
                .iter()
                .filter(move |part| part.stream == stream)
                .map(move |part| (segment, part))
        })
    }

    /// The first range of a stream that ends above `position`, in a segment where anything of the stream waits.
    pub(crate) fn place(&self, stream: u8, position: u64) -> Option<(u64, Range)> {
        self.parts(stream)
            .filter(|(_, part)| part.waiting > 0)
            .flat_map(|(segment, part)| part.ranges(segment.epoch).map(|range| (segment.number, range)))
            .filter(|(_, range)| range.end > position)
            .min_by_key(|(_, range)| range.first)
    }

    /// The segment where the record of this offset lies, if it is still there.
    pub(crate) fn segment_of(&self, stream: u8, offset: u64) -> Option<u64> {
        let mut segments = self.segments.iter().map(|segment| segment.number);
        segments.find(|segment| self.lies_in(*segment, stream, offset))
    }

    /// Whether a segment is where the record of this offset lies.
    pub(crate) fn lies_in(&self, segment: u64, stream: u8, offset: u64) -> bool {
        self.epoch_of(segment, stream, offset).is_some()
    }

    /// The epoch under which a record that lies in a segment was first accepted; `None` if it does not lie there.
    pub(crate) fn epoch_of(&self, segment: u64, stream: u8, offset: u64) -> Option<u64> {
        let entry = self.segment(segment)?;
        let mut ranges = entry.part(stream)?.ranges(entry.epoch);
        ranges
            .find(|range| (range.first..range.end).contains(&offset))
            .map(|range| range.epoch)
    }

    /// Records and bytes of a stream that wait.
    pub(crate) fn waiting(&self, stream: u8) -> (u64, u64) {
        self.parts(stream)
            .fold((0, 0), |(records, bytes), (_, part)| (records + part.waiting, bytes + part.bytes))
    }

    /// The sum of one counter over all devices.
    pub(crate) fn total(&self, count: Count) -> u64 {
        self.slots.iter().map(|slot| slot.counts[count as usize]).sum()
    }

    /// Makes one step.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Epoch { epoch } => self.epoch = *epoch,
            Change::Stream { stream, name } => {
                self.streams.push(StreamState {
                    id: *stream,
                    name: name.clone(),
                    next: 0,
                    floor: 0,
                    up_to: Box::new([0; Partition::COUNT]),
                    removed: RangeSet::default(),
                });
            }
            Change::Next { stream, next } => self.with_stream(*stream, |state| state.next = state.next.max(*next)),
            Change::Floor { stream, floor } => self.with_stream(*stream, |state| {
                state.floor = *floor;
                state.removed.forget_below(*floor);
            }),
            Change::Progress { stream, up_to } => self.with_stream(*stream, |state| state.up_to.clone_from(up_to)),
            Change::Segment { segment, epoch } => self.segments.push(SegmentEntry {
                number: *segment,
                epoch: *epoch,
                parts: Vec::new(),
            }),
            Change::Appended {
                segment,
                stream,
                first,
                end,
                records,
                bytes,
            } => {
                self.with_stream(*stream, |state| state.next = state.next.max(*end));
                if let Some(part) = self.part(*segment, *stream) {
                    part.first = if part.first == part.end { *first } else { part.first };
                    part.end = *end;
                    part.add(*records, *bytes);
                }
            }
            Change::Settled {
                segment,
                stream,
                records,
                bytes,
            } => {
                if self.lies(*segment, *stream)
                    && let Some(part) = self.part(*segment, *stream)
                {
                    part.take(*records, *bytes);
                }
            }
            Change::DropSegment { segment } => self.segments.retain(|entry| entry.number != *segment),
            Change::Slot { slot, identity } => self.slot(*slot).identity.clone_from(identity),
            Change::Ledger { slot, count, by } => {
                let value = &mut self.slot(*slot).counts[*count as usize];
                *value = value.saturating_add(*by);
            }
            Change::Suspend {
                stream,
                from,
                next,
                until,
                route,
                identity,
            } => {
                if let Some(suspension) = self
                    .suspensions
                    .iter_mut()
                    .find(|suspension| suspension.is(*stream, *from, route, identity))
                {
                    (suspension.next, suspension.until) = (*next, *until);
                } else {
                    let (route, identity) = (route.clone(), identity.clone());
                    self.suspensions.push(SuspensionState {
                        stream: *stream,
                        from: *from,
                        next: *next,
                        until: *until,
                        route,
                        identity,
                    });
                }
            }
            Change::Resume {
                stream,
                from,
                route,
                identity,
            } => self
                .suspensions
                .retain(|suspension| !suspension.is(*stream, *from, route, identity)),
            Change::Trusted { at } => self.trusted = Some(*at).filter(|at| at.wall_ms > 0),
            Change::Mark(mark) => self.marks.take(mark.clone()),
            Change::Compacted {
                stream,
                from,
                to,
                range,
                records,
                bytes,
            } => self.carry(*stream, (*from, *to), *range, (*records, *bytes)),
            Change::Removed { stream, first, end } => self.with_stream(*stream, |state| state.removed.insert(*first, *end)),
        }
    }

    fn carry(&mut self, stream: u8, (from, to): (u64, u64), range: Range, (records, bytes): (u64, u64)) {
        if from != 0
            && self.lies(from, stream)
            && let Some(part) = self.part(from, stream)
        {
            part.take(records, bytes);
            part.cut(range);
        }
        let is_snapshot = from == 0;
        if !is_snapshot && records == 0 {
            return;
        }
        let epoch = self.segment(to).map_or(0, |segment| segment.epoch);
        if let Some(part) = self.part(to, stream) {
            part.add(records, bytes);
            if is_snapshot && part.ranges(epoch).any(|known| known == range) {
                return;
            }
            let at = part.compacted.partition_point(|known| known.first < range.first);
            part.compacted.insert(at, range);
        }
        if !is_snapshot {
            self.join_ranges(to, stream);
        }
    }

    /// Joins copied ranges that nothing of another segment lies between, so that their number follows that of the segments.
    fn join_ranges(&mut self, segment: u64, stream: u8) {
        let others: Vec<Range> = self
            .parts(stream)
            .flat_map(|(entry, part)| {
                let own = Range {
                    first: part.first,
                    end: part.end,
                    epoch: entry.epoch,
                };
                let compacted = part.compacted.iter().filter(|_| entry.number != segment).copied();
                compacted.chain(Some(own)).filter(|range| range.first < range.end)
            })
            .collect();
        if let Some(part) = self.part(segment, stream) {
            part.compacted.dedup_by(|next, one| {
                let joins = one.epoch == next.epoch && !others.iter().any(|other| (one.end..next.first).contains(&other.first));
                if joins {
                    one.end = next.end;
                }
                joins
            });
        }
    }

    /// What was appended to a segment, as it was found there.
    pub(crate) fn reset_own(&mut self, segment: u64, stream: u8, first: u64, end: u64) {
        if let Some(part) = self.part(segment, stream) {
            (part.first, part.end) = (first, end.max(part.end));
        }
        self.with_stream(stream, |state| state.next = state.next.max(end));
    }

    /// What waits in a segment, as it was counted there.
    pub(crate) fn reset_waiting(&mut self, segment: u64, stream: u8, waiting: u64, bytes: u64) {
        if (waiting > 0 || self.lies(segment, stream))
            && let Some(part) = self.part(segment, stream)
        {
            (part.waiting, part.bytes) = (waiting, bytes);
        }
    }

    /// Whether the catalogue has a part for a stream in a segment.
    fn lies(&self, segment: u64, stream: u8) -> bool {
        self.segment(segment).is_some_and(|entry| entry.part(stream).is_some())
    }

    /// The part of a stream in a segment of the catalogue, made if it is not there.
    fn part(&mut self, segment: u64, stream: u8) -> Option<&mut SegmentPart> {
        let entry = self.segments.iter_mut().find(|entry| entry.number == segment)?;
        let at = entry.parts.iter().position(|part| part.stream == stream).unwrap_or_else(|| {
            entry.parts.push(SegmentPart {
                stream,
                first: 0,
                end: 0,
                waiting: 0,
                bytes: 0,
                compacted: Vec::new(),
            });
            entry.parts.len() - 1
        });
        entry.parts.get_mut(at)
    }

    /// The steps that lead from nothing to here.
    pub(crate) fn snapshot(&self) -> Vec<Change> {
        let mut changes = vec![Change::Epoch { epoch: self.epoch }];
        for stream in &self.streams {
            changes.push(Change::Stream {
                stream: stream.id,
                name: stream.name.clone(),
            });
            changes.push(Change::Next {
                stream: stream.id,
                next: stream.next,
            });
            changes.push(Change::Floor {
                stream: stream.id,
                floor: stream.floor,
            });
            changes.push(Change::Progress {
                stream: stream.id,
                up_to: stream.up_to.clone(),
            });
            let removed = stream.removed.iter();
            changes.extend(removed.map(|(first, end)| Change::Removed {
                stream: stream.id,
                first,
                end,
            }));
        }
        for segment in &self.segments {
            changes.push(Change::Segment {
                segment: segment.number,
                epoch: segment.epoch,
            });
            for part in &segment.parts {
                changes.push(Change::Appended {
                    segment: segment.number,
                    stream: part.stream,
                    first: part.first,
                    end: part.end,
                    records: part.waiting,
                    bytes: part.bytes,
                });
                changes.extend(part.compacted.iter().map(|range| Change::Compacted {
                    stream: part.stream,
                    from: 0,
                    to: segment.number,
                    range: *range,
                    records: 0,
                    bytes: 0,
                }));
            }
        }
        let slots = || (0_u32..).zip(&self.slots);
        changes.extend(slots().map(|(slot, device)| Change::Slot {
            slot,
            identity: device.identity.clone(),
        }));
        for count in Count::ALL {
            let counts = slots().map(|(slot, device)| (slot, device.counts[count as usize]));
            let risen = counts.filter(|(_, by)| *by > 0);
            changes.extend(risen.map(|(slot, by)| Change::Ledger { slot, count, by }));
        }
        changes.extend(self.suspensions.iter().map(SuspensionState::change));
        // In this order: a build that knows no marks keeps what comes last.
        changes.extend(self.marks.iter().cloned().map(Change::Mark));
        changes.extend(self.trusted.map(|at| Change::Trusted { at }));
        changes
    }

    fn with_stream(&mut self, id: u8, change: impl FnOnce(&mut StreamState)) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
            change(stream);
        }
    }

    fn slot(&mut self, number: u32) -> &mut Slot {
        let number = number as usize;
        if self.slots.len() <= number {
            self.slots.resize(number + 1, Slot::default());
        }
        &mut self.slots[number]
    }
}

impl SegmentEntry {
    pub(crate) fn part(&self, stream: u8) -> Option<&SegmentPart> {
        self.parts.iter().find(|part| part.stream == stream)
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.parts.iter().map(|part| part.waiting).sum()
    }

    /// Bytes of what waits in it.
    pub(crate) fn live(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

impl SegmentPart {
    /// Everything it holds, copied ranges first; `epoch` is the segment's.
    pub(crate) fn ranges(&self, epoch: u64) -> impl Iterator<Item = Range> + '_ {
        let own = Range {
            first: self.first,
            end: self.end,
            epoch,
        };
        let own = (own.first < own.end).then_some(own);
        self.compacted.iter().copied().chain(own)
    }

    /// Where the highest of its ranges ends.
    pub(crate) fn last_end(&self) -> u64 {
        self.ranges(0).map(|range| range.end).max().unwrap_or(0)
    }

    fn add(&mut self, records: u64, bytes: u64) {
        self.waiting = self.waiting.saturating_add(records);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn take(&mut self, records: u64, bytes: u64) {
        self.waiting = self.waiting.saturating_sub(records);
        self.bytes = if self.waiting == 0 { 0 } else { self.bytes.saturating_sub(bytes) };
    }

    /// Gives up the front of the range that `gone` begins.
    fn cut(&mut self, gone: Range) {
        if (self.first..self.end).contains(&gone.first) {
            self.first = gone.end.min(self.end);
        } else if let Some(range) = self
            .compacted
            .iter_mut()
            .find(|range| (range.first..range.end).contains(&gone.first))
        {
            range.first = gone.end.min(range.end);
        }
        self.compacted.retain(|range| range.first < range.end);
    }
}

impl SuspensionState {
    pub(crate) fn is(&self, stream: u8, from: u64, route: &str, identity: &str) -> bool {
        self.stream == stream && self.from == from && self.route == route && self.identity == identity
    }

    fn change(&self) -> Change {
        let Self {
            stream,
            from,
            next,
            until,
            route,
            identity,
        } = self.clone();
        Change::Suspend {
            stream,
            from,
            next,
            until,
            route,
            identity,
        }
    }
}
