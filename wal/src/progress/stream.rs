//! One stream's progress; its invariants are in [`crate::progress::tracker`].

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::catalog::range_set::RangeSet;
use crate::clock::Timestamp;
use crate::encoding::block::Block;
use crate::encoding::change::{Change, Count};
use crate::progress::offset_hasher::OffsetHasher;
use crate::progress::pending::Pending;
use crate::record::Partition;

/// One stream's progress.
#[derive(Debug)]
pub(crate) struct StreamTracker {
    pub(crate) id: u8,
    /// Internal streams have a floor only.
    pub(crate) internal: bool,
    pub(crate) floor: u64,
    pub(crate) read_to: Box<[u64; Partition::COUNT]>,
    pub(crate) queues: Vec<VecDeque<u64>>,
    pub(crate) outstanding: Unsettled,
    pub(crate) suspensions: Vec<SuspendedPair>,
    /// A reader stopped because too much is settled behind records that are not.
    pub(crate) stopped: bool,
    /// Of an internal stream: what was taken out above the floor.
    pub(crate) removed: RangeSet,
}

/// Records between their reading and the commit that counts their end, by offset.
pub(crate) type Unsettled = HashMap<u64, Outstanding, OffsetHasher>;

/// A record between its reading and its settling.
#[derive(Clone, Debug)]
pub(crate) struct Outstanding {
    pub(crate) partition: u8,
    pub(crate) slot: u32,
    pub(crate) cost: u64,
    pub(crate) segment: u64,
    /// Hash of route and identity.
    pub(crate) pair: u64,
    pub(crate) received: Option<Timestamp>,
    pub(crate) settled: Option<Outcome>,
    pub(crate) suspended: bool,
}

/// How a record ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Delivered,
    Expired,
    Damaged,
    Dead { reason: &'static str, detail: String },
}

/// A suspended pair.
#[derive(Clone, Debug)]
pub(crate) struct SuspendedPair {
    pub(crate) route: String,
    pub(crate) identity: String,
    pub(crate) pair: u64,
    pub(crate) partition: usize,
    /// Where the suspension began.
    pub(crate) from: u64,
    /// Where it ended, `u64::MAX` = not yet. An ended one is kept until the partition is delivered up to there, because
    /// a restart begins below and its records are settled.
    pub(crate) until: u64,
    /// The pair's records below `scanned` are in here, or settled and counted.
    pub(crate) queue: VecDeque<u64>,
    pub(crate) scanned: u64,
}

/// How many records of a stream may stand in memory before readers settle no more of what they pass.
pub(crate) const MAX_OUTSTANDING: usize = 16_384;

/// What a reader does with a record it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meet {
    /// Settled, suspended or evicted.
    Skip,
    /// Yielded before and not settled: yield again.
    Again,
    /// Not seen before.
    New,
}

impl StreamTracker {
    /// Counts what stands settled at the front of any queue, after others left it.
    pub(crate) fn advance_all(&mut self, pending: &mut Pending) {
        let Self {
            id,
            queues,
            outstanding,
            suspensions,
            ..
        } = self;
        for queue in queues
            .iter_mut()
            .chain(suspensions.iter_mut().map(|suspension| &mut suspension.queue))
        {
            pop_settled(*id, queue, outstanding, pending);
        }
    }

    /// What an audit needs of it.
    pub(crate) fn copy(&self) -> Self {
        let Self {
            id,
            internal,
            floor,
            read_to,
            queues,
            outstanding,
            suspensions,
            stopped,
            removed,
        } = self;
        Self {
            removed: removed.clone(),
            stopped: *stopped,
            id: *id,
            internal: *internal,
            floor: *floor,
            read_to: read_to.clone(),
            queues: queues.clone(),
            outstanding: outstanding.clone(),
            suspensions: suspensions.clone(),
        }
    }

    /// What a reader does with a record.
    pub(crate) fn meet(&self, offset: u64, partition: u8) -> Meet {
        if offset < self.floor || self.removed.contains(offset) {
            return Meet::Skip;
        }
        match self.outstanding.get(&offset) {
            Some(entry) if entry.settled.is_some() || entry.suspended => Meet::Skip,
            Some(_) => Meet::Again,
            None if self.internal => Meet::Again,
            None if offset < self.read_to[usize::from(partition)] => Meet::Skip,
            None => Meet::New,
        }
    }

    /// Whether a new record is the business of a suspension: it waits there, or was settled there.
    pub(crate) fn is_suspended(&self, pair: u64, offset: u64) -> bool {
        self.suspensions
            .iter()
            .any(|suspension| suspension.pair == pair && (suspension.from..suspension.until).contains(&offset))
    }

    /// Whether a record of which no more than the partition is known may be the business of a suspension.
    pub(crate) fn may_be_suspended(&self, offset: u64, partition: u8) -> bool {
        let mut suspensions = self
            .suspensions
            .iter()
            .filter(|suspension| suspension.partition == usize::from(partition));
        suspensions.any(|suspension| (suspension.from..suspension.until).contains(&offset))
    }

    /// Whether a record without an entry waits. It is at or above the floor. One that cannot be read and may be the business
    /// of a suspension does not: if it waited, the catalogue counts one more than is found, and that one is charged.
    pub(crate) fn waits_unseen(&self, block: &Block, nth: usize) -> bool {
        let offset = block.offset(nth);
        if self.removed.contains(offset) {
            return false;
        }
        let partition = block.entries[nth].partition % 64;
        let unread = self.internal || offset >= self.read_to[usize::from(partition)];
        if !self.may_be_suspended(offset, partition) {
            return unread;
        }
        let Some(view) = block.record(nth) else { return false };
        let covers = |suspension: &&SuspendedPair| {
            suspension.route == view.route && suspension.identity == view.identity && (suspension.from..suspension.until).contains(&offset)
        };
        self.suspensions
            .iter()
            .find(covers)
            .map_or(unread, |suspension| suspension.until == u64::MAX && offset >= suspension.scanned)
    }

    /// Whether a record is among those that the catalogue counts as waiting: not settled, or settled behind others.
    pub(crate) fn is_counted(&self, block: &Block, nth: usize) -> bool {
        let offset = block.offset(nth);
        offset >= self.floor && (self.outstanding.contains_key(&offset) || self.waits_unseen(block, nth))
    }

    /// Whether readers have passed everything below `end` and nothing of it is left in memory or suspended.
    pub(crate) fn is_done_below(&self, end: u64) -> bool {
        let is_passed = |p: usize| self.delivered_up_to(p) >= end;
        (0..Partition::COUNT).all(is_passed)
            && self
                .suspensions
                .iter()
                .all(|suspension| suspension.until != u64::MAX || suspension.from >= end)
    }

    /// Delivered up to, per partition.
    pub(crate) fn up_to(&self) -> Box<[u64; Partition::COUNT]> {
        let mut up_to = self.read_to.clone();
        for (p, value) in up_to.iter_mut().enumerate() {
            *value = self.delivered_up_to(p);
        }
        up_to
    }

    /// Delivered up to, in one partition.
    pub(crate) fn delivered_up_to(&self, partition: usize) -> u64 {
        self.queues[partition]
            .front()
            .copied()
            .unwrap_or(self.read_to[partition])
            .max(self.floor)
    }

    pub(crate) fn raise_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        for (queue, read_to) in self.queues.iter_mut().zip(self.read_to.iter_mut()) {
            *read_to = (*read_to).max(floor);
            while queue.front().is_some_and(|offset| *offset < floor) {
                queue.pop_front();
            }
        }
        for suspension in &mut self.suspensions {
            suspension.scanned = suspension.scanned.max(floor);
            while suspension.queue.front().is_some_and(|offset| *offset < floor) {
                suspension.queue.pop_front();
            }
        }
    }
}

impl Outstanding {
    /// Whether it was given up because nothing of it could be read.
    pub(crate) fn is_unreadable(&self) -> bool {
        matches!(self.settled, Some(Outcome::Damaged))
    }
}

impl SuspendedPair {
    /// Whether it suspends the pair now.
    pub(crate) fn is_active(&self, pair: u64) -> bool {
        self.pair == pair && self.until == u64::MAX
    }

    pub(crate) fn change(&self, stream: u8) -> Change {
        let (route, identity) = (self.route.clone(), self.identity.clone());
        Change::Suspend {
            stream,
            from: self.from,
            next: self.next(),
            until: self.until,
            route,
            identity,
        }
    }

    /// The oldest record that waits.
    pub(crate) fn next(&self) -> u64 {
        self.queue.front().copied().unwrap_or(self.scanned)
    }
}

impl Outcome {
    pub(crate) const fn count(&self) -> Count {
        match self {
            Self::Delivered => Count::Delivered,
            Self::Expired => Count::Expired,
            Self::Damaged => Count::Damaged,
            Self::Dead { .. } => Count::Dead,
        }
    }
}

/// Counts settled records at the front of a queue and forgets them.
pub(crate) fn pop_settled(stream: u8, queue: &mut VecDeque<u64>, outstanding: &mut Unsettled, pending: &mut Pending) {
    while let Some(&offset) = queue.front() {
        if let Entry::Occupied(known) = outstanding.entry(offset) {
            if known.get().settled.is_none() {
                return;
            }
            let mut entry = known.remove();
            if let Some(outcome) = entry.settled.take() {
                pending.ended(stream, offset, &entry, outcome);
                pending.moved.insert(stream);
            }
        }
        queue.pop_front();
    }
}
