//! A shared subscription: each of its messages goes to one of its members (MQTT 5, 4.8.2).
//!
//! The member that owes the fewest answers gets the next message, so one that is slow gets less. What none of them can be sent now waits
//! here, for whichever has room first; what a member was sent at QoS 1 and had not answered when its session ended comes back here,
//! before what waits. What a member was sent at QoS 2 never moves, and what it refused goes to no other.
//!
//! Bounds: [`MAX_MEMBERS`]; what waits is charged to one of the members, and at its bound the oldest is dropped and counted.
//! While something waits, each member either has no room in its window, and looks here with its next answer, or waits for its connection
//! to have room. Locks: a session may ask its groups while it is locked; so a group never calls a session while it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::owed::Shared;
use super::room::Room;
use crate::budget::{Budget, Owner};
use crate::fanout::{Message, Recipient};
use crate::limits::MAX_MEMBERS;
use crate::observe::{DroppedOwed, Stats, add, sub};
use crate::session::SubscriptionOptions;

/// Members that are tried for a message before it waits.
const TRIED: usize = 4;
/// Messages that are looked at for one that a member may have. Members of one group may have different rights.
const LOOKED_AT: usize = 16;

/// The session of a member, over its connection.
pub(crate) trait Member: Recipient {
    /// How many messages it owes an answer for, or waits for.
    fn load(&self) -> usize;

    /// Whether the access rules let it have the message.
    fn may_have(&self, message: &Message) -> bool;

    /// Whether it may have the message, and takes a packet of that size.
    fn takes(&self, message: &Message, options: SubscriptionOptions) -> bool;

    /// Whether its connection has room.
    fn has_room(&self) -> bool;

    /// Sends it the message if there is room at once, for this group; returns whether it is sent, or never will be.
    fn owe_shared(&self, message: &Shared, options: SubscriptionOptions, group: &Arc<Group>) -> bool;

    /// Takes what waits in its groups, as far as there is room.
    fn look(&self);
}

/// The group has as many members as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyMembers;

/// A shared subscription.
pub(crate) struct Group {
    inner: Mutex<Inner>,
    budget: Arc<Budget>,
    stats: Arc<Stats>,
    me: Weak<Self>,
}

struct Inner {
    members: Vec<Joined>,
    /// Where the search for the next member begins.
    next: usize,
    waiting: Room<Shared>,
    /// Whom what waits is charged to.
    charged: Owner,
}

#[derive(Clone)]
struct Joined {
    member: Arc<dyn Member>,
    options: SubscriptionOptions,
    owner: Owner,
}

impl Group {
    /// A group without members. At most `max_bytes` wait in it; `owner` is charged until it leaves.
    pub(super) fn new(budget: &Arc<Budget>, stats: &Arc<Stats>, owner: Owner, max_bytes: u64) -> Arc<Self> {
        let inner = Inner {
            members: Vec::new(),
            next: 0,
            waiting: Room::new(budget.owed_bytes.open(owner.clone()), max_bytes),
            charged: owner,
        };
        Arc::new_cyclic(|me| Self {
            inner: Mutex::new(inner),
            budget: Arc::clone(budget),
            stats: Arc::clone(stats),
            me: me.clone(),
        })
    }

    /// Adds a member, or changes its options. It should [`look`](Member::look) then.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn join(&self, member: &Arc<dyn Member>, options: SubscriptionOptions, owner: Owner) -> Result<(), TooManyMembers> {
        let mut inner = self.lock();
        if let Some(known) = inner.members.iter_mut().find(|known| Arc::ptr_eq(&known.member, member)) {
            known.options = options;
        } else if inner.members.len() >= MAX_MEMBERS {
            return Err(TooManyMembers);
        } else {
            let member = Arc::clone(member);
            inner.members.push(Joined { member, options, owner });
        }
        Ok(())
    }

    /// Ends a membership; returns whether the group is empty now.
    pub(super) fn leave(&self, member: &Arc<dyn Member>) -> bool {
        let mut inner = self.lock();
        inner.members.retain(|known| !Arc::ptr_eq(&known.member, member));
        if !inner.members.iter().any(Joined::is_owed) {
            while inner.waiting.pop().is_some() {
                self.dropped(DroppedOwed::SessionEnd);
            }
        }
        let is_charged = inner.members.iter().any(|known| known.owner == inner.charged);
        if !is_charged && let Some(next) = inner.members.first().map(|known| known.owner.clone()) {
            inner.waiting.recharge(self.budget.owed_bytes.open(next.clone()));
            inner.charged = next;
        }
        inner.members.is_empty()
    }

    /// Whether something waits.
    pub(crate) fn has_waiting(&self) -> bool {
        self.lock().waiting.len() > 0
    }

    /// The oldest message that this member may have.
    pub(crate) fn next(&self, takes: impl Fn(&Message) -> bool) -> Option<Shared> {
        let mut inner = self.lock();
        let mut at = 0;
        while at < LOOKED_AT
            && let Some(message) = inner.waiting.at(at).map(|shared| Arc::clone(&shared.message))
        {
            if takes(&message) {
                return inner.waiting.remove(at);
            }
            if inner.members.iter().any(|known| known.member.takes(&message, known.options)) {
                at += 1;
            } else {
                // Those who could take it are gone.
                inner.waiting.remove(at);
                self.dropped(DroppedOwed::SessionEnd);
            }
        }
        None
    }

    /// Takes back what could not be sent after all.
    pub(crate) fn undo(&self, shared: Shared) {
        self.put_first(std::iter::once(shared));
    }

    /// Takes back what a session that has ended was sent and had not answered, the oldest first, and gives it to others.
    pub(super) fn put_back(&self, unanswered: Vec<Shared>) {
        self.put_first(unanswered.into_iter().rev());
        self.tell_all();
    }

    fn put_first(&self, newest_first: impl Iterator<Item = Shared>) {
        let mut inner = self.lock();
        for shared in newest_first {
            if !inner.members.iter().any(Joined::is_owed) {
                self.dropped(DroppedOwed::SessionEnd);
            } else if let Err(reason) = inner.waiting.push_front(shared) {
                self.dropped(reason);
            }
        }
    }

    /// Lets each member look. Their sessions are locked one by one, the group is not.
    fn tell_all(&self) {
        let members: Vec<_> = self.lock().members.iter().map(|known| Arc::clone(&known.member)).collect();
        members.iter().for_each(|member| member.look());
    }

    /// Those who could be given the message, the best first.
    fn best(&self, inner: &mut Inner, message: &Message) -> Vec<Joined> {
        let count = inner.members.len();
        let from = inner.next % count.max(1);
        inner.next = from + 1;
        let mut by_load: Vec<_> = (0..count)
            .map(|nth| (from + nth) % count)
            .map(|at| (inner.members[at].member.load(), at))
            .collect();
        // Stable: among those with one load it is the turn of the first.
        by_load.sort_by_key(|(load, _)| *load);
        let by_load = by_load.into_iter().map(|(_, at)| &inner.members[at]);
        let takers = by_load.filter(|known| known.member.takes(message, known.options));
        takers.take(TRIED).cloned().collect()
    }

    fn wait(&self, inner: &mut Inner, shared: Shared) {
        add(&self.stats.owed, 1);
        add(&self.stats.owed_waiting, 1);
        if inner.members.iter().any(Joined::is_owed) {
            inner.waiting.push(shared, |reason| self.dropped(reason));
        } else {
            self.dropped(DroppedOwed::SessionEnd);
        }
    }

    fn dropped(&self, reason: DroppedOwed) {
        sub(&self.stats.owed_waiting, 1);
        self.stats.drop_owed(reason);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Joined {
    /// Whether it gets anything at QoS 1 or 2.
    fn is_owed(&self) -> bool {
        self.options.qos > 0
    }
}

impl Recipient for Group {
    fn deliver(&self, message: &Message, _: &[SubscriptionOptions]) {
        let best = self.best(&mut self.lock(), message);
        let with_room = best.iter().find(|known| known.member.has_room());
        if let Some(known) = with_room.or(best.first()) {
            known.member.deliver(message, &[known.options]);
        }
    }

    fn owe(&self, message: &Arc<Message>, subscriptions: &[SubscriptionOptions]) {
        let Some(group) = self.me.upgrade() else { return };
        let shared = Shared {
            message: Arc::clone(message),
            since: Instant::now(),
        };
        let best = {
            let mut inner = self.lock();
            let best = self.best(&mut inner, message);
            if best.is_empty() {
                if inner.members.iter().any(|known| known.member.may_have(message)) {
                    add(&self.stats.owed, 1);
                    add(&self.stats.owed_waiting, 1);
                    self.dropped(DroppedOwed::TooLarge);
                }
                return;
            }
            if inner.waiting.len() > 0 {
                return self.wait(&mut inner, shared);
            }
            best
        };
        if best.iter().any(|known| known.member.owe_shared(&shared, known.options, &group)) {
            return;
        }
        if !best.iter().any(Joined::is_owed) {
            // All of them want QoS 0, and none reads: it is dropped as for any such subscriber.
            return self.deliver(message, subscriptions);
        }
        self.wait(&mut self.lock(), shared);
        self.tell_all();
    }
}
