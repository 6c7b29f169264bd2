//! Making room: what to do next so that a batch fits, or one segment less takes room.
//!
//! It decides; the writer does one step, asks again, and commits the batch when there is enough. Each step is at most one commit.

use crate::commit::bounds::Space;
use crate::commit::compaction::Compaction;
use crate::commit::eviction::{self, Victims};
use crate::shared::Shared;

/// How many segments one search may free.
const ROUNDS: usize = 64;

/// What makes room next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// Nothing: there is enough.
    Enough,
    /// Nothing can: what is there must stay.
    Nothing,
    /// Wait until what is on its way out is gone.
    Remove,
    /// Let the spare segment go.
    DropSpare,
    /// Commit what is settled: it takes segments out of the catalogue in which nothing waits, or shows that nothing does.
    Settle,
    /// The next step of the compaction that goes on.
    Compact,
    /// Begin a new segment, because only the active one has anything that may go.
    Rotate,
    /// Let the quarantined segment go that goes first.
    DropQuarantined,
    /// Evict these and commit that.
    Evict(Victims),
}

/// How far the freeing of one segment has come. One commit settles, the next drops the segment from the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    Nothing,
    Settled,
    SettledTwice,
    Compacted,
    Rotated,
    Evicted,
    EvictedAndSettled,
}

/// A search for room.
#[derive(Debug)]
pub(crate) struct RoomSearch {
    /// Bytes that are to be free in the end.
    needed: u64,
    /// How many segments may still be freed.
    rounds: usize,
    /// What the directory occupied when the round began.
    used: Option<u64>,
    tried: Tried,
}

impl RoomSearch {
    /// Until `needed` bytes may be written.
    pub(crate) const fn for_bytes(needed: u64) -> Self {
        Self::of(needed, ROUNDS)
    }

    /// Until `needed` bytes may be written, or one segment is free.
    pub(crate) const fn for_one_segment(needed: u64) -> Self {
        Self::of(needed, 1)
    }

    const fn of(needed: u64, rounds: usize) -> Self {
        Self {
            needed,
            rounds,
            used: None,
            tried: Tried::Nothing,
        }
    }

    /// What to do next. What is cheaper comes first: what nobody needs, what is settled, what little waits between much that is
    /// settled, what is quarantined, and last what the streams' policies let go.
    pub(crate) fn next(&mut self, shared: &Shared, space: &Space, compaction: &mut Compaction, active: u64) -> NextStep {
        if space.headroom(shared) >= self.needed {
            return NextStep::Enough;
        }
        if !shared.segments.removal.is_empty() {
            return NextStep::Remove;
        }
        if shared.segments.has_spare() {
            return NextStep::DropSpare;
        }
        let used = space.used(shared);
        let is_freed = self.used.is_some_and(|before| used < before);
        if is_freed {
            self.rounds -= 1;
            self.tried = Tried::Nothing;
        }
        if self.rounds == 0 {
            return NextStep::Nothing;
        }
        if is_freed || self.used.is_none() {
            self.used = Some(used);
        }
        match self.tried {
            Tried::Nothing => self.after(Tried::Settled, NextStep::Settle),
            Tried::Settled => self.after(Tried::SettledTwice, NextStep::Settle),
            Tried::SettledTwice if compaction.is_making_room() || compaction.begin_for_room(shared, space, active) => {
                self.after(Tried::Compacted, NextStep::Compact)
            }
            Tried::Compacted if compaction.is_making_room() => NextStep::Compact,
            // Small ones give so little that the active segment grows by as much, until its free pages take the next ones.
            Tried::Compacted if self.rounds > 1 && compaction.begin_for_room(shared, space, active) => {
                self.rounds -= 1;
                NextStep::Compact
            }
            Tried::SettledTwice | Tried::Compacted | Tried::Rotated => self.evict(shared, space, active),
            Tried::Evicted => self.after(Tried::EvictedAndSettled, NextStep::Settle),
            Tried::EvictedAndSettled => NextStep::Nothing,
        }
    }

    fn evict(&mut self, shared: &Shared, space: &Space, active: u64) -> NextStep {
        // What waits comes before what is only of use to a person.
        if space.has_quarantined() {
            return NextStep::DropQuarantined;
        }
        if let Some(victims) = eviction::victims(shared, active) {
            return self.after(Tried::Evicted, NextStep::Evict(victims));
        }
        // Nothing but the active segment can go: leave it first, if it is worth anything.
        if self.tried == Tried::Rotated || space.active < space.segment_bytes / 4 {
            return NextStep::Nothing;
        }
        self.after(Tried::Rotated, NextStep::Rotate)
    }

    const fn after(&mut self, tried: Tried, step: NextStep) -> NextStep {
        self.tried = tried;
        step
    }
}
