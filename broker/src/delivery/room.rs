//! What waits for one session or one group, and what that and what is in flight are charged.

use std::collections::VecDeque;

use super::window::IN_FLIGHT_BYTES;
use crate::budget::{Charge, Exceeded};
use crate::observe::DroppedOwed;

/// Bytes that every session may take, as part of what its connection takes idle; the rest is charged.
const UNCHARGED_BYTES: u64 = 1 << 10;
/// What is charged at once, so that the account is not asked for each message.
const CHARGE_STEP: u64 = 4 << 10;

/// Something that waits.
pub(super) trait Waits {
    /// The bytes that it counts for.
    fn bytes(&self) -> u64;
}

/// The messages that wait, oldest first.
pub(super) struct Room<T> {
    waiting: VecDeque<T>,
    waiting_bytes: u64,
    in_flight: usize,
    /// Of messages in flight that are kept until they are answered.
    kept_bytes: u64,
    charge: Charge,
    /// Of the messages that wait (`sessions.per_session`).
    max_bytes: u64,
}

impl<T: Waits> Room<T> {
    pub(super) fn new(charge: Charge, max_bytes: u64) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            in_flight: 0,
            kept_bytes: 0,
            charge,
            max_bytes,
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds a message behind the others. At a bound the oldest are dropped for it, or itself if that is not enough; `dropped` is
    /// told of each.
    pub(super) fn push(&mut self, owed: T, mut dropped: impl FnMut(DroppedOwed)) {
        if charged(owed.bytes()) > self.charge.most() {
            // It would not fit if nothing else waited, so nothing else goes for it.
            return dropped(DroppedOwed::SessionBound);
        }
        loop {
            let reason = match self.try_take(owed.bytes()) {
                Ok(()) => break,
                Err(reason) => reason,
            };
            dropped(reason);
            if self.pop().is_none() {
                return;
            }
        }
        self.waiting_bytes += owed.bytes();
        self.waiting.push_back(owed);
    }

    /// Adds a message before the others.
    ///
    /// # Errors
    /// There is no room for it; nothing else goes for it.
    pub(super) fn push_front(&mut self, owed: T) -> Result<(), DroppedOwed> {
        self.try_take(owed.bytes())?;
        self.waiting_bytes += owed.bytes();
        self.waiting.push_front(owed);
        Ok(())
    }

    /// The one that has so many before it.
    pub(super) fn at(&self, place: usize) -> Option<&T> {
        self.waiting.get(place)
    }

    /// Takes the oldest out.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.remove(0)
    }

    /// Takes out the one that has so many before it.
    pub(super) fn remove(&mut self, place: usize) -> Option<T> {
        let owed = self.waiting.remove(place)?;
        self.waiting_bytes -= owed.bytes();
        if self.waiting.is_empty() {
            // The memory of a burst is freed.
            self.waiting = VecDeque::new();
        }
        self.give_back();
        Some(owed)
    }

    /// Takes the oldest out, and its place in flight: that is less than what it took, so there is room for it.
    pub(super) fn pop_for_flight(&mut self) -> Option<T> {
        self.in_flight += usize::from(!self.waiting.is_empty());
        self.pop()
    }

    /// Takes room for another id in flight, and for so many bytes that are kept with it; false if there is none.
    pub(super) fn begin(&mut self, kept_bytes: u64) -> bool {
        let fits = self.charge(self.taken() + IN_FLIGHT_BYTES + kept_bytes).is_ok();
        if fits {
            self.in_flight += 1;
            self.kept_bytes += kept_bytes;
        }
        fits
    }

    /// An id is not in flight any more, and so many bytes are not kept.
    pub(super) fn end(&mut self, kept_bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.kept_bytes = self.kept_bytes.saturating_sub(kept_bytes);
        self.give_back();
    }

    /// Charges another owner for what waits. It was within the bound of all, and the owner's own is not asked.
    pub(super) fn recharge(&mut self, mut charge: Charge) {
        charge.force(self.charge.amount());
        self.charge = charge;
    }

    fn try_take(&mut self, bytes: u64) -> Result<(), DroppedOwed> {
        if self.waiting_bytes + bytes > self.max_bytes {
            return Err(DroppedOwed::SessionBound);
        }
        self.charge(self.taken() + bytes).map_err(|exceeded| match exceeded.is_share {
            true => DroppedOwed::SessionBound,
            false => DroppedOwed::AllSessionsBound,
        })
    }

    fn taken(&self) -> u64 {
        self.waiting_bytes + self.kept_bytes + self.in_flight as u64 * IN_FLIGHT_BYTES
    }

    fn charge(&mut self, taken: u64) -> Result<(), Exceeded> {
        let missing = charged(taken).saturating_sub(self.charge.amount());
        if missing > 0 { self.charge.grow(missing) } else { Ok(()) }
    }

    /// Gives back what is charged beyond what is needed. One step is kept, so that not each message takes and gives one.
    fn give_back(&mut self) {
        let needed = charged(self.taken());
        let kept = if needed > 0 { needed + CHARGE_STEP } else { 0 };
        self.charge.shrink(self.charge.amount().saturating_sub(kept));
    }
}

fn charged(taken: u64) -> u64 {
    taken.saturating_sub(UNCHARGED_BYTES).next_multiple_of(CHARGE_STEP)
}
