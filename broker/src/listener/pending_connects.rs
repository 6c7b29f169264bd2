//! Connections that have not sent CONNECT yet. A peer that goes on keeps its place until its deadline; while there is no place
//! for a new one, the peer that has been silent for longest gives way.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::heard::Heard;
use crate::budget::{Bound, Budget, Charge, Exceeded, Owner};
use crate::limits::Limits;

/// A peer of which nothing was heard gives way after this silence.
const UNHEARD: Duration = Duration::from_secs(5);
/// One that has begun gives way after this silence: a small device computes for seconds within a TLS handshake.
const HEARD: Duration = Duration::from_secs(10);
/// One whose address has more than its share gives way to another address after this silence.
const OVER_SHARE: Duration = Duration::from_secs(1);
/// Peers that may wait for a place, and those of them from one address.
const MAX_WAITING: usize = 64;
const MAX_WAITING_OF_ONE: usize = 16;
/// How often one that waits tries again.
const RETRY: Duration = Duration::from_millis(100);

/// All of them, shared by the listeners.
#[derive(Debug)]
pub(crate) struct PendingConnects {
    budget: Arc<Budget>,
    limit: usize,
    /// Places that an address keeps for itself while there are none left.
    share: usize,
    room: Mutex<Room>,
}

#[derive(Debug, Default)]
struct Room {
    next: u64,
    places: BTreeMap<u64, Place>,
    by_owner: HashMap<Owner, usize>,
    waiting: HashMap<Owner, usize>,
}

#[derive(Debug)]
struct Place {
    owner: Owner,
    heard: Arc<Heard>,
    evicted: CancellationToken,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(crate) struct PendingConnect {
    /// Cancelled when its place is needed for another connection.
    pub(crate) evicted: CancellationToken,
    pub(super) heard: Arc<Heard>,
    all: Arc<PendingConnects>,
    number: u64,
}

/// A peer that waits for a place, until it is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    all: Arc<PendingConnects>,
    owner: Owner,
    accepted: Instant,
}

impl PendingConnects {
    pub(crate) fn new(limits: &Limits, budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            budget,
            limit: limits.max_pending,
            share: limits.pending_share(),
            room: Mutex::default(),
        })
    }

    /// A place for a new peer, and its place among all connections.
    ///
    /// # Errors
    /// There is none, by this bound, or others wait already.
    pub(super) fn admit(self: &Arc<Self>, owner: &Owner, now: Instant) -> Result<(PendingConnect, Charge), Exceeded> {
        let mut room = self.lock();
        if !room.waiting.is_empty() {
            return Err(self.whole(owner));
        }
        self.enter(&mut room, owner, now)
    }

    /// As [`PendingConnects::admit`], for a peer that waits. If there is none, one that may give way does, so that there is one
    /// in a moment.
    fn admit_waiting(self: &Arc<Self>, owner: &Owner, now: Instant) -> Result<(PendingConnect, Charge), Exceeded> {
        let mut room = self.lock();
        if room.is_over(owner, self.share) && room.waiting.keys().any(|other| !room.is_over(other, self.share)) {
            return Err(self.whole(owner));
        }
        let entered = self.enter(&mut room, owner, now);
        if let Err(exceeded) = entered
            && let Some(number) = room.victim(owner, self.share, now)
            && let Some(victim) = room.places.get(&number)
        {
            self.budget.note(exceeded, &victim.owner);
            victim.evicted.cancel();
        }
        entered
    }

    /// Lets a peer wait for a place; `None` if none can become free, or too many wait.
    pub(super) fn wait(self: &Arc<Self>, owner: &Owner, accepted: Instant) -> Option<Waiting> {
        let mut room = self.lock();
        let own = room.waiting.get(owner).copied().unwrap_or(0);
        if room.places.is_empty() || own >= MAX_WAITING_OF_ONE || room.waiting.values().sum::<usize>() >= MAX_WAITING {
            return None;
        }
        room.waiting.insert(owner.clone(), own + 1);
        Some(Waiting {
            all: Arc::clone(self),
            owner: owner.clone(),
            accepted,
        })
    }

    fn enter(self: &Arc<Self>, room: &mut Room, owner: &Owner, now: Instant) -> Result<(PendingConnect, Charge), Exceeded> {
        let exceeded = self.whole(owner);
        if room.places.len() as u64 >= exceeded.limit {
            return Err(exceeded);
        }
        let charge = self.budget.connections.try_charge(owner.clone(), 1)?;
        let number = room.next;
        room.next += 1;
        let heard = Arc::new(Heard::new(now));
        let evicted = CancellationToken::new();
        let place = Place {
            owner: owner.clone(),
            heard: Arc::clone(&heard),
            evicted: evicted.clone(),
        };
        room.places.insert(number, place);
        *room.by_owner.entry(owner.clone()).or_default() += 1;
        let pending = PendingConnect {
            evicted,
            heard,
            all: Arc::clone(self),
            number,
        };
        Ok((pending, charge))
    }

    fn whole(&self, owner: &Owner) -> Exceeded {
        let limit = match owner {
            Owner::FixedWord => self.limit.saturating_add(self.limit.div_ceil(10)),
            Owner::Identity(_) | Owner::Address(_) => self.limit,
        };
        Exceeded::whole(Bound::Pending, limit as u64)
    }

    fn lock(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Whether this address has more places than its share.
    fn is_over(&self, owner: &Owner, share: usize) -> bool {
        *owner != Owner::FixedWord && self.by_owner.get(owner).is_some_and(|own| *own > share)
    }

    /// Who gives way to a peer of this owner: of those that have been silent for long enough, one of an address over its share
    /// if there is one, then one of which nothing was heard, then the longest silent.
    fn victim(&self, owner: &Owner, share: usize, now: Instant) -> Option<u64> {
        let newcomer_is_over = self.is_over(owner, share);
        let candidates = self.places.iter().filter(|(_, place)| !place.evicted.is_cancelled());
        let may_go = candidates.filter_map(|(number, place)| {
            let (silence, was_heard) = place.heard.silence(now);
            let is_over = self.is_over(&place.owner, share) && !newcomer_is_over;
            let enough = match (is_over, was_heard) {
                (true, _) => OVER_SHARE,
                (false, false) => UNHEARD,
                (false, true) => HEARD,
            };
            (silence >= enough).then_some(((is_over, !was_heard, silence), *number))
        });
        may_go.max_by_key(|(rank, _)| *rank).map(|(_, number)| number)
    }
}

impl Waiting {
    /// Waits for a place until the deadline.
    ///
    /// # Errors
    /// No place came free, by this bound.
    pub(super) async fn admit(self, deadline: Duration) -> Result<(PendingConnect, Charge), Exceeded> {
        loop {
            let now = Instant::now();
            match self.all.admit_waiting(&self.owner, now) {
                Ok(admitted) => return Ok(admitted),
                Err(exceeded) if now.duration_since(self.accepted) >= deadline => return Err(exceeded),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        take_one(&mut self.all.lock().waiting, &self.owner);
    }
}

impl Drop for PendingConnect {
    fn drop(&mut self) {
        self.heard.end();
        let mut room = self.all.lock();
        if let Some(place) = room.places.remove(&self.number) {
            take_one(&mut room.by_owner, &place.owner);
        }
    }
}

fn take_one(counts: &mut HashMap<Owner, usize>, owner: &Owner) {
    if let Some(count) = counts.get_mut(owner) {
        *count -= 1;
        if *count == 0 {
            counts.remove(owner);
        }
    }
}

#[cfg(test)]
#[path = "pending_connects/tests.rs"]
mod tests;
