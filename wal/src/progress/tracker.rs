//! What became of the records that readers yielded. Kept in memory; what changes of it is written with the next commit.
//!
//! Invariants, per stream and partition:
//!
//! 1. `read_to` is the offset up to which readers have passed the partition's records.
//! 2. Every record below `read_to` is settled and counted, or suspended, or has an [`Outstanding`] entry.
//! 3. `queue` holds the entries' offsets in order, except those that a suspension took over. The partition is delivered up to
//!    the front of its queue, or to `read_to` when the queue is empty.
//! 4. A settled entry is counted in the ledger when it leaves the front of its queue, in the commit that writes the new
//!    front: a kill in between forgets both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::catalog::catalogue::Catalogue;
use crate::catalog::range_set::RangeSet;
use crate::encoding::block::Block;
use crate::encoding::change::{Change, Count};
use crate::progress::gauges::Gauges;
use crate::progress::pending::{DeadJob, Leaving, Pending};
use crate::progress::stream::{MAX_OUTSTANDING, Outcome, Outstanding, StreamTracker, SuspendedPair, Unsettled, pop_settled};
use crate::record::{Partition, StreamId};
use crate::stats::Stats;

/// All streams' progress, and what of it is not yet on disk.
#[derive(Debug)]
pub(crate) struct Tracker {
    pub(crate) streams: BTreeMap<u8, StreamTracker>,
    pub(crate) pending: Pending,
    /// What the running commit writes.
    pub(crate) inflight: Option<Pending>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) stats: Arc<Stats>,
    /// While a commit moves records to another segment, no record is counted as settled in its segment.
    moving: Option<Moving>,
    /// How many commits in a row a dead record could not be read for its letter.
    pub(crate) letters_waited: u32,
    hasher: RandomState,
}

/// Records on their way from one segment to another.
#[derive(Debug)]
pub(crate) struct Moving {
    pub(crate) stream: u8,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) offsets: RangeSet,
}

impl Tracker {
    pub(crate) fn new(state: &Catalogue, gauges: Arc<Gauges>, stats: Arc<Stats>) -> Self {
        let hasher = RandomState::new();
        let mut streams = BTreeMap::new();
        for stream in &state.streams {
            let suspensions = state
                .suspensions
                .iter()
                .filter(|suspension| suspension.stream == stream.id)
                .map(|suspension| SuspendedPair {
                    route: suspension.route.clone(),
                    identity: suspension.identity.clone(),
                    pair: hasher.hash_one((suspension.route.as_str(), suspension.identity.as_str())),
                    partition: Partition::of(&suspension.identity).index(),
                    from: suspension.from,
                    until: suspension.until,
                    queue: VecDeque::new(),
                    scanned: suspension.next,
                });
            let tracker = StreamTracker {
                id: stream.id,
                internal: stream.id >= StreamId::LOCAL.0,
                floor: stream.floor,
                read_to: stream.up_to.clone(),
                queues: vec![VecDeque::new(); Partition::COUNT],
                outstanding: Unsettled::default(),
                suspensions: suspensions.collect(),
                stopped: false,
                removed: stream.removed.clone(),
            };
            streams.insert(stream.id, tracker);
        }
        Self {
            streams,
            pending: Pending::default(),
            inflight: None,
            gauges,
            stats,
            moving: None,
            letters_waited: 0,
            hasher,
        }
    }

    /// Until [`Tracker::thaw`] no record is counted as settled in its segment.
    pub(crate) fn freeze(&mut self, moving: Moving) {
        self.moving = Some(moving);
    }

    /// Counts what was settled in the meantime, where it lies now.
    pub(crate) fn thaw(&mut self, has_moved: bool) {
        let Some(moving) = self.moving.take() else { return };
        if let Some(tracker) = self.streams.get_mut(&moving.stream).filter(|_| has_moved) {
            let entries = tracker.outstanding.iter_mut();
            let moved = entries.filter(|(offset, entry)| entry.segment == moving.from && moving.offsets.contains(**offset));
            moved.for_each(|(_, entry)| entry.segment = moving.to);
        }
        for tracker in self.streams.values_mut() {
            tracker.advance_all(&mut self.pending);
        }
    }

    /// Single records of an internal stream were taken out.
    pub(crate) fn removed(&mut self, stream: u8, first: u64, end: u64) {
        let Some(tracker) = self.streams.get_mut(&stream) else { return };
        tracker.removed.insert(first, end);
        // What lies below everything that is left is trimmed.
        if tracker.removed.contains(tracker.floor) {
            tracker.floor = tracker.removed.end_of(tracker.floor);
            self.pending.moved.insert(stream);
        }
    }

    /// The changes that take dead letters out which are still there.
    pub(crate) fn take_out(&self, leaving: &[Leaving]) -> Vec<Change> {
        let Some(dead) = self.streams.get(&StreamId::DEAD.0) else {
            return Vec::new();
        };
        let mut ranges = RangeSet::default();
        let mut settled: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for letter in leaving {
            if letter.offset >= dead.floor && !dead.removed.contains(letter.offset) && !ranges.contains(letter.offset) {
                ranges.insert(letter.offset, letter.offset + 1);
                let sum = settled.entry(letter.segment).or_default();
                *sum = (sum.0 + 1, sum.1 + letter.bytes);
            }
        }
        let stream = StreamId::DEAD.0;
        let settled = settled.into_iter().map(|(segment, (records, bytes))| Change::Settled {
            segment,
            stream,
            records,
            bytes,
        });
        let removed = ranges.iter().map(|(first, end)| Change::Removed { stream, first, end });
        settled.chain(removed).collect()
    }

    /// What route and identity are compared by.
    pub(crate) fn pair(&self, route: &str, identity: &str) -> u64 {
        self.hasher.hash_one((route, identity))
    }

    /// Notes a record that a reader meets for the first time.
    pub(crate) fn register(&mut self, stream: u8, offset: u64, entry: Outstanding) {
        let Some(tracker) = self.streams.get_mut(&stream) else { return };
        let partition = usize::from(entry.partition);
        let has_ended = entry.settled.is_some();
        if let Some(outcome) = &entry.settled {
            ended(&self.gauges, &self.stats, stream, outcome, entry.cost);
        }
        tracker.queues[partition].push_back(offset);
        tracker.outstanding.insert(offset, entry);
        if has_ended {
            self.advance(stream, partition);
        }
    }

    /// Settles a record that was yielded; false = it was settled before, or never yielded.
    pub(crate) fn settle(&mut self, stream: u8, offset: u64, outcome: Outcome) -> bool {
        let Some(tracker) = self.streams.get_mut(&stream) else {
            return false;
        };
        let Some(entry) = tracker.outstanding.get_mut(&offset).filter(|entry| entry.settled.is_none()) else {
            return false;
        };
        let (partition, cost, suspended, pair) = (usize::from(entry.partition), entry.cost, entry.suspended, entry.pair);
        ended(&self.gauges, &self.stats, stream, &outcome, cost);
        entry.settled = Some(outcome);
        if suspended {
            self.advance_suspension(stream, pair)
        } else {
            self.advance(stream, partition)
        }
        true
    }

    /// Moves an internal stream's floor; false = it was there already.
    pub(crate) fn trim(&mut self, stream: u8, end: u64) -> bool {
        let Some(tracker) = self.streams.get_mut(&stream).filter(|tracker| tracker.floor < end) else {
            return false;
        };
        tracker.floor = end;
        self.pending.moved.insert(stream);
        true
    }

    /// Evicts what still waits in a block; gives records and bytes.
    pub(crate) fn evict(&mut self, stream: u8, segment: u64, block: &Block) -> (u64, u64) {
        let Some(tracker) = self.streams.get_mut(&stream) else {
            return (0, 0);
        };
        let mut evicted = (0, 0);
        for (nth, entry) in block.entries.iter().enumerate() {
            let offset = block.offset(nth);
            if offset < tracker.floor {
                continue;
            }
            let waited = match tracker.outstanding.remove(&offset) {
                Some(known) => match known.settled.clone() {
                    Some(outcome) => {
                        self.pending.ended(stream, offset, &known, outcome);
                        false
                    }
                    None => true,
                },
                None => tracker.waits_unseen(block, nth),
            };
            if waited {
                evicted = (evicted.0 + 1, evicted.1 + entry.cost());
                // An internal stream's gauge follows its floor, when that is committed.
                if !tracker.internal {
                    self.gauges.leave(stream, 1, entry.cost());
                    self.pending.count(segment, stream, entry.slot, entry.cost(), Count::Evicted);
                }
            }
        }
        tracker.raise_floor(block.until);
        tracker.advance_all(&mut self.pending);
        self.pending.moved.insert(stream);
        if !tracker.internal {
            self.stats.evicted.fetch_add(evicted.0, Ordering::Relaxed);
        }
        evicted
    }

    /// Gives up everything of a stream in a segment that cannot be read: `waiting` records wait there by the catalogue.
    /// How many of a user stream are charged as damaged is given.
    pub(crate) fn lose(&mut self, stream: u8, segment: u64, waiting: (u64, u64)) -> u64 {
        let Some(tracker) = self.streams.get_mut(&stream) else { return 0 };
        let there = tracker.outstanding.iter().filter(|(_, entry)| entry.segment == segment);
        let offsets: Vec<u64> = there.map(|(offset, _)| *offset).collect();
        let already = self.pending.settled.get(&(segment, stream)).copied().unwrap_or_default();
        let mut left = (waiting.0.saturating_sub(already.0), waiting.1.saturating_sub(already.1));
        let mut lost = 0;
        for offset in offsets {
            let Some(entry) = tracker.outstanding.remove(&offset) else {
                continue;
            };
            left = (left.0.saturating_sub(1), left.1.saturating_sub(entry.cost));
            let count = match entry.settled.as_ref().map_or(Count::Damaged, Outcome::count) {
                // There can be no letter of it any more.
                Count::Dead => {
                    self.stats.dead_lettered.fetch_sub(1, Ordering::Relaxed);
                    self.stats.damaged.fetch_add(1, Ordering::Relaxed);
                    Count::Damaged
                }
                count => count,
            };
            if entry.settled.is_none() {
                self.gauges.leave(stream, 1, entry.cost);
                self.stats.damaged.fetch_add(1, Ordering::Relaxed);
                lost += 1;
            }
            self.pending.count(segment, stream, entry.slot, entry.cost, count);
        }
        let outstanding = &tracker.outstanding;
        let is_there = |offset: &u64| outstanding.contains_key(offset);
        tracker.queues.iter_mut().for_each(|queue| queue.retain(is_there));
        tracker
            .suspensions
            .iter_mut()
            .for_each(|suspension| suspension.queue.retain(is_there));
        tracker.advance_all(&mut self.pending);
        let internal = tracker.internal;
        self.pending.moved.insert(stream);
        if left.0 > 0 {
            self.charge(stream, segment, left);
        }
        if internal { 0 } else { lost + left.0 }
    }

    fn charge(&mut self, stream: u8, segment: u64, (records, bytes): (u64, u64)) {
        let settled = self.pending.settled.entry((segment, stream)).or_default();
        *settled = (settled.0 + records, settled.1 + bytes);
        // An internal stream has no ledger, and its gauge follows the commit.
        if stream < StreamId::LOCAL.0 {
            self.pending.ledger.add(0, Count::Damaged, records);
            self.gauges.leave(stream, records, bytes);
            self.stats.damaged.fetch_add(records, Ordering::Relaxed);
        }
    }

    /// Records wait that were counted as gone: what could not be read once could be another time.
    pub(crate) fn find_again(&mut self, segment: u64, stream: u8, (records, bytes): (u64, u64)) {
        let found = self.pending.found.entry((segment, stream)).or_default();
        *found = (found.0 + records, found.1 + bytes);
        self.pending.ledger.add(0, Count::Requeued, records);
        self.gauges.enter(stream, records, bytes);
    }

    /// How many records of a segment and stream were found again since the last commit, and their bytes.
    pub(crate) fn found_in(&self, segment: u64, stream: u8) -> (u64, u64) {
        self.pending.found.get(&(segment, stream)).copied().unwrap_or_default()
    }

    /// How many records of a segment and stream are settled since the last commit, and their bytes.
    pub(crate) fn settled_in(&self, segment: u64, stream: u8) -> (u64, u64) {
        self.pending.settled.get(&(segment, stream)).copied().unwrap_or_default()
    }

    /// The streams whose readers stopped and may go on.
    pub(crate) fn let_go_on(&mut self) -> Vec<u8> {
        let stopped = self.streams.values_mut().filter(|stream| stream.stopped);
        let ready = stopped.filter(|stream| stream.outstanding.len() < MAX_OUTSTANDING / 2);
        ready
            .map(|stream| {
                stream.stopped = false;
                stream.id
            })
            .collect()
    }

    /// Suspends a pair; `None` if it is already. Records that could not be read may be its: they are not settled any more, and the
    /// segments given are to be counted again.
    pub(crate) fn suspend(&mut self, stream: u8, route: &str, identity: &str, from: u64) -> Option<BTreeSet<u64>> {
        let pair = self.pair(route, identity);
        let tracker = self.streams.get_mut(&stream)?;
        if tracker.internal || tracker.suspensions.iter().any(|suspension| suspension.is_active(pair)) {
            return None;
        }
        let partition = Partition::of(identity).index();
        let ended = tracker
            .suspensions
            .iter()
            .filter(|suspension| suspension.pair == pair)
            .map(|suspension| suspension.until)
            .max();
        let from = from.max(ended.unwrap_or(0));
        let mut queue = VecDeque::new();
        let mut unsure = BTreeSet::new();
        let StreamTracker { queues, outstanding, .. } = tracker;
        queues[partition].retain(|offset| {
            if let Some(entry) = outstanding.get(offset).filter(|entry| *offset >= from && entry.is_unreadable()) {
                unsure.insert(entry.segment);
                self.gauges.enter(stream, 1, entry.cost);
                self.stats.damaged.fetch_sub(1, Ordering::Relaxed);
                outstanding.remove(offset);
                return false;
            }
            let taken = outstanding.get_mut(offset).filter(|entry| entry.pair == pair && *offset >= from);
            if let Some(entry) = taken {
                entry.suspended = true;
                queue.push_back(*offset);
                return false;
            }
            true
        });
        let scanned = from.max(tracker.read_to[partition]);
        let (route, identity) = (route.to_owned(), identity.to_owned());
        tracker.suspensions.push(SuspendedPair {
            route,
            identity,
            pair,
            partition,
            from,
            until: u64::MAX,
            queue,
            scanned,
        });
        self.pending.moved.insert(stream);
        self.advance_suspension(stream, pair);
        self.advance(stream, partition);
        Some(unsure)
    }

    /// Ends a suspension where readers stand.
    pub(crate) fn resume(&mut self, stream: u8, pair: u64) {
        let Some(tracker) = self.streams.get_mut(&stream) else { return };
        let StreamTracker { suspensions, read_to, .. } = tracker;
        if let Some(suspension) = suspensions.iter_mut().find(|suspension| suspension.is_active(pair)) {
            suspension.until = read_to[suspension.partition].max(suspension.scanned);
            self.pending.moved.insert(stream);
        }
    }

    /// Forgets ended suspensions that a restart would no longer meet.
    fn forget_ended(&mut self) {
        for tracker in self.streams.values_mut() {
            let id = tracker.id;
            let delivered: Vec<u64> = tracker
                .suspensions
                .iter()
                .map(|suspension| tracker.delivered_up_to(suspension.partition))
                .collect();
            let mut delivered = delivered.into_iter();
            let is_over = |suspension: &mut SuspendedPair| delivered.next().is_some_and(|delivered| delivered >= suspension.until);
            let over: Vec<SuspendedPair> = tracker.suspensions.extract_if(.., is_over).collect();
            for suspension in over {
                self.pending.moved.insert(id);
                self.pending.suspensions.push(Change::Resume {
                    stream: id,
                    from: suspension.from,
                    route: suspension.route,
                    identity: suspension.identity,
                });
            }
        }
    }

    /// Notes a suspended record found by scanning; its offset is at or after the suspension's `scanned`.
    pub(crate) fn register_suspended(&mut self, stream: u8, pair: u64, offset: u64, entry: Outstanding) {
        let Some(tracker) = self.streams.get_mut(&stream) else { return };
        let Some(suspension) = tracker.suspensions.iter_mut().find(|suspension| suspension.is_active(pair)) else {
            return;
        };
        let has_ended = entry.settled.is_some();
        if let Some(outcome) = &entry.settled {
            ended(&self.gauges, &self.stats, stream, outcome, entry.cost);
        }
        suspension.queue.push_back(offset);
        suspension.scanned = suspension.scanned.max(offset + 1);
        tracker.outstanding.insert(offset, entry);
        self.pending.moved.insert(stream);
        if has_ended {
            self.advance_suspension(stream, pair);
        }
    }

    /// Hands over what the next commit writes of this, as changes; keeps it aside until the commit's end is known.
    pub(crate) fn collect(&mut self, state: &Catalogue) -> (Vec<Change>, Vec<DeadJob>) {
        self.forget_ended();
        let mut pending = std::mem::take(&mut self.pending);
        let mut changes = pending.ledger.changes();
        changes.extend(found_again(state, &pending));
        for (&(segment, stream), &(records, bytes)) in &pending.settled {
            changes.push(Change::Settled {
                segment,
                stream,
                records,
                bytes,
            });
        }
        for id in &pending.moved {
            let (Some(tracker), Some(before)) = (self.streams.get_mut(id), state.stream(*id)) else {
                continue;
            };
            // Not below the floor in memory: a commit that fails must find the same again.
            tracker.removed.forget_below(before.floor);
            if tracker.floor != before.floor {
                if tracker.internal {
                    changes.extend(trimmed(state, tracker, &pending, before.floor));
                }
                changes.push(Change::Floor {
                    stream: *id,
                    floor: tracker.floor,
                });
            }
            let up_to = tracker.up_to();
            if up_to != before.up_to {
                changes.push(Change::Progress { stream: *id, up_to });
            }
            for suspension in &tracker.suspensions {
                let known = state
                    .suspensions
                    .iter()
                    .find(|known| known.is(*id, suspension.from, &suspension.route, &suspension.identity));
                if known.is_none_or(|known| (known.next, known.until) != (suspension.next(), suspension.until)) {
                    changes.push(suspension.change(*id));
                }
            }
        }
        // Releases first: a pair may have been suspended again since.
        let releases = pending.suspensions.iter().cloned();
        changes = releases.chain(changes).collect();
        changes.extend(
            pending
                .drop_segments
                .iter()
                .map(|segment| Change::DropSegment { segment: *segment }),
        );
        let dead = std::mem::take(&mut pending.dead);
        pending.dead.clone_from(&dead);
        self.inflight = Some(pending);
        (changes, dead)
    }

    /// Puts back what a failed commit did not write.
    pub(crate) fn restore(&mut self) {
        let Some(inflight) = self.inflight.take() else { return };
        let newer = std::mem::replace(&mut self.pending, inflight);
        self.pending.merge(newer);
    }

    fn advance(&mut self, stream: u8, partition: usize) {
        if self.moving.is_some() {
            return;
        }
        let Some(tracker) = self.streams.get_mut(&stream) else { return };
        let StreamTracker { queues, outstanding, .. } = tracker;
        pop_settled(stream, &mut queues[partition], outstanding, &mut self.pending);
    }

    fn advance_suspension(&mut self, stream: u8, pair: u64) {
        if self.moving.is_some() {
            return;
        }
        let Some(tracker) = self.streams.get_mut(&stream) else { return };
        let StreamTracker {
            suspensions, outstanding, ..
        } = tracker;
        if let Some(suspension) = suspensions.iter_mut().find(|suspension| suspension.is_active(pair)) {
            pop_settled(stream, &mut suspension.queue, outstanding, &mut self.pending);
        }
    }
}

/// Counts a record's end as soon as it is known.
fn ended(gauges: &Gauges, stats: &Stats, stream: u8, outcome: &Outcome, cost: u64) {
    gauges.leave(stream, 1, cost);
    let counter = match outcome {
        Outcome::Delivered => &stats.delivered,
        Outcome::Expired => &stats.expired,
        Outcome::Damaged => &stats.damaged,
        Outcome::Dead { .. } => &stats.dead_lettered,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What is said of records that are there although they were counted as gone.
fn found_again<'a>(state: &'a Catalogue, pending: &'a Pending) -> impl Iterator<Item = Change> + 'a {
    pending.found.iter().filter_map(|(&(segment, stream), &(records, bytes))| {
        let entry = state.segment(segment)?;
        let range = entry.part(stream)?.ranges(entry.epoch).next()?;
        Some(Change::Compacted {
            stream,
            from: 0,
            to: segment,
            range,
            records,
            bytes,
        })
    })
}

/// What an internal stream's segments lose when its floor moves, besides what was taken out singly.
fn trimmed(state: &Catalogue, tracker: &StreamTracker, pending: &Pending, from: u64) -> Vec<Change> {
    let (stream, to) = (tracker.id, tracker.floor);
    let mut changes = Vec::new();
    for (segment, part) in state.parts(stream) {
        let taken = pending.settled.get(&(segment.number, stream)).copied().unwrap_or_default();
        let (waiting, bytes) = (part.waiting.saturating_sub(taken.0), part.bytes.saturating_sub(taken.1));
        let below = part.ranges(0).map(|range| {
            let (first, end) = (range.first.max(from), range.end.min(to));
            end.saturating_sub(first).saturating_sub(tracker.removed.overlap(first, end))
        });
        let records = if part.last_end() <= to {
            waiting
        } else {
            below.sum::<u64>().min(waiting)
        };
        if records > 0 {
            changes.push(Change::Settled {
                segment: segment.number,
                stream,
                records,
                bytes: if records == waiting { bytes } else { bytes / waiting * records },
            });
        }
    }
    changes
}
