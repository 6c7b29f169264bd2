//! Bytes of publishes that are not committed yet: a share for each identity, and turns where they wait.
//!
//! What is not committed is what the next commits have to write, so it is what the ack of everyone else waits for: an identity
//! has a share of it, and is not read beyond it. Those that wait for room go round by identity (deficit round robin): a turn is
//! one packet of the largest size, or as many small ones. Where nothing waits, nothing is locked.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::oneshot;

use super::account::Owner;
use super::bound::Bound;
use super::reached::{Exceeded, Reached};
use crate::limits::Limits;

/// What all connections have taken of `limits.max_uncommitted_bytes`, and who waits for some.
#[derive(Debug)]
pub(crate) struct Uncommitted {
    whole: usize,
    share: usize,
    /// Bytes of a turn: no publish counts for more.
    turn: usize,
    taken: AtomicUsize,
    /// Publishes that wait. It is raised under the lock, before the last look at what is free; who gives back looks at it
    /// afterwards. So one of both sees the other.
    waiting: AtomicUsize,
    turns: Mutex<Turns>,
    reached: Arc<Reached>,
}

#[derive(Debug, Default)]
struct Turns {
    /// What each identity with a connection has taken.
    taken: HashMap<Owner, Weak<AtomicUsize>>,
    /// The identities that wait; the first is next.
    round: VecDeque<Queue>,
}

/// The publishes of one identity that wait, in order.
#[derive(Debug)]
struct Queue {
    taken: Arc<AtomicUsize>,
    share: usize,
    /// What is left of its turn.
    credit: usize,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    amount: usize,
    granted: oneshot::Sender<Room>,
}

/// One connection's way to the budget.
#[derive(Debug)]
pub(crate) struct Line {
    uncommitted: Arc<Uncommitted>,
    owner: Owner,
    taken: Arc<AtomicUsize>,
    share: usize,
}

/// What was taken for a publish; given back when it is dropped, unless it is [kept](Room::keep).
#[derive(Debug)]
pub(crate) struct Room {
    uncommitted: Arc<Uncommitted>,
    taken: Arc<AtomicUsize>,
    amount: usize,
}

/// Why there is no room.
enum Short {
    OfShare,
    OfWhole,
}

impl Uncommitted {
    pub(super) fn new(limits: &Limits, reached: Arc<Reached>) -> Arc<Self> {
        Arc::new(Self {
            whole: limits.max_uncommitted_bytes,
            share: limits.uncommitted_share() as usize,
            turn: limits.max_packet.saturating_add(limits.max_topic),
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            turns: Mutex::default(),
            reached,
        })
    }

    /// The line of a connection of this owner. Shares do not bind fixed words; they take their turns as one.
    pub(crate) fn line(self: &Arc<Self>, owner: Owner) -> Line {
        let mut turns = self.lock();
        let known = turns.taken.get(&owner).and_then(Weak::upgrade);
        let taken = known.unwrap_or_else(|| {
            let taken = Arc::<AtomicUsize>::default();
            turns.taken.insert(owner.clone(), Arc::downgrade(&taken));
            taken
        });
        drop(turns);
        Line {
            uncommitted: Arc::clone(self),
            share: if owner == Owner::FixedWord { self.whole } else { self.share },
            owner,
            taken,
        }
    }

    /// Bytes that are taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(SeqCst)
    }

    /// Bytes that all may take together.
    pub(crate) fn whole(&self) -> usize {
        self.whole
    }

    fn reserve(&self, own: &AtomicUsize, share: usize, amount: usize) -> Result<(), Short> {
        // What is larger than the share goes alone.
        let within = |own: usize| (own == 0 || own.saturating_add(amount) <= share).then(|| own + amount);
        own.fetch_update(SeqCst, SeqCst, within).map_err(|_| Short::OfShare)?;
        let within = |all: usize| (all.saturating_add(amount) <= self.whole).then(|| all + amount);
        self.taken.fetch_update(SeqCst, SeqCst, within).map_err(|_| {
            own.fetch_sub(amount, SeqCst);
            Short::OfWhole
        })?;
        Ok(())
    }

    fn give_back(self: &Arc<Self>, own: &AtomicUsize, amount: usize) {
        own.fetch_sub(amount, SeqCst);
        self.taken.fetch_sub(amount, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            self.serve(&mut self.lock());
        }
    }

    /// Lets in what there is room for, by turns. An identity at its share is passed by; one that the whole has no room for keeps
    /// its turn, so that small publishes never keep a large one out.
    fn serve(self: &Arc<Self>, turns: &mut Turns) {
        let mut passed = 0;
        while passed < turns.round.len() {
            let Some(mut queue) = turns.round.pop_front() else { return };
            self.forget_ended(&mut queue);
            let Some(next) = queue.waiting.front() else { continue };
            let amount = next.amount;
            if queue.credit < amount {
                queue.credit = (queue.credit + self.turn).max(amount);
            }
            match self.reserve(&queue.taken, queue.share, amount) {
                Ok(()) => {
                    queue.credit -= amount;
                    passed = 0;
                    self.grant(&mut queue);
                    let has_credit = queue.waiting.front().is_none_or(|next| next.amount <= queue.credit);
                    if has_credit {
                        turns.round.push_front(queue);
                    } else {
                        turns.round.push_back(queue);
                    }
                }
                Err(Short::OfShare) => {
                    passed += 1;
                    turns.round.push_back(queue);
                }
                Err(Short::OfWhole) => return turns.round.push_front(queue),
            }
        }
    }

    fn forget_ended(&self, queue: &mut Queue) {
        let before = queue.waiting.len();
        queue.waiting.retain(|waiter| !waiter.granted.is_closed());
        self.waiting.fetch_sub(before - queue.waiting.len(), SeqCst);
    }

    /// Gives the first of a queue what was reserved for it.
    fn grant(self: &Arc<Self>, queue: &mut Queue) {
        let Some(next) = queue.waiting.pop_front() else { return };
        self.waiting.fetch_sub(1, SeqCst);
        let room = Room {
            uncommitted: Arc::clone(self),
            taken: Arc::clone(&queue.taken),
            amount: next.amount,
        };
        if let Err(room) = next.granted.send(room) {
            // Its connection ended at this moment. Not by dropping: that would ask for the lock, which is held.
            let amount = room.keep();
            queue.taken.fetch_sub(amount, SeqCst);
            self.taken.fetch_sub(amount, SeqCst);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Takes this much, or gets in line for it; that is counted. What is larger than the whole waits until nothing else is taken.
    ///
    /// # Errors
    /// What brings the room when it is its turn. To drop it is to leave the line.
    pub(crate) fn ask(&self, amount: usize) -> Result<Room, oneshot::Receiver<Room>> {
        let amount = amount.min(self.uncommitted.whole);
        if let Some(room) = self.take(amount) {
            return Ok(room);
        }
        let mut granted = self.queue(amount);
        // Others wait, for themselves.
        granted.try_recv().map_err(|_| {
            self.note(amount);
            granted
        })
    }

    /// Gives back what was kept.
    pub(crate) fn give_back(&self, amount: usize) {
        if amount > 0 {
            self.uncommitted.give_back(&self.taken, amount);
        }
    }

    fn take(&self, amount: usize) -> Option<Room> {
        let uncommitted = &self.uncommitted;
        let is_taken = uncommitted.waiting.load(SeqCst) == 0 && uncommitted.reserve(&self.taken, self.share, amount).is_ok();
        is_taken.then(|| Room {
            uncommitted: Arc::clone(uncommitted),
            taken: Arc::clone(&self.taken),
            amount,
        })
    }

    fn queue(&self, amount: usize) -> oneshot::Receiver<Room> {
        let uncommitted = &self.uncommitted;
        let (granted, receiver) = oneshot::channel();
        let waiter = Waiter { amount, granted };
        let mut turns = uncommitted.lock();
        uncommitted.waiting.fetch_add(1, SeqCst);
        match turns.round.iter_mut().find(|queue| Arc::ptr_eq(&queue.taken, &self.taken)) {
            Some(queue) => queue.waiting.push_back(waiter),
            None => turns.round.push_back(Queue {
                taken: Arc::clone(&self.taken),
                share: self.share,
                credit: 0,
                waiting: VecDeque::from([waiter]),
            }),
        }
        uncommitted.serve(&mut turns);
        drop(turns);
        receiver
    }

    /// Counts a publish of this size that waits.
    fn note(&self, amount: usize) {
        let uncommitted = &self.uncommitted;
        let own = self.taken.load(SeqCst);
        let exceeded = if own > 0 && own.saturating_add(amount) > self.share {
            Exceeded::share(Bound::UncommittedBytes, self.share as u64)
        } else {
            Exceeded::whole(Bound::UncommittedBytes, uncommitted.whole as u64)
        };
        uncommitted.reached.note(exceeded, &self.owner);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut turns = self.uncommitted.lock();
        if let Some(at) = turns.round.iter().position(|queue| Arc::ptr_eq(&queue.taken, &self.taken)) {
            self.uncommitted.forget_ended(&mut turns.round[at]);
            if turns.round[at].waiting.is_empty() {
                turns.round.remove(at);
            }
        }
        // Those of the map are weak, and new ones are made under this lock.
        if Arc::strong_count(&self.taken) == 1 {
            turns.taken.remove(&self.owner);
        }
    }
}

impl Room {
    /// What was taken, to be given back by [`Line::give_back`].
    pub(crate) fn keep(mut self) -> usize {
        std::mem::take(&mut self.amount)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.uncommitted.give_back(&self.taken, self.amount);
        }
    }
}

#[cfg(test)]
mod tests;
